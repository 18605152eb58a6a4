"""Large tensors, one way, beside a bare socket that moves as many bytes."""

import contextlib
import socket
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
from tests.benchmarks import figures
from tests.benchmarks.server_process import ServerProcess, backwire_server
from tests.benchmarks.socket_server import GIVE, HEAD, TAKE, receive

import backwire as bw

KiB, MiB = 1 << 10, 1 << 20
SIZES = {"64 KiB": 64 * KiB, "1 MiB": MiB, "16 MiB": 16 * MiB, "64 MiB": 64 * MiB, "256 MiB": 256 * MiB}
QUICK = ("64 KiB", "1 MiB", "64 MiB")
STREAMED_MESSAGE = 4 * MiB  # the least limit of a message that a server can be given
GB = 1e9
LARGE = 64 * MiB
UNARY_GB, STREAM_GB, SHARE = 1.0, 2.5, 0.6
"""The least speed of 64 MiB in one message and of streams from there on, and the least share of the socket's speed."""

UNARY, STREAMED = "Forward, one message", "Forward, streamed"
SOCKETS = {"there": "socket, there", "back": "socket, back"}
DIRECTIONS = {STREAMED: "there", "SetParameters": "there", "GetParameters": "back"}
"""The ways that stream."""


def measure(*, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Returns the speed of every way and size in GB/s, and the share of the socket's that streams reach."""
    rows = []
    for label in QUICK if quick else SIZES:
        say(f"payloads of {label}")
        speeds = _speeds(SIZES[label], rounds=5 if quick else 11, burst=0.05 if quick else 0.1)
        rows += [
            figures.row(f"{label}, {name}", statistics.median(each), "GB/s", least=_least(name, SIZES[label]))
            for name, each in speeds.items()
        ]
        for name in DIRECTIONS if SIZES[label] >= LARGE else ():
            share = figures.ratio(speeds[name], speeds[SOCKETS[DIRECTIONS[name]]])
            rows.append(figures.row(f"{label}, {name} / socket", share, "x", least=SHARE))
    return {"title": "tensors one way", "rows": rows}


def _least(name: str, size: int) -> float | None:
    if name == UNARY:
        return UNARY_GB if size == LARGE else None
    return STREAM_GB if name in DIRECTIONS and size >= LARGE else None


def _speeds(size: int, *, rounds: int, burst: float) -> dict[str, list[float]]:
    """Returns the GB/s of every way in each round."""
    with contextlib.ExitStack() as stack:
        calls = {**_backwire_calls(_client(stack, "1Gi"), size), **_socket_calls(stack, size)}
        if size >= STREAMED_MESSAGE:
            calls[STREAMED] = _forward(_client(stack, f"{STREAMED_MESSAGE}"), size)
        times = figures.interleaved(calls, rounds=rounds, burst=burst)
    return {name: [size / seconds / GB for seconds in times[name]] for name in sorted(times)}


def _client(stack: contextlib.ExitStack, largest_message: str) -> bw.Client:
    """Returns a client of a new server; what does not fit a message is streamed."""
    flags = ("--workers", "1", "--max-message-bytes", largest_message, "--max-request-bytes", "2Gi")
    server = stack.enter_context(backwire_server(*flags))
    return stack.enter_context(bw.connect(server.address, timeout=600))


def _backwire_calls(client: bw.Client, size: int) -> dict[str, Callable[[], object]]:
    data = np.ones(size // 4, np.float32)
    w = bw.parameter("w", data.shape, initializer=bw.Zeros())
    session = client.create_session(bw.graph(outputs={"y": w[:1]}))
    return {
        UNARY: _forward(client, size),
        "SetParameters": lambda: session.set_parameters({"w": data}),
        "GetParameters": session.parameters,
    }


def _forward(client: bw.Client, size: int) -> Callable[[], object]:
    """Returns a Forward with an input of so many bytes and an output of four."""
    data = np.ones(size // 4, np.float32)
    session = client.create_session(bw.graph(outputs={"y": bw.input("x", ("elements",))[:1]}))
    return lambda: session.forward({"x": data}, "eval")


def _socket_calls(stack: contextlib.ExitStack, size: int) -> dict[str, Callable[[], object]]:
    server = stack.enter_context(ServerProcess(module="tests.benchmarks.socket_server"))
    host, _, port = server.address.rpartition(":")
    connection = stack.enter_context(socket.create_connection((host, int(port))))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    buffer = memoryview(bytearray(size))

    def there() -> None:
        connection.sendall(HEAD.pack(TAKE, size))
        connection.sendall(buffer)
        connection.recv(1)

    def back() -> None:
        connection.sendall(HEAD.pack(GIVE, size))
        receive(connection, buffer)

    return {SOCKETS["there"]: there, SOCKETS["back"]: back}
