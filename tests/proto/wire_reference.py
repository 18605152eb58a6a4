"""What protobuf makes of the same messages, and the arrays that they are tried with."""

from collections.abc import Callable
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError, Message
from hypothesis import strategies as st

from backwire_api import tensors
from backwire_api.tensors import Array, RawTensor
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_api.wire import Framed

DTYPES = ["float32", "float64", "float16", "bfloat16", "int8", "int64", "uint16", "bool"]
MAPS: dict[type[Message], str] = {
    pb.ForwardRequest: "inputs",
    pb.ForwardResponse: "outputs",
    pb.BackwardRequest: "output_gradients",
    pb.BackwardResponse: "input_gradients",
    pb.TrainStepRequest: "inputs",
    pb.TrainStepResponse: "outputs",
    pb.CheckGradientsRequest: "inputs",
    pb.DescribeSessionRequest: "inputs",
}


def arrays() -> st.SearchStrategy[Array]:
    shapes = st.lists(st.integers(0, 40), max_size=3)
    return st.builds(
        lambda shape, dtype: np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype),
        shapes,
        st.sampled_from(DTYPES),
    )


NAMES = st.text(max_size=3) | st.sampled_from(["x", "labels", "a" * 200])
ARRAYS = st.dictionaries(NAMES, arrays(), max_size=3)
HEADS = {
    pb.ForwardRequest: st.builds(pb.ForwardRequest, session_id=NAMES, mode=st.integers(0, 3), outputs=st.lists(NAMES)),
    pb.TrainStepResponse: st.builds(pb.TrainStepResponse, loss=st.floats(allow_nan=False)),
    pb.BackwardRequest: st.builds(pb.BackwardRequest, weight=st.none() | st.floats(0, 1), retain=st.booleans()),
}


def whole(head: Message, values: dict[str, Array]) -> Any:
    """The message as its stock constructor makes it."""
    message = type(head).FromString(head.SerializeToString())
    for name, value in values.items():
        getattr(message, MAPS[type(head)])[name].CopyFrom(tensors.encode(value))
    return message


def split(message: Any, holder: Any, field: str) -> Framed[Any]:
    """A message that protobuf parsed, taken apart in the obvious way."""
    found = {
        name: RawTensor(each.dtype, tuple(each.shape), each.data)
        for name, each in (getattr(holder, field).items() if field in MAPS.values() else ())
    }
    if field in MAPS.values():
        holder.ClearField(field)
        return Framed(message, found)
    chunk = getattr(holder, field).data if holder.HasField(field) else b""
    if chunk:
        getattr(holder, field).ClearField("data")
    return Framed(message, {}, chunk)


def reference(kind: type[Message], data: bytes) -> Framed[Any]:
    message: Any = kind.FromString(data)
    return split(message, message, MAPS.get(kind, "chunk"))


def told(decode: Callable[..., Framed[Any]], *arguments: Any) -> Any:
    """Everything that there is to know of a decoded message, or that it was refused."""
    try:
        framed = decode(*arguments)
    except DecodeError:
        return "refused"
    found = {name: (each.dtype, each.shape, bytes(each.data)) for name, each in framed.tensors.items()}
    return framed.message, found, bytes(framed.chunk)
