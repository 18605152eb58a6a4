"""RemoteFunction: forward and backward of a session as one step of local autograd."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from backwire._arrays import Array
from backwire._builder._graph import LOSS
from backwire._errors_session import FailedPreconditionError
from backwire._forward import Forward
from backwire._wire._messages import Mode
from backwire.torch._tensors import to_array, to_tensor

if TYPE_CHECKING:
    from backwire.torch._module import RemoteModule

_LEADING = 3  # the arguments of forward before the tensors of the inputs


class RemoteFunction(torch.autograd.Function):  # type: ignore[misc]
    """Applied to a module, the names of inputs, an anchor, and their tensors; returns the outputs as a tuple.

    The anchor is a tensor that needs a gradient, so that there is a way back where no input needs one, or none is kept.
    """

    @staticmethod
    def forward(ctx: Any, module: "RemoteModule", names: tuple[str, ...], anchor: Any, *tensors: Any) -> Any:
        """Runs a pass, in train mode where there shall be a way back."""
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(anchor)  # which PyTorch frees unless the graph is retained
        ctx.module, ctx.names = module, names
        ctx.types = [(each.dtype, each.device) for each in tensors]
        inputs = {name: to_array(tensor) for name, tensor in zip(names, tensors, strict=True)}
        mode: Mode = "train" if anchor.requires_grad else "eval"
        ctx.result = module.session.forward(inputs, mode, outputs=module.output_names)
        device = tensors[0].device if tensors else None
        found = [to_tensor(_output(module, ctx.result, name), device) for name in module.output_names]
        ctx.mark_non_differentiable(*[each for each in found if not each.is_floating_point()])
        return tuple(found)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Runs the pass backwards: the parameters' gradients stay on the server, the inputs' come back."""
        module, result = ctx.module, ctx.result
        (anchor,) = ctx.saved_tensors
        if not result.id:
            raise FailedPreconditionError(
                "the remote module was in evaluation mode, or under no_grad, so there is no way back; call train() "
                "on it before"
            )
        outputs = zip(module.output_names, gradients, strict=True)
        given = {name: to_array(gradient) for name, gradient in outputs if gradient is not None}
        needed = [name for name, need in zip(ctx.names, ctx.needs_input_grad[_LEADING:], strict=True) if need]
        found = result.backward(given, needed, retain=_keeps_graph()) if given else {}
        module.contributions += bool(given)
        returned = [
            to_tensor(found[name], device).to(dtype) if name in found else None
            for name, (dtype, device) in zip(ctx.names, ctx.types, strict=True)
        ]
        if torch.is_grad_enabled():
            returned = _Once.apply(anchor, *returned)
        return (*[None] * _LEADING, *returned)


class _Once(torch.autograd.Function):  # type: ignore[misc]
    """Returns gradients as they are, and refuses to differentiate them."""

    @staticmethod
    def forward(_ctx: Any, _anchor: Any, *gradients: Any) -> Any:
        return gradients

    @staticmethod
    def backward(_ctx: Any, *_gradients: Any) -> Any:
        raise FailedPreconditionError(
            "a remote module has no second derivative; put the gradient into its graph with bw.gradient"
        )


def _output(module: "RemoteModule", result: Forward, name: str) -> Array:
    return result.outputs[name] if name != LOSS else np.asarray(result.loss, module.loss_type)


def _keeps_graph() -> bool:
    """Tells whether the backward that runs was asked to retain the graph, and so may run again."""
    return bool(torch._C._autograd._get_current_graph_task_keep_graph())
