"""What tells graphs apart."""

import hashlib
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from backwire_server.engine.dims import Dim, Symbolic
from backwire_server.engine.graph import Array, Attribute, Graph, TensorType

OBJECT_BYTES = 8  # what an object takes for each character of its text, about


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Says which graph one is.

    Attributes:
        digest: 32 bytes, the same for equal graphs and for no others. The order in which outputs and updates are named
            makes no difference, that of everything else does.
        nbytes: About the bytes of memory that the graph takes.
    """

    digest: bytes
    nbytes: int


def fingerprint(graph: Graph) -> Fingerprint:
    """Returns SHA-256 over all that a graph consists of."""
    digest, length = hashlib.sha256(), 0
    for part in _parts(graph):
        text = repr(part).encode()  # which has no line breaks in it
        digest.update(text + b"\n")
        length += len(text)
    return Fingerprint(digest.digest(), length * OBJECT_BYTES + element_bytes(graph))


def element_bytes(graph: Graph) -> int:
    """Returns the bytes of the arrays in a graph: its constants, and attributes that are tensors."""
    attributes = (value for node in graph.nodes for value in node.attributes.values())
    arrays = (value for value in (*graph.constants.values(), *attributes) if isinstance(value, np.ndarray))
    return sum(array.nbytes for array in arrays)


def _parts(graph: Graph) -> Iterator[object]:
    yield [(item.name, _type(item.type)) for item in graph.inputs]
    yield [(item.name, _type(item.type), item.frozen) for item in graph.parameters]
    yield [(name, _array(array)) for name, array in graph.constants.items()]
    yield from ((node.op, node.inputs, node.outputs, node.name, _settings(node.attributes)) for node in graph.nodes)
    yield graph.loss, sorted(graph.outputs.items()), sorted(graph.updates.items()), graph.precision.name


def _type(type_: TensorType) -> object:
    return type_.dtype.name, type_.dtype.str, [_dim(dim) for dim in type_.shape]


def _dim(dim: Dim) -> object:
    return list(dim.terms.items()) if isinstance(dim, Symbolic) else int(dim)


def _array(array: Array) -> object:
    elements = hashlib.sha256(array.tobytes()).digest()
    return array.dtype.name, array.dtype.str, array.shape, array.strides, elements  # kernels may round by strides


def _settings(attributes: Mapping[str, Attribute]) -> object:
    return [(name, _plain(value)) for name, value in attributes.items()]


def _plain(value: Attribute) -> object:
    """Returns what has another text for every other value; a number's text is the same for all forms of nan."""
    if isinstance(value, np.ndarray):
        return [_array(value)]
    if isinstance(value, float):
        return struct.pack("<d", value)
    return tuple(map(_plain, value)) if isinstance(value, tuple) else value
