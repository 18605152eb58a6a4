"""from_module: a module of PyTorch, moved to the server by way of ONNX."""

import copy
import inspect
import io
import warnings
from collections.abc import Sequence
from typing import Any

import onnx
import torch

from backwire._client import Client
from backwire._errors import InvalidRequestError
from backwire._training._optimizers import Optimizer
from backwire.onnx import load
from backwire.torch._module import RemoteModule
from backwire.torch._tensors import to_array

BATCH = "batch"


def from_module(
    client: Client,
    module: Any,
    example_inputs: Sequence[Any],
    *,
    optimizer: Optimizer | None = None,
    seed: int = 0,
    dynamo: bool = False,
) -> RemoteModule:
    """Makes a session of a module, with its parameters as they are, and returns it as a remote module.

    The first axis of every input stays open. Parameters and buffers keep their names; those with
    `requires_grad=False` are frozen. Dropout drops and BatchNorm updates its statistics as in the module. The module
    itself is not changed, and the session is the caller's to close.

    Args:
        client: Where to make the session.
        module: The module, in whichever mode; the remote one is in the same.
        example_inputs: Tensors that it can be called with, of 2 examples or more.
        optimizer: How steps update the parameters; None where only inputs need gradients.
        seed: What Dropout masks are drawn from.
        dynamo: True exports by `torch.export`, which takes models that the older exporter refuses and needs the
            package onnxscript; there BatchNorm always normalises by its running statistics, and never updates them.

    Raises:
        InvalidRequestError: The module returns something other than tensors.
        GraphError: The graph has what the server cannot hold; see `backwire.onnx.load`.

    Example:
        >>> import torch, backwire.torch
        >>> module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 2))
        >>> remote = backwire.torch.from_module(client, module, [torch.zeros(2, 4)], optimizer=bw.Adam(1e-2))
        >>> remote(torch.ones(16, 4)).square().mean().backward()
        >>> remote.step().step
        1
        >>> module.load_state_dict(remote.remote_parameters())
        <All keys matched successfully>
    """
    examples = tuple(example_inputs)
    made = _exported(module, examples, dynamo=dynamo)
    state = {name: to_array(value) for name, value in module.state_dict(keep_vars=True).items()}
    held = {tensor.name for tensor in made.graph.initializer}
    still = [name for name, each in module.named_parameters() if not each.requires_grad and name in held]
    session = client.create_session(load(made, frozen=still), optimizer, seed)
    session.set_parameters({each.name: state[each.name] for each in session.info().parameters if each.name in state})
    remote = RemoteModule(session, inputs=[info.name for info in made.graph.input])
    remote.train(module.training)
    return remote


def _exported(module: Any, examples: tuple[Any, ...], *, dynamo: bool) -> onnx.ModelProto:
    """Returns the model in training mode: the exporters leave Dropout out otherwise, and make equal arrays one."""
    twin = copy.deepcopy(module)
    if not module.training:
        twin.train()
    inputs = list(inspect.signature(module.forward).parameters)[: len(examples)]
    names = {"input_names": inputs, "output_names": _output_names(twin, examples)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of training mode, of PyTorch's own layers, of each exporter by the other
        if dynamo:
            shapes = tuple({0: torch.export.Dim.AUTO} if each.ndim else {} for each in examples)
            settings = {"optimize": False, "verbose": False, "dynamic_shapes": shapes}
            program = torch.onnx.export(twin, examples, dynamo=True, **settings, **names)
            found: onnx.ModelProto = program.model_proto
            return found
        file = io.BytesIO()
        axes = {name: {0: BATCH} for name, each in zip(inputs, examples, strict=True) if each.ndim}
        mode = torch.onnx.TrainingMode.PRESERVE
        settings = {"do_constant_folding": False, "training": mode, "dynamic_axes": axes}
        torch.onnx.export(twin, examples, file, dynamo=False, **settings, **names)
        return onnx.load_from_string(file.getvalue())


def _output_names(module: Any, examples: tuple[Any, ...]) -> list[str]:
    with torch.no_grad():
        found = module(*examples)
    outputs = [found] if isinstance(found, torch.Tensor) else found
    if not isinstance(outputs, list | tuple) or not all(isinstance(each, torch.Tensor) for each in outputs):
        raise InvalidRequestError(
            f"the module returns {type(found).__name__}; return a tensor, or a tuple of tensors, to move it",
            field="module",
        )
    return ["output"] if len(outputs) == 1 else [f"output{number}" for number in range(len(outputs))]
