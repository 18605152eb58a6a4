"""Builds requests about parameters and reads the streams that bring them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from backwire import _arrays
from backwire._arrays import Array
from backwire._errors import Code, InvalidRequestError, ShapeError
from backwire._errors_service import ServerError
from backwire._info import ParameterInfo, SessionInfo
from backwire._wire._message_fields import check_known
from backwire._wire._messages import Arrays
from backwire_api import chunk_stream, tensors
from backwire_api.v1 import gradient_service_pb2 as service_pb2
from backwire_api.wire import Framed


def set_parameters(
    session: SessionInfo, values: Mapping[str, Array], request_id: str, lease: int
) -> Iterator[Framed[service_pb2.SetParametersRequest]]:
    """Yields the requests of one stream, the last of them marked; `values` come from `checked_parameters`."""
    first = True
    for name, value in values.items():
        for chunk, data in chunk_stream.encode_chunks(name, value):
            message = service_pb2.SetParametersRequest(chunk=chunk)
            if first:
                message.session_id, message.request_id, message.lease = session.id, request_id, lease
            yield Framed(message, chunk=data)
            first = False
    yield Framed(service_pb2.SetParametersRequest(last=True))


def checked_parameters(session: SessionInfo, values: Arrays) -> dict[str, Array]:
    """Returns the values converted to the dtypes of their parameters; raises UnknownNameError or ShapeError."""
    known = {each.name: each for each in session.parameters}
    check_known("parameter", values, known)
    if not values:
        raise InvalidRequestError("set_parameters was given no parameters; name at least one")
    converted = {
        name: _arrays.convert(value, known[name].dtype, f"parameter {name!r}") for name, value in values.items()
    }
    for name, value in converted.items():
        if value.shape != known[name].shape:
            raise ShapeError(
                f"parameter {name!r} has shape {list(known[name].shape)}, not {list(value.shape)}; reshape the array",
                field=f"parameters[{name}]",
            )
    return converted


def selected_parameters(
    session: SessionInfo, names: Sequence[str] | None, *, trainable: bool
) -> tuple[list[str], list[ParameterInfo]]:
    """Returns the names to ask for and what to expect: all parameters when `names` is None.

    Raises UnknownNameError for a name that is not among the parameters, or not among the trainable ones.
    """
    known = {each.name: each for each in session.parameters if not (trainable and each.frozen)}
    if names is None:
        return [], list(known.values())
    listed = [names] if isinstance(names, str) else list(names)
    check_known("trainable parameter" if trainable else "parameter", listed, known)
    return listed, [known[name] for name in listed]


def decode_chunks(responses: Iterable[Framed[Any]], expected: Sequence[ParameterInfo]) -> dict[str, Array]:
    """Returns writable arrays by name, in the order in which they came; raises ServerError for nonsense."""
    names = [each.name for each in expected]
    limit = sum(tensors.byte_count(each.dtype, each.shape) for each in expected)
    try:
        received = dict(chunk_stream.decode_chunks(((each.message.chunk, each.chunk) for each in responses), limit))
    except tensors.TensorError as error:
        raise ServerError(f"the server sent a stream that cannot be read: {error}", code=Code.DATA_LOSS) from None
    if list(received) != list(dict.fromkeys(names)):
        raise ServerError(f"the server sent {list(received)} instead of {names}; upgrade it", code=Code.DATA_LOSS)
    return received
