"""What a helper is asked, and what it answers: messages over a socket that only it and the process that made it have.

A message is pickled: both ends are the same program, and nobody else can write to the socket.
"""

import copyreg
import io
import pickle
import socket
import struct
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from types import MappingProxyType
from typing import Any

from backwire_server.engine.graph import Array, Graph
from backwire_server.parallel.kept import Residue
from backwire_server.parallel.pace import Pace
from backwire_server.parallel.segment import Kind, Segment

_HEAD = struct.Struct("<QQ")
_MOST_DESCRIPTORS = 16
_NUMBERS = count()


def fresh_number() -> int:
    """Returns what stands for a graph among those that this process has parts computed of."""
    return next(_NUMBERS)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a batch, to be differentiated.

    Attributes:
        inputs: The kinds of the inputs by name.
        outputs: Which outputs to compute; None for all.
        key: What random numbers are drawn from; see `Model.forward`.
        scale: What the loss is multiplied by on the way to them; see `Model.backward`.
        seeds: The kinds of the gradients of outputs by name; none for the loss, which is differentiated then.
        wrt: The inputs whose gradients to return.
        tells: Whether to return outputs; their values count as computed in any case.
        differentiates: Whether there are to be gradients at all.
    """

    inputs: Mapping[str, Kind]
    outputs: tuple[str, ...] | None
    key: tuple[int, int]
    scale: float = 1.0
    seeds: Mapping[str, Kind] = field(default_factory=dict)
    wrt: tuple[str, ...] = ()
    tells: bool = True
    differentiates: bool = True


@dataclass(frozen=True, slots=True)
class Places:
    """The segments of a part: of trainable and frozen parameters, of inputs and seeds, and those for gradients."""

    trainable: Segment
    frozen: Segment
    inputs: Segment
    gradients: Segment

    def __iter__(self) -> Iterator[Segment]:
        yield from (self.trainable, self.frozen, self.inputs, self.gradients)


@dataclass(frozen=True, slots=True)
class Work:
    """A batch of so many parts; `placed` puts what one needs into segments, for helpers, and tells where.

    `model` stands for the graph, in all batches of a session; see `fresh_number`. `definition` tells other nodes of the
    graph, in the form of whoever made it; without one, they compute nothing. `pace` is that of all batches of which the
    same is asked. `residue` is what is kept of the pass for its Backward; None for nothing.
    """

    model: int
    graph: Graph
    count: int
    placed: Callable[[int], tuple[Part, Places]]
    definition: bytes = b""
    pace: Pace = field(default_factory=Pace)
    residue: Residue | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """A part for a helper to compute.

    Attributes:
        model: What stands for the graph from now on; `graph` is None where the helper knows it.
        segments: The numbers of the `Places`, in their order.
        given: The numbers and sizes of segments whose descriptors come with the message, in this order.
        dropped: The numbers of segments that are not needed again, `forgotten` those of models, and `released` those of
            passes.
        place: Which part of the batch it is.
        residue: The number of a pass to keep the part for, or that it was kept for; 0 for none.
    """

    part: Part
    model: int
    graph: Graph | None
    segments: tuple[int, ...]
    given: tuple[tuple[int, int], ...]
    dropped: tuple[int, ...]
    forgotten: tuple[int, ...]
    released: tuple[int, ...] = ()
    place: int = 0
    residue: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """What a part gave: its loss, its outputs, which parameters have gradients, and those of inputs."""

    loss: float | None
    outputs: Mapping[str, Array]
    parameters: tuple[str, ...]
    inputs: Mapping[str, Array] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a helper answers: the result, None where the engine refused to, and the bytes that it keeps of passes."""

    result: Result | None
    kept_bytes: int


def _proxy(values: dict[Any, Any]) -> Any:
    """Returns a mapping that cannot be changed: its type itself has no name by which it could be pickled."""
    return MappingProxyType(values)


class _Pickler(pickle.Pickler):
    dispatch_table = copyreg.dispatch_table.copy()
    dispatch_table[MappingProxyType] = lambda proxy: (_proxy, (dict(proxy),))


def send(connection: socket.socket, message: Any, segments: Sequence[Segment] = ()) -> None:
    """Sends a message, and with it the right to map segments; raises OSError."""
    data = io.BytesIO()
    _Pickler(data, pickle.HIGHEST_PROTOCOL).dump(message)
    descriptors = array("i", [segment.descriptor for segment in segments])
    head = _HEAD.pack(data.tell(), len(descriptors))
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)] if descriptors else []
    connection.sendmsg([head], rights)
    connection.sendall(data.getbuffer())


def receive(connection: socket.socket) -> tuple[Any, list[int]]:
    """Returns the next message and the descriptors that came with it; raises EOFError when there is none, OSError."""
    head, descriptors, _, _ = socket.recv_fds(connection, _HEAD.size, _MOST_DESCRIPTORS)
    head += _exactly(connection, _HEAD.size - len(head)) if head else b""
    if not head:
        raise EOFError
    size, _ = _HEAD.unpack(head)
    return pickle.loads(_exactly(connection, size)), descriptors


def _exactly(connection: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        part = connection.recv(min(size, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
