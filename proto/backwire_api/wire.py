"""The serialised form of messages with tensors: protobuf's, but the elements are copied once out and never in.

Protobuf copies a bytes field when it is set, serialised, parsed and read. So tensors lie beside the message here, and
their bytes are joined to the rest of it by hand on the way out, and cut out of it before protobuf reads it on the way
in. On the wire nothing is special: other implementations read what is written here, and whatever protobuf reads, in
whichever order and form, is read here with the same result.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any, Generic, TypeVar, cast

import numpy as np
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from backwire_api.tensors import NO_BYTES, Bytes, RawTensor, buffer
from backwire_api.v1 import tensor_pb2
from backwire_api.wire_frame import chunk_parts, map_parts, size_of
from backwire_api.wire_scan import LENGTH, Layout, Scan, Unusual, varint

M = TypeVar("M", bound=Message)

SCANNED_FROM = 256 << 10
"""Messages from this many bytes are scanned for bulk.

A scan takes 20 us, whatever the size; protobuf's copies take 9 us for a message of 100 kB, 14 us for 200 kB, 23 us for
400 kB, and 106 us for 1 MiB, where they begin to need fresh pages.
"""

_TENSOR_TYPE, _CHUNK_TYPE = tensor_pb2.Tensor.DESCRIPTOR, tensor_pb2.TensorChunk.DESCRIPTOR
_TENSOR, _CHUNK = Layout(bulk=0x1A), Layout(bulk=0x2A)


@dataclass(slots=True)
class Framed(Generic[M]):
    """A message, and beside it the bulk that belongs into it.

    Attributes:
        message: All but the bulk.
        tensors: What belongs into the message's map of tensors, or that of the message in its oneof.
        chunk: What belongs into the data of its TensorChunk.
    """

    message: M
    tensors: Mapping[str, RawTensor] = field(default_factory=dict)
    chunk: Bytes = NO_BYTES


@dataclass(frozen=True, slots=True)
class _Places:
    """Where a kind of message has bulk: its map of tensors, its chunk, and messages with such, by name and tag."""

    map: str = ""
    map_tag: int = 0
    chunk: str = ""
    chunk_tag: int = 0
    messages: Mapping[str, tuple[int, "_Places"]] = field(default_factory=dict)


def has_bulk(kind: type[Message]) -> bool:
    """Tells whether messages of this kind may have tensors that `encode` and `decode` treat apart."""
    places = _places(kind.DESCRIPTOR)
    return bool(places.map or places.chunk or places.messages)


def reader(kind: type[Message]) -> Callable[[bytes], Any]:
    """Returns what parses messages of this kind: into Framed if it may have tensors, else into messages."""
    return partial(_decode, kind, _places(kind.DESCRIPTOR)) if has_bulk(kind) else kind.FromString


def writer(kind: type[Message]) -> Callable[[Any], bytes]:
    """Returns what serialises messages of this kind, in the form in which `reader` returns them."""
    return partial(_encode, _places(kind.DESCRIPTOR)) if has_bulk(kind) else kind.SerializeToString


def encode(framed: Framed[Any]) -> bytes:
    """Returns the message as protobuf would serialise it, fields in another order; tensors are copied once."""
    return _encode(_places(framed.message.DESCRIPTOR), framed)


def parts(framed: Framed[Any]) -> list[Bytes]:
    """Returns what `encode` does in pieces that follow one another: the bytes of tensors are not copied."""
    return _parts(framed, _places(framed.message.DESCRIPTOR))


def decode(kind: type[M], data: bytes) -> Framed[M]:
    """Returns the message; the bytes of large tensors are views of `data`, which they keep alive.

    Raises protobuf's DecodeError for what is no message of this kind.
    """
    return _decode(kind, _places(kind.DESCRIPTOR), data)


def _encode(places: _Places, framed: Framed[Any]) -> bytes:
    return b"".join(map(buffer, _parts(framed, places)))


def _decode(kind: type[M], places: _Places, data: bytes) -> Framed[M]:
    if len(data) >= SCANNED_FROM and (framed := _scanned(kind, data, places)):
        return framed
    message = kind.FromString(data)
    holder, inner = _innermost(message, places)
    return Framed(message, _taken_map(holder, inner), _taken_chunk(holder, inner))


def _scanned(kind: type[M], data: bytes, places: _Places) -> Framed[M] | None:
    """Returns the message, or None when protobuf must read the whole of it."""
    scan = Scan(data)
    try:
        rest = scan.rest(_layout(kind.DESCRIPTOR))
    except Unusual:
        return None
    message = kind.FromString(rest)
    holder, inner = _innermost(message, places)
    whole = np.frombuffer(data, np.uint8)  # the base of all views, so that each is seen to keep all bytes alive
    tensors: dict[str, RawTensor] = {}
    if inner.map:
        for name, tensor in getattr(holder, inner.map).items():
            begin, end = scan.entries[name.encode()]
            tensors[name] = RawTensor(tensor.dtype, tuple(tensor.shape), whole[begin:end])
        holder.ClearField(inner.map)
    if len(tensors) < len(scan.entries):
        return None  # a later member of the oneof replaced the one that they belong to
    chunk: Bytes = NO_BYTES
    if scan.bulk:
        if not (inner.chunk and holder.HasField(inner.chunk)):
            return None
        chunk = whole[slice(*scan.bulk)]
    return Framed(message, tensors, chunk)


def _taken_map(holder: Message, places: _Places) -> dict[str, RawTensor]:
    if not places.map:
        return {}
    values: Mapping[str, tensor_pb2.Tensor] = getattr(holder, places.map)
    tensors: dict[str, RawTensor] = {}
    for name in values:
        tensor = values[name]
        tensors[name] = RawTensor(tensor.dtype, tuple(tensor.shape), tensor.data)
    if tensors:
        holder.ClearField(cast("Any", places.map))
    return tensors


def _taken_chunk(holder: Message, places: _Places) -> Bytes:
    if not places.chunk or not holder.HasField(cast("Any", places.chunk)):
        return NO_BYTES
    chunk: tensor_pb2.TensorChunk = getattr(holder, places.chunk)
    data = chunk.data
    chunk.ClearField("data")
    return data


def _innermost(message: Message, places: _Places) -> tuple[Any, _Places]:
    """Returns the message that has the bulk: a member of the oneof if one with bulk is set, else the message itself."""
    for name, (_, inner) in places.messages.items():
        if message.HasField(name):
            return getattr(message, name), inner
    return message, places


def _parts(framed: Framed[Any], places: _Places) -> list[Bytes]:
    message = framed.message
    for name, (tag, inner) in places.messages.items():
        if message.HasField(name):
            outer = _without(message, name)
            own = Framed(getattr(message, name), framed.tensors)
            guess = varint(size_of(_bulk_parts(own, inner, 0)))
            parts = _bulk_parts(own, inner, len(outer) + 1 + len(guess))
            return [outer, bytes((tag,)), varint(size_of(parts)), *parts]
    return _bulk_parts(framed, places, 0)


def _bulk_parts(framed: Framed[Any], places: _Places, position: int) -> list[Bytes]:
    """Returns the message as it is to be joined; `position` is where it will begin."""
    message = framed.message
    if places.chunk and message.HasField(places.chunk):
        head: bytes = getattr(message, places.chunk).SerializeToString()
        return [_without(message, places.chunk), *chunk_parts(places.chunk_tag, head, framed.chunk)]
    head = message.SerializeToString()
    if not framed.tensors:
        return [head]
    return [head, *map_parts(places.map_tag, framed.tensors, position + len(head))]


def _without(message: Message, name: str) -> bytes:
    """Returns the serialised message without one of its fields."""
    copy = type(message)()
    copy.CopyFrom(message)
    copy.ClearField(cast("Any", name))
    return copy.SerializeToString()


@cache
def _places(descriptor: Descriptor) -> _Places:
    direct = _direct(descriptor)
    inner = [(each, _direct(each.message_type)) for each in descriptor.fields if each.message_type and _is_single(each)]
    return replace(direct, messages={each.name: (_tag(each), found) for each, found in inner if found.map})


@cache
def _layout(descriptor: Descriptor) -> Layout:
    """Returns the places for the scanner, which knows no names."""
    places = _places(descriptor)
    messages = {tag: Layout(maps={inner.map_tag: _TENSOR}) for tag, inner in places.messages.values()}
    maps = {places.map_tag: _TENSOR} if places.map else {}
    return Layout(maps=maps, messages=messages | ({places.chunk_tag: _CHUNK} if places.chunk else {}))


def _direct(descriptor: Descriptor) -> _Places:
    """Returns the places of a message but for those in its messages."""
    maps = [each for each in descriptor.fields if _is_map_of_tensors(each)]
    chunks = [each for each in descriptor.fields if _is_single(each) and each.message_type is _CHUNK_TYPE]
    found = _Places()
    for each in maps:
        found = replace(found, map=each.name, map_tag=_tag(each))
    for each in chunks:
        found = replace(found, chunk=each.name, chunk_tag=_tag(each))
    return found


def _is_single(each: FieldDescriptor) -> bool:
    return each.message_type is not None and not each.is_repeated


def _is_map_of_tensors(each: FieldDescriptor) -> bool:
    entry = each.message_type
    return (
        entry is not None
        and entry.GetOptions().map_entry
        and entry.fields_by_name["value"].message_type is _TENSOR_TYPE
    )


def _tag(each: FieldDescriptor) -> int:
    assert each.number < 16, "the tag has one byte"
    return each.number << 3 | LENGTH
