"""How large a tensor may be, looked at before it is converted."""

from collections.abc import Iterable, Mapping, Sequence

from backwire_api import tensors
from backwire_api.tensors import RawTensor
from backwire_api.v1 import graph_pb2, tensor_pb2
from backwire_server.sessions.errors import GraphTooLarge, MessageTooLarge
from backwire_server.sessions.limits import Limits


def check_tensors(given: Mapping[str, RawTensor], limits: Limits) -> None:
    """Raises MessageTooLarge for a tensor of a request that has too many dimensions or bytes."""
    for name, tensor in given.items():
        if found := _excess(tensor.shape, len(tensor.data), limits):
            quota, what = found
            raise MessageTooLarge(f"tensor {name!r} has {what}; use smaller tensors", quota=quota)


def check_chunk(chunk: tensor_pb2.TensorChunk, limits: Limits) -> None:
    """Raises MessageTooLarge for a chunk of a tensor that has too many dimensions or bytes."""
    try:
        nbytes = tensors.byte_count(tensors.dtype_of(chunk.dtype), chunk.shape)
    except tensors.TensorError:
        return  # which is told better where the chunk is taken up
    if found := _excess(chunk.shape, nbytes, limits):
        quota, what = found
        raise MessageTooLarge(f"tensor {chunk.name!r} has {what}; use smaller tensors", quota=quota)


def check_graph_tensors(message: graph_pb2.Graph, limits: Limits) -> None:
    """Raises GraphTooLarge for a tensor in a graph that is too large, or attributes that together are."""
    for path, shape, nbytes in _tensors_of(message):
        if found := _excess(shape, nbytes, limits):
            quota, what = found
            raise GraphTooLarge(f"the tensor has {what}; use smaller tensors", field=path, quota=quota)
    nbytes = sum(value.ByteSize() for node in message.nodes for value in node.attributes.values())
    if nbytes > limits.max_attribute_bytes:
        raise GraphTooLarge(
            f"the attributes of the nodes hold {nbytes:,} bytes, but may have {limits.max_attribute_bytes:,}; make "
            "large ones constants",
            field="graph.nodes",
            quota="max_attribute_bytes",
        )


def _tensors_of(message: graph_pb2.Graph) -> Iterable[tuple[str, Sequence[int], int]]:
    for index, parameter in enumerate(message.parameters):
        path = f"graph.parameters[{index}]"
        if parameter.HasField("value"):
            yield f"{path}.value", parameter.value.shape, len(parameter.value.data)
        elif parameter.HasField("initializer"):
            yield f"{path}.initializer.shape", parameter.initializer.shape, 0
    for index, constant in enumerate(message.constants):
        yield f"graph.constants[{index}].value", constant.value.shape, len(constant.value.data)
    for index, item in enumerate(message.inputs):
        yield f"graph.inputs[{index}].shape", [0] * len(item.shape), 0


def _excess(shape: Sequence[int], nbytes: int, limits: Limits) -> tuple[str, str] | None:
    """Returns the limit that a tensor is beyond, and in which way; None for one that is within all."""
    if limits.max_tensor_rank < len(shape) <= tensors.MAX_RANK:  # no contract has more
        return "max_tensor_rank", f"{len(shape)} dimensions, but may have {limits.max_tensor_rank}"
    if nbytes > limits.max_tensor_bytes:
        return "max_tensor_bytes", f"{nbytes:,} bytes, but may have {limits.max_tensor_bytes:,}"
    return None
