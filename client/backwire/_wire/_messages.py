"""Builds requests and reads responses, without any I/O: the core that every kind of client shares."""

from collections.abc import Mapping, Sequence
from typing import Literal

from numpy.typing import ArrayLike

from backwire import _arrays
from backwire._arrays import Array, DType
from backwire._builder._graph import LOSS, Graph
from backwire._errors import Code, InvalidRequestError
from backwire._errors_service import ServerError
from backwire._errors_session import FailedPreconditionError
from backwire._info import EXECUTORS, Durability, Executor, Precision, SessionInfo
from backwire._training._optimizers import Optimizer
from backwire._wire._message_fields import check_known, chosen, durability_number, precision_number, whole
from backwire_api import tensors
from backwire_api.tensors import RawTensor
from backwire_api.v1 import gradient_service_pb2 as service_pb2
from backwire_api.wire import Framed

Arrays = Mapping[str, ArrayLike]
Mode = Literal["train", "eval"]
NonFinite = Literal["reject", "skip", "allow"]
Normalize = Literal["sum", "mean"]

_MODES = {"train": service_pb2.MODE_TRAIN, "eval": service_pb2.MODE_EVAL}
_NON_FINITE = {
    "reject": service_pb2.NON_FINITE_POLICY_REJECT,
    "skip": service_pb2.NON_FINITE_POLICY_SKIP,
    "allow": service_pb2.NON_FINITE_POLICY_ALLOW,
}
_NORMALIZE = {
    "sum": service_pb2.GRADIENT_NORMALIZATION_SUM,
    "mean": service_pb2.GRADIENT_NORMALIZATION_MEAN,
}


def create_session(
    graph: Graph,
    optimizer: Optimizer | None,
    seed: int,
    durability: Durability | None,
    request_id: str,
    *,
    max_staleness: int | None = None,
    executor: Executor | None = None,
    data_parallel: int = 1,
    precision: Precision | None = None,
) -> service_pb2.CreateSessionRequest:
    """Returns the request; raises InvalidRequestError for numbers and names that cannot be."""
    request = service_pb2.CreateSessionRequest(
        graph=graph.proto,
        seed=whole("seed", seed, 64),
        request_id=request_id,
        durability=durability_number(durability),
        max_staleness=None if max_staleness is None else whole("max_staleness", max_staleness),
        data_parallel=whole("data_parallel", data_parallel or 0, 31),
        precision=precision_number(precision),
    )
    if executor is not None:
        request.executor = chosen("executor", executor, EXECUTORS)
    if optimizer is not None:
        if not isinstance(optimizer, Optimizer):
            raise InvalidRequestError(f"optimizer={optimizer!r} is no optimizer; use one such as bw.Adam(1e-3)")
        request.optimizer.CopyFrom(optimizer.to_proto())
    return request


def forward(
    session: SessionInfo,
    inputs: Arrays,
    *,
    mode: Mode,
    outputs: Sequence[str] | None,
    forward_id: str | None,
    data_parallel: int | None,
    request_id: str,
    lease: int,
) -> Framed[service_pb2.ForwardRequest]:
    """Returns the request, with inputs converted to their declared dtypes."""
    message = service_pb2.ForwardRequest(
        session_id=session.id,
        mode=chosen("mode", mode, _MODES),
        outputs=_output_names(session, outputs),
        forward_id=forward_id or "",
        data_parallel=whole("data_parallel", data_parallel or 0, 31),
        request_id=request_id,
        lease=lease if mode == "train" else 0,
    )
    return Framed(message, encode_inputs(session, inputs))


