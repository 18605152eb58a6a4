"""Exports: a whole session as one file, for any server to go on from."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from backwire_api.tensors import Bytes, buffer
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.messages.session import session_spec
from backwire_server.optim import FlatLayout, Optimizer
from backwire_server.optim.optimizer import AVERAGE
from backwire_server.sessions.errors import InvalidExport
from backwire_server.sessions.limits import Limits, MiB
from backwire_server.sessions.spec import SessionSpec
from backwire_server.sessions.training.parameters import shape_of, trainable_layout
from backwire_server.sessions.training.state import Image, State
from backwire_server.storage.checkpoints import state_file
from backwire_server.storage.checkpoints.state_file import GRADIENTS, OPTIMIZER, PARAMETERS
from backwire_server.storage.checkpoints.tensorfile import TensorFile, tensor_parts
from backwire_server.storage.damage import Damaged
from backwire_server.storage.disk import storage_errors

FORMAT = "backwire-session-1"
DEFINITION = "definition"
MAX_HEADER_BYTES = 32 * MiB  # of a file from a stranger: parsed, a header takes many times as much memory
PIECE_BYTES = MiB

Types = dict[str, tuple[np.dtype[Any], tuple[int, ...]]]


class FileCarrier:
    """Puts sessions into files, and takes them out of files that may come from anybody."""

    def __init__(self, limits: Limits) -> None:
        """Sessions that are taken out are held to the limits."""
        self._limits = limits

    def pack(self, spec: SessionSpec, image: Image) -> Iterator[bytes]:
        """Yields the file in pieces of at most PIECE_BYTES, but for the header; closes the image at the end.

        It has the state and the definition of the session, without passes, requests and lease. Closing the iterator,
        or letting go of it, closes the image, too. Raises StorageFailed for a session that no file can hold.
        """
        pieces = _pieces(spec, image)
        next(pieces)  # a generator that never began would not close the image
        return pieces

    def unpack(self, path: str) -> tuple[SessionSpec, Image]:
        """Returns what the file at a path holds, verified by its digest.

        Raises InvalidExport for a file that `pack` does not write, before memory is taken for its tensors, and for one
        that is damaged; what `session_spec` raises for a graph or optimizer that this server does not take; and
        GraphTooLarge; StorageFailed when it cannot be read.
        """
        try:
            with (
                storage_errors(f"{path} could not be read"),
                TensorFile(path, max_header_bytes=MAX_HEADER_BYTES) as file,
            ):
                state_file.check_format(file, FORMAT)
                spec = self._spec(file)
                return spec, Image(_state(file, spec))
        except Damaged as damage:
            raise InvalidExport(
                f"the file is no session that was exported, or it is damaged: {damage}; export the session again, and "
                "import the file as it is",
                field="chunk",
            ) from None

    def _spec(self, file: TensorFile) -> SessionSpec:
        if [name for name in file.places if not state_file.is_state(name)] != [DEFINITION]:
            raise Damaged(f"it has not exactly the tensor {DEFINITION!r} beside the state")
        definition = state_file.read_others(file)[DEFINITION]
        try:
            request = pb.CreateSessionRequest.FromString(definition.tobytes())
        except DecodeError:
            raise Damaged(f"its tensor {DEFINITION!r} is no CreateSessionRequest") from None
        spec = session_spec(request, self._limits)
        spec.check(self._limits)
        return spec


def _pieces(spec: SessionSpec, image: Image) -> Iterator[bytes]:
    with image:
        yield b""
        others = {DEFINITION: np.frombuffer(spec.definition, np.uint8)}
        metadata = {"format": FORMAT, **state_file.state_metadata(image.state)}
        metadata[state_file.SEAL] = state_file.seal(metadata, others)
        arrays = {**state_file.state_arrays(image.state), **others}
        for part in tensor_parts(arrays, metadata, max_header_bytes=MAX_HEADER_BYTES):
            yield from _copies(part)


def _copies(part: Bytes) -> Iterator[bytes]:
    if isinstance(part, bytes):
        yield part
        return
    for start in range(0, len(part), PIECE_BYTES):
        yield bytes(buffer(part[start : start + PIECE_BYTES]))


def _state(file: TensorFile, spec: SessionSpec) -> State:
    """Returns the state, checked to be one that a session of this kind can have before its arrays are read."""
    given = {name: (place.dtype, place.shape) for name, place in file.places.items() if state_file.is_state(name)}
    expected = _types(spec, accumulated=file.metadata.get("contributions") != "0")
    if differing := {name for name in given.keys() | expected.keys() if given.get(name) != expected.get(name)}:
        raise Damaged(f"tensor {min(differing)!r} is not what a session of its graph and optimizer has")
    state = state_file.read_state(file, expected)
    if not (math.isfinite(state.total_weight) and state.total_weight >= 0):
        raise Damaged(f"the weights of its contributions have the sum {state.total_weight}")
    return state


def _types(spec: SessionSpec, *, accumulated: bool) -> Types:
    """Returns the types of all tensors of a session's state, in the order of the digest."""
    layout = trainable_layout(spec.graph)
    types: Types = {PARAMETERS + p.name: (p.type.dtype, shape_of(p)) for p in spec.graph.parameters}
    if accumulated:
        types |= {GRADIENTS + name: (slot.dtype, slot.shape) for name, slot in layout.slots.items()}
    if spec.optimizer is not None:
        remembered = _remembered(spec.optimizer, layout)
        types |= {
            f"{OPTIMIZER}{memory}/{name}": (slot.dtype, slot.shape)
            for name, slot in layout.slots.items()
            for memory in remembered[slot.dtype]
        }
    return types


def _remembered(optimizer: Optimizer, layout: FlatLayout) -> Mapping[np.dtype[Any], Iterable[str]]:
    """Returns the names of what an optimizer remembers, by the dtype of the parameters."""
    names: dict[np.dtype[Any], dict[str, None]] = {dtype: {} for dtype in layout.sizes}
    for part in optimizer.segments(layout):
        names[part.dtype] |= dict.fromkeys(part.rule.init(np.empty(0, part.dtype)))
    if optimizer.average_decay is not None:
        for found in names.values():
            found[AVERAGE] = None
    return names
