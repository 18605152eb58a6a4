"""PyTorch's own way to train a model that lives in another process: RPC, distributed autograd and optimizer."""

import os
import socket
import subprocess
import sys
from typing import Any

os.environ["TP_SOCKET_IFNAME"] = os.environ["GLOO_SOCKET_IFNAME"] = "lo"

import torch
from tests.benchmarks import torch_models, values
from torch.distributed import autograd, rpc
from torch.distributed.optim import DistributedOptimizer

TRAINER, OWNER = "trainer", "owner"


class Contender:
    """Steps of a trainer; the model's parameters, gradients and moments are in the other process."""

    def __init__(self, _: str) -> None:
        torch.set_num_threads(1)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
        self._owner = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.contender_torch_rpc", port], stdin=subprocess.PIPE
        )
        _join(TRAINER, 0, port)

    def setup(self, model: str) -> dict[str, Any]:
        """As in the protocol."""
        self._batch = {name: torch.from_numpy(array) for name, array in values.batch(model).items()}
        parameters = rpc.rpc_sync(OWNER, own, args=(model,))
        self._optimizer = DistributedOptimizer(torch.optim.Adam, parameters, lr=values.LEARNING_RATE)
        with autograd.context() as context:
            loss = rpc.rpc_sync(OWNER, forward, args=(self._batch,))
            autograd.backward(context, [loss])
            prints = rpc.rpc_sync(OWNER, gradients, args=(context,))
        return {"loss": loss.item(), "gradients": prints}

    def run(self, steps: int) -> None:
        """As in the protocol."""
        for _ in range(steps):
            with autograd.context() as context:
                loss = rpc.rpc_sync(OWNER, forward, args=(self._batch,))
                autograd.backward(context, [loss])
                self._optimizer.step(context)
                loss.item()


_owned: dict[str, torch.nn.Module] = {}
"""The model in the owner's process."""


def own(model: str) -> list[Any]:
    """Makes a model in the owner's process and returns references to its parameters."""
    _owned["model"] = torch_models.module(model)
    return [rpc.RRef(parameter) for parameter in _owned["model"].parameters()]


def forward(batch: dict[str, torch.Tensor]) -> Any:
    """Returns the loss of a batch."""
    return _owned["model"](**batch)


def gradients(context: int) -> dict[str, list[float]]:
    """Returns the prints of the gradients of the owner's model."""
    found = autograd.get_gradients(context)
    for parameter in _owned["model"].parameters():
        parameter.grad = found[parameter]
    prints = values.fingerprint(torch_models.gradients(_owned["model"]))
    _owned["model"].zero_grad()
    return prints


def _join(name: str, rank: int, port: str) -> None:
    options = rpc.TensorPipeRpcBackendOptions(
        init_method=f"tcp://127.0.0.1:{port}", rpc_timeout=600, _transports=["uv"]
    )
    rpc.init_rpc(name, rank=rank, world_size=2, rpc_backend_options=options)


if __name__ == "__main__":
    from tests.benchmarks import contender_torch_rpc  # the module by the name that the trainer calls it by

    torch.set_num_threads(1)
    contender_torch_rpc._join(OWNER, 1, sys.argv[1])
    sys.stdin.read()  # until the trainer has ended
    os._exit(0)
