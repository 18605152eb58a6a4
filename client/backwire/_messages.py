"""Builds requests and reads responses, without any I/O: the core that every kind of client shares."""

import operator
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal, SupportsIndex, TypeVar

from numpy.typing import ArrayLike

from backwire import _arrays
from backwire._arrays import Array, DType
from backwire._errors import Code, InvalidRequestError, UnknownNameError
from backwire._errors_service import ServerError
from backwire._errors_session import FailedPreconditionError
from backwire._graph import LOSS, Graph
from backwire._info import DURABILITIES, EXECUTORS, PRECISIONS, Durability, Executor, Precision, SessionInfo
from backwire._optimizers import Optimizer
from backwire_api import tensors
from backwire_api.tensors import RawTensor
from backwire_api.v1 import gradient_service_pb2 as service_pb2
from backwire_api.wire import Framed

Arrays = Mapping[str, ArrayLike]
Mode = Literal["train", "eval"]
NonFinite = Literal["reject", "skip", "allow"]
Normalize = Literal["sum", "mean"]
Choice = TypeVar("Choice")

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


def new_request_id(given: str | None) -> str:
    """Returns the id that the user gave, or a random one of 128 bits."""
    return secrets.token_hex(16) if given is None else given


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
        request.executor = _chosen("executor", executor, EXECUTORS)
    if optimizer is not None:
        if not isinstance(optimizer, Optimizer):
            raise InvalidRequestError(f"optimizer={optimizer!r} is no optimizer; use one such as bw.Adam(1e-3)")
        request.optimizer.CopyFrom(optimizer.to_proto())
    return request


def whole(field: str, value: SupportsIndex, bits: int = 63) -> int:
    """Returns a number that a message has in so many bits; raises InvalidRequestError for what is none."""
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if not 0 <= number < 1 << bits:
        raise InvalidRequestError(f"{field}={value!r} is no whole number of {bits} bits; use 0 or more", field=field)
    return number


def durability_number(durability: Durability | None) -> service_pb2.Durability.ValueType:
    """Returns the number of a level, that of none for None; raises InvalidRequestError for one that is unknown."""
    if durability is None:
        return service_pb2.DURABILITY_UNSPECIFIED
    return _chosen("durability", durability, DURABILITIES)


def precision_number(precision: Precision | None) -> service_pb2.Precision.ValueType:
    """Returns the number of a precision, that of none for None; raises InvalidRequestError for one that is unknown."""
    if precision is None:
        return service_pb2.PRECISION_UNSPECIFIED
    return _chosen("precision", precision, PRECISIONS)


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
        mode=_chosen("mode", mode, _MODES),
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
        non_finite=_chosen("non_finite", non_finite, _NON_FINITE),
        normalization=_chosen("normalize", normalize, _NORMALIZE),
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


def check_known(kind: str, names: Iterable[str], known: Collection[str]) -> None:
    """Raises UnknownNameError for a name that is none of those that the graph has of this kind."""
    for name in names:
        if name not in known:
            listed = ", ".join(map(repr, known)) or "none"
            raise UnknownNameError(f"the graph has no {kind} {name!r}; it has {listed}", field=f"{kind}s[{name}]")


def _chosen(what: str, value: str, choices: Mapping[str, Choice]) -> Choice:
    if value not in choices:
        raise InvalidRequestError(
            f"{what}={value!r} is unknown; use one of {', '.join(map(repr, choices))}", field=what
        )
    return choices[value]