def backward(
    session: SessionInfo,
    forward_id: str,
    outputs: Mapping[str, Array],
    *,
    output_gradients: Arrays | None,
    wrt: Sequence[str],
    retain: bool,
    weight: float | None,
    request_id: str,
    lease: int,
) -> Framed[service_pb2.BackwardRequest]:
    """Returns the request; gradients take the dtype of the outputs that Forward returned."""
    if not forward_id:
        raise FailedPreconditionError("a pass in eval mode keeps nothing for Backward; run forward with mode='train'")
    names = [wrt] if isinstance(wrt, str) else list(wrt)
    check_known("input", names, [each.name for each in session.inputs])
    check_known("output", output_gradients or {}, [*session.outputs, LOSS])
    message = service_pb2.BackwardRequest(
        session_id=session.id,
        forward_id=forward_id,
        wrt=names,
        retain=retain,
        weight=weight,
        request_id=request_id,
        lease=lease,
    )
    given = (output_gradients or {}).items()
    return Framed(message, {name: _encode_gradient(session, name, value, outputs) for name, value in given})


def step_options(
    *,
    learning_rate: float | None,
    expected_step: int | None,
    non_finite: NonFinite,
    normalize: Normalize,
    after_contributions: int = 0,
    digest: bool = False,
) -> service_pb2.StepOptions:
    """Returns the message; raises InvalidRequestError for what no option can be."""
    return service_pb2.StepOptions(
        learning_rate=learning_rate,
        expected_step=None if expected_step is None else whole("expected_step", expected_step),
        non_finite=chosen("non_finite", non_finite, _NON_FINITE),
        normalization=chosen("normalize", normalize, _NORMALIZE),
        after_contributions=whole("after_contributions", after_contributions),
        digest=digest,
    )


def train_step(
    session: SessionInfo,
    inputs: Arrays,
    *,
    options: service_pb2.StepOptions,
    outputs: Sequence[str],
    weight: float | None,
    data_parallel: int | None,
    request_id: str,
    lease: int,
) -> Framed[service_pb2.TrainStepRequest]:
    """Returns the request, with inputs converted to their declared dtypes."""
    message = service_pb2.TrainStepRequest(
        session_id=session.id,
        options=options,
        outputs=_output_names(session, outputs),
        weight=weight,
        data_parallel=whole("data_parallel", data_parallel or 0, 31),
        request_id=request_id,
        lease=lease,
    )
    return Framed(message, encode_inputs(session, inputs))


def encode_inputs(session: SessionInfo, inputs: Arrays) -> dict[str, RawTensor]:
    """Returns the tensors of a request; raises InvalidRequestError, UnknownNameError, DTypeError or TensorError."""
    known = {each.name: each.dtype for each in session.inputs}
    if not isinstance(inputs, Mapping):
        listed = ", ".join(f"{name!r}: ..." for name in known)
        raise InvalidRequestError(
            f"the inputs are a {type(inputs).__name__}; give a dictionary of arrays by their names, {{{listed}}}",
            field="inputs",
        )
    check_known("input", inputs, known)
    return {
        name: tensors.encode_raw(_arrays.convert(value, known[name], f"input {name!r}"))
        for name, value in inputs.items()
    }


def decode(values: Mapping[str, RawTensor]) -> dict[str, Array]:
    """Returns read-only arrays that share the response's memory, sorted by name; raises ServerError for nonsense."""
    try:
        return {name: tensors.decode(values[name]) for name in sorted(values)}
    except tensors.TensorError as error:
        raise ServerError(f"the server sent a tensor that cannot be read: {error}", code=Code.DATA_LOSS) from None


def _encode_gradient(session: SessionInfo, name: str, value: ArrayLike, outputs: Mapping[str, Array]) -> RawTensor:
    what = f"the gradient of output {name!r}"
    dtype = outputs[name].dtype if name in outputs else _common_float(session)
    return tensors.encode_raw(_arrays.to_array(value, what) if dtype is None else _arrays.convert(value, dtype, what))


def _common_float(session: SessionInfo) -> DType | None:
    """Returns the only floating-point dtype of the graph's inputs and parameters, or None when there are several."""
    dtypes = [*(each.dtype for each in session.inputs), *(each.dtype for each in session.parameters)]
    found = {dtype for dtype in dtypes if _arrays.is_float(dtype)}
    return found.pop() if len(found) == 1 else None


def _output_names(session: SessionInfo, names: Sequence[str] | None) -> list[str]:
    if not names:
        return []
    listed = [names] if isinstance(names, str) else list(names)
    check_known("output", listed, [*session.outputs, LOSS])
    return listed
