"""Reads single fields from the bytes of a message without parsing it, such as the session that a request is for."""

from collections.abc import Container, Iterator

MOST_FIELDS = 4_096
"""How many fields of a message are looked at. Where others would come first, the request is like one without an id."""

_VARINT, _BYTES = 0, 2  # wire types
_FIXED = {1: 8, 5: 4}  # bytes, by wire type


def text(message: bytes, number: int) -> str:
    """Returns the first field of this number in a serialized protobuf message; empty when there is none, or no text.

    Looks at no more than MOST_FIELDS fields and copies only what it returns, whatever the size of the message.
    """
    return _text(message, number, 0, len(message))


def text_within(message: bytes, outer: Container[int], number: int) -> tuple[int, str]:
    """Returns the number of the first field that is among `outer`, and the text of this number in the message there.

    Returns 0 and an empty text when there is no such field.
    """
    for found, start, end in _fields(message, 0, len(message)):
        if found in outer:
            return found, _text(message, number, start, end)
    return 0, ""


def number(message: bytes) -> int:
    """Returns the field 1 of a serialized message that begins with it and where it is a number; 0 where it is not."""
    return _varint(message, 1)[0] if message[:1] == b"\x08" else 0


def _text(message: bytes, number: int, start: int, end: int) -> str:
    for found, begin, stop in _fields(message, start, end):
        if found == number:
            return message[begin:stop].decode(errors="replace")
    return ""


def _fields(message: bytes, position: int, size: int) -> Iterator[tuple[int, int, int]]:
    """Yields the number, start and end of each length-delimited field, up to where the bytes are no message."""
    for _ in range(MOST_FIELDS):
        key, position = _varint(message, position)
        kind, length = key & 7, 0
        if kind == _VARINT:
            _, position = _varint(message, position)
        elif kind in _FIXED:
            length = _FIXED[kind]
        elif kind == _BYTES:
            length, position = _varint(message, position)
        else:
            return
        if not 0 < position <= size - length:
            return
        if kind == _BYTES:
            yield key >> 3, position, position + length
        position += length


def _varint(message: bytes, position: int) -> tuple[int, int]:
    """Returns the number at a position and the position after it; that is -1 when there is none."""
    value = 0
    for index in range(10):
        if not 0 <= position + index < len(message):
            break
        byte = message[position + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, position + index + 1
    return value, -len(message) - 11  # no position, also after more is added
