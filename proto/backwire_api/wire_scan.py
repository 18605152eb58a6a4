"""Finds the bulk of a serialised message, so that it need not be parsed: tensors' bytes are cut out, unread.

The scanner only walks over fields; what they mean is left to protobuf, which reads the rest. Whatever is not plain
enough to be sure of raises Unusual, and then protobuf reads the whole.
"""

from dataclasses import dataclass, field

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
_MOST_LENGTH = 2**31 - 1  # protobuf's own limit
_MOST_FIELDS = 4_096  # beyond, walking in Python would take longer than it saves


class Unusual(Exception):
    """The message is malformed, or a form that only protobuf's own parser should judge."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a message may have bulk; keys are the tags on the wire of length-delimited fields.

    Attributes:
        bulk: The tag of the bytes to cut out, 0 for none.
        maps: Tags of maps from names to messages with bulk, and the layout of these.
        messages: Tags of singular messages with bulk, and their layouts. Only one may be in a message.
    """

    bulk: int = 0
    maps: dict[int, "Layout"] = field(default_factory=dict)
    messages: dict[int, "Layout"] = field(default_factory=dict)


class Scan:
    """What was found in a message.

    Attributes:
        entries: Where the bulk of each map entry lies in the message, as (begin, end) by the key's bytes.
        bulk: Where the bulk of the only message with bulk lies, or None.
    """

    def __init__(self, data: bytes) -> None:
        self.entries: dict[bytes, tuple[int, int]] = {}
        self.bulk: tuple[int, int] | None = None
        self._data = data
        self._inner = False
        self._fields = 0

    def rest(self, layout: Layout) -> bytes:
        """Returns the message without its bulk; raises Unusual. To be called once."""
        return self._message(layout, 0, len(self._data))

    def _message(self, layout: Layout, begin: int, end: int) -> bytes:
        data, kept, stop = self._data, begin, begin
        pieces: list[bytes] = []
        while stop < end:
            start, tag = stop, data[stop]
            content, stop = self._field(start, end)
            if tag == layout.bulk:
                self.bulk = content, stop
                pieces.append(data[kept:start])
                kept = stop
            elif tag in layout.maps:
                rest = self._entry(layout.maps[tag], content, stop)
                pieces += data[kept:start], bytes((tag,)), varint(len(rest)), rest
                kept = stop
            elif tag in layout.messages:
                rest = self._only(layout.messages[tag], content, stop)
                pieces += data[kept:start], bytes((tag,)), varint(len(rest)), rest
                kept = stop
        pieces.append(data[kept:end])
        return b"".join(pieces)

    def _only(self, layout: Layout, begin: int, end: int) -> bytes:
        if self._inner:
            raise Unusual  # such messages are merged, or one replaces the other
        self._inner = True
        return self._message(layout, begin, end)

    def _entry(self, layout: Layout, begin: int, end: int) -> bytes:
        """Returns a map entry without the bulk of its value."""
        data = self._data
        if begin >= end or data[begin] != 0x0A:
            raise Unusual
        name, value = self._field(begin, end)
        if value >= end or data[value] != 0x12:
            raise Unusual
        head, stop = self._field(value, end)
        if stop != end or data[name:value] in self.entries:
            raise Unusual
        rest = self._message(layout, head, end)
        self.entries[data[name:value]] = self._taken() or (end, end)
        return b"".join((data[begin:value], b"\x12", varint(len(rest)), rest))

    def _taken(self) -> tuple[int, int] | None:
        """Returns where the last bulk lies, which is then no longer that of the message."""
        found, self.bulk = self.bulk, None
        return found

    def _field(self, position: int, end: int) -> tuple[int, int]:
        """Returns where the content of a field begins and ends; raises Unusual for all but everyday forms."""
        tag = self._data[position]
        kind = tag & 7
        self._fields += 1
        if tag >= 0x80 or tag < 8 or self._fields > _MOST_FIELDS:
            raise Unusual
        position += 1
        if kind == LENGTH:
            length, position = self._varint(position, min(end, position + 5))
            stop = position + length
            if length > _MOST_LENGTH:
                raise Unusual
        elif kind == VARINT:
            stop = self._varint(position, end)[1]
        elif kind in (FIXED32, FIXED64):
            stop = position + (4 if kind == FIXED32 else 8)
        else:
            raise Unusual
        if stop > end:
            raise Unusual
        return position, stop

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        value = shift = 0
        for byte in self._data[position : min(position + 10, end)]:
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value, position + shift // 7
        raise Unusual


def varint(value: int, size: int = 0) -> bytes:
    """Returns a number of 0 or more as protobuf writes it, drawn out to at least `size` bytes."""
    written = bytearray()
    while value >= 0x80 or len(written) + 1 < size:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)
