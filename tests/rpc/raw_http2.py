"""HTTP/2 frames written by hand, for what no library would do to a server."""

import contextlib
import gzip
import socket
import struct
from collections.abc import Iterator, Mapping
from types import TracebackType

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
ACK = END_STREAM = 1
END_HEADERS = 4
INITIAL_WINDOW_SIZE = 4
CANCEL = 8
MOST_FRAME = 16_384
SECONDS = 20.0

Frame = tuple[int, int, int, bytes]
"""The kind of a frame, its flags, its stream and its content."""


def frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
    """Returns a frame as it is sent."""
    return struct.pack(">I", len(content))[1:] + struct.pack(">BBI", kind, flags, stream) + content


def headers(method: str, more: Mapping[str, str] | None = None) -> bytes:
    """Returns the block of headers of a call, in which nothing is compressed."""
    named = {
        ":method": "POST",
        ":scheme": "http",
        ":path": f"/backwire_api.v1.GradientService/{method}",
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
        **(more or {}),
    }
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in named.items())


def _text(text: str) -> bytes:
    data = text.encode()
    if len(data) < 127:
        return bytes([len(data)]) + data
    rest, digits = len(data) - 127, [127]
    while rest >= 128:
        digits.append(rest % 128 + 128)
        rest //= 128
    return bytes([*digits, rest]) + data


def message(data: bytes, *, compressed: bool = False) -> bytes:
    """Returns a message of a call as it is sent."""
    return struct.pack(">BI", compressed, len(data)) + data


def bomb(size: int) -> bytes:
    """Returns a compressed message that is `size` bytes of zeros."""
    return message(gzip.compress(bytes(size), 9), compressed=True)


class Connection:
    """A connection that does what it is told, and no more: it acknowledges nothing, and grants no window of its own."""

    def __init__(self, address: str, *, window: int = 65_535) -> None:
        """Connects to `HOST:PORT`; the server may send `window` bytes on each stream."""
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), SECONDS)
        self.send(PREFACE, frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, window)))
        self._received = b""
        self._last = -1

    def __enter__(self) -> "Connection":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, *parts: bytes) -> None:
        """Sends bytes; raises OSError when the server has closed the connection."""
        self.socket.sendall(b"".join(parts))

    def open(self, method: str, more: Mapping[str, str] | None = None) -> int:
        """Begins a call, and returns the number of its stream."""
        self._last += 2
        self.send(frame(HEADERS, END_HEADERS, self._last, headers(method, more)))
        return self._last

    def give(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """Sends data on a stream, and the end of it."""
        pieces = [data[start : start + MOST_FRAME] for start in range(0, len(data), MOST_FRAME)] or [b""]
        for piece in pieces[:-1]:
            self.send(frame(DATA, 0, stream, piece))
        self.send(frame(DATA, END_STREAM if end else 0, stream, pieces[-1]))

    def cancel(self, stream: int) -> None:
        """Gives a stream up."""
        self.send(frame(RST_STREAM, 0, stream, struct.pack(">I", CANCEL)))

    def frames(self) -> Iterator[Frame]:
        """Yields what the server sends, until it closes the connection; raises TimeoutError when it is silent."""
        with contextlib.suppress(ConnectionError):
            while head := self._take(9):
                (size,) = struct.unpack(">I", b"\0" + head[:3])
                kind, flags, stream = struct.unpack(">BBI", head[3:])
                yield kind, flags, stream, self._take(size)

    def until(self, kind: int) -> Frame | None:
        """Reads to the next frame of a kind; None when the connection ends before."""
        return next((each for each in self.frames() if each[0] == kind), None)

    def _take(self, count: int) -> bytes:
        while len(self._received) < count:
            if not (more := self.socket.recv(65_536)):
                return b""
            self._received += more
        taken, self._received = self._received[:count], self._received[count:]
        return taken
