"""RemoteModule: a session as a module."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch

from backwire._arrays import FLOAT32, is_float
from backwire._builder._graph import LOSS
from backwire._errors import InvalidRequestError, UnknownNameError
from backwire._info import StepResult
from backwire._session import Session
from backwire.torch._function import RemoteFunction
from backwire.torch._tensors import to_array, to_tensor


class RemoteModule(torch.nn.Module):  # type: ignore[misc]
    """A module whose forward and backward run on the server, and whose parameters live there.

    Layers before and after it train through it. What it returns has a way back, also where no input needs a gradient;
    on that way the gradients of the parameters accumulate in the session, and `step`, or a `RemoteOptimizer`, applies
    them with the session's optimizer.

    In training mode, with gradients enabled, a call is a pass in train mode: Dropout drops. In evaluation mode
    (`eval()`) and under `torch.no_grad()` it is a pass in eval mode, which has no way back. Each call is a pass of its
    own, so a model may use a module several times. `backward(retain_graph=True)` keeps the pass. There is no second
    derivative through it; `bw.gradient` puts gradients into the graph for that.

    `state_dict` has the parameters as they are on the server, and `load_state_dict` writes them there.

    Args:
        session: The session, which the module does not close.
        inputs: The names of inputs in the order in which a call takes them; None for all, in the order of the graph.
        outputs: The names of outputs to return, `"loss"` among them; None for all, or the loss where there are none.

    Attributes:
        session: The session.
        input_names: The inputs in the order in which a call takes them.
        output_names: The outputs in the order in which a call returns them.
        contributions: How many backward passes through this module wait for a step.
        loss_type: The element type of `"loss"` as an output: the first floating-point one of inputs and parameters.

    Example:
        >>> import torch, backwire.torch
        >>> x = bw.input("x", ("batch", 2))
        >>> session = client.create_session(bw.graph(outputs={"y": bw.dense(x, 3, name="top")}), bw.SGD(0.1))
        >>> body = backwire.torch.RemoteModule(session)
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 2), body, torch.nn.Linear(3, 1))
        >>> model(torch.ones(5, 4)).mean().backward()
        >>> body.step().step, model[0].weight.grad.shape
        (1, torch.Size([2, 4]))
    """

    def __init__(
        self, session: Session, *, inputs: Sequence[str] | None = None, outputs: Sequence[str] | None = None
    ) -> None:
        super().__init__()
        info = session.info()
        self.session = session
        self.input_names = _checked("input", inputs, [each.name for each in info.inputs])
        self.output_names = _checked("output", outputs or info.outputs or (LOSS,), (*info.outputs, LOSS))
        self.contributions = 0
        types = [*(each.dtype for each in info.inputs), *(each.dtype for each in info.parameters)]
        self.loss_type = next(filter(is_float, types), FLOAT32)
        self._anchor = torch.zeros((), requires_grad=True)

    def forward(self, *tensors: Any, **named: Any) -> Any:
        """Returns the outputs: a tensor, or a tuple where there are several, on the device of the first input.

        Inputs are converted to their declared types where that is safe, and their gradients back.

        Raises:
            InvalidRequestError: There are more tensors than inputs, or one input is given twice.
        """
        given = dict(zip(self.input_names, tensors, strict=False))
        if len(tensors) > len(self.input_names) or given.keys() & named.keys():
            listed = ", ".join(self.input_names) or "none"
            raise InvalidRequestError(f"the module was given inputs it has no place for; it takes each once: {listed}")
        inputs = {name: torch.as_tensor(value) for name, value in {**given, **named}.items()}
        returns = self.training and torch.is_grad_enabled()
        anchor = self._anchor if returns else self._anchor.detach()
        found = RemoteFunction.apply(self, tuple(inputs), anchor, *inputs.values())
        return found[0] if len(found) == 1 else found

    def step(self, learning_rate: float | None = None, **settings: Any) -> StepResult:
        """Applies the accumulated gradients on the server; arguments and errors are those of `Session.step`."""
        result = self.session.step(learning_rate, **settings)
        self.contributions = 0
        return result

    def zero_remote_gradients(self) -> None:
        """Discards the accumulated gradients on the server."""
        self.session.zero_gradients()
        self.contributions = 0

    def remote_parameters(self) -> dict[str, Any]:
        """Returns the parameters on the server by name, frozen ones too, as tensors of their own.

        What `from_module` made has the names of the module: `module.load_state_dict(remote.remote_parameters())`.
        """
        return {name: to_tensor(value) for name, value in self.session.parameters().items()}

    def get_extra_state(self) -> dict[str, Any]:
        """Returns what `state_dict` has of this module: the parameters on the server."""
        return self.remote_parameters()

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Writes to the server what `get_extra_state` returned."""
        if state:
            self.session.set_parameters({name: to_array(value) for name, value in state.items()})

    def extra_repr(self) -> str:
        """Returns what `repr` says of this module."""
        return f"{self.session.id}, {', '.join(self.input_names)} -> {', '.join(self.output_names)}"


def _checked(kind: str, names: Sequence[str] | None, known: Collection[str]) -> list[str]:
    for name in names or ():
        if name not in known:
            raise UnknownNameError(f"the graph has no {kind} {name!r}; it has {', '.join(known) or 'none'}")
    return list(known if names is None else names)
