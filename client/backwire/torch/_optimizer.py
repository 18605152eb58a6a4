"""RemoteOptimizer: the steps of remote modules in the loops and schedulers of PyTorch."""

from collections.abc import Callable
from typing import Any

import torch

from backwire.torch._module import RemoteModule


class RemoteOptimizer(torch.optim.Optimizer):  # type: ignore[misc]
    """Steps remote modules on the server, each with the optimizer of its session, where a loop calls `step()`.

    Args:
        modules: The modules.
        lr: The learning rate, which PyTorch's schedulers may change; None leaves it to the sessions' optimizers.

    Example:
        >>> import torch, backwire.torch
        >>> loss = bw.mean((bw.parameter("w", 0.0) * bw.input("x", ("batch",)) - 6.0) ** 2)
        >>> model = backwire.torch.RemoteModule(client.create_session(loss, bw.SGD(0.1)))
        >>> optimizer = backwire.torch.RemoteOptimizer(model)
        >>> for _ in range(50):
        ...     optimizer.zero_grad()
        ...     model(torch.tensor([2.0])).backward()
        ...     optimizer.step()
        >>> round(model.remote_parameters()["w"].item(), 3)
        3.0
    """

    def __init__(self, *modules: RemoteModule, lr: float | None = None) -> None:
        self._modules = modules
        anchors = [torch.zeros((), requires_grad=True) for _ in modules]  # PyTorch wants parameters of its own
        super().__init__(anchors, {"lr": lr})

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Steps the modules that a backward pass went through since their last step; returns what `closure` did."""
        result = None
        if closure is not None:
            with torch.enable_grad():
                result = closure()
        for module in self._modules:
            if module.contributions:
                module.step(self.param_groups[0]["lr"])
        return result

    def zero_grad(self, set_to_none: bool = True) -> None:  # noqa: ARG002 - the signature is PyTorch's
        """Discards what backward passes have accumulated; calls no server right after a step."""
        for module in self._modules:
            if module.contributions:
                module.zero_remote_gradients()
