"""The proxy itself: it passes on what it should, and no byte more."""

import socket
import threading
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.faults.connection_faults import DATA_FRAME, Answers, Fault, Script, Way
from tests.faults.proxy import Proxy

SETTINGS_FRAME = 4


@pytest.fixture
def echo() -> Iterator[str]:
    """The address of a server that sends back what it gets, one connection after the other."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                try:
                    while data := connection.recv(1 << 16):
                        connection.sendall(data)
                except OSError:
                    continue

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"127.0.0.1:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def exchanged(proxy: Proxy, data: bytes) -> bytes:
    """What comes back of what is sent, until the connection ends or all is there."""
    host, _, port = proxy.address.partition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(data)
        found = b""
        while len(found) < len(data):
            try:
                piece = connection.recv(1 << 16)
            except ConnectionResetError:
                break
            if not piece:
                break
            found += piece
        return found


def frame(kind: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, 0]) + (1).to_bytes(4, "big") + payload


@pytest.mark.parametrize("way", Way)
@pytest.mark.parametrize("reset", [False, True])
def test_a_cut_lets_so_many_bytes_pass_and_no_more(echo: str, way: Way, reset: bool) -> None:
    with Proxy(echo, [Fault("cut", 5, way, reset)]) as proxy:
        found = exchanged(proxy, b"0123456789")
        assert b"01234".startswith(found)
        assert exchanged(proxy, b"0123456789") == b"0123456789"
        assert proxy.happened == {"cut": 1}


def test_bytes_are_counted_over_connections(echo: str) -> None:
    with Proxy(echo, [Fault("cut", 15, Way.UP)]) as proxy:
        assert exchanged(proxy, b"0123456789") == b"0123456789"
        assert len(exchanged(proxy, b"0123456789")) <= 5


def test_a_delay_loses_nothing(echo: str) -> None:
    with Proxy(echo, [Fault("delay", 3, Way.UP, seconds=0.01), Fault("delay", 4, Way.DOWN, seconds=0.01)]) as proxy:
        assert exchanged(proxy, b"0123456789") == b"0123456789"
        assert proxy.happened == {"delay": 2}


def test_an_answer_is_lost_from_its_first_byte(echo: str) -> None:
    data = frame(SETTINGS_FRAME, b"abc") + frame(DATA_FRAME, b"first") + frame(DATA_FRAME, b"second")
    with Proxy(echo, [Fault("lose", 1)]) as proxy:
        assert data.removesuffix(frame(DATA_FRAME, b"second")).startswith(exchanged(proxy, data))
        assert proxy.happened == {"lose": 1}


def test_a_kill_calls_whoever_kills(echo: str) -> None:
    killed = threading.Event()
    with Proxy(echo, [Fault("kill", 2, Way.UP)], killed.set) as proxy:
        assert exchanged(proxy, b"0123456789") == b"0123456789"
        assert killed.is_set()


@given(
    frames=st.lists(st.tuples(st.sampled_from([DATA_FRAME, SETTINGS_FRAME]), st.binary(max_size=20)), max_size=6),
    cuts=st.sets(st.integers(0, 120)),
)
def test_answers_are_found_however_the_bytes_come(frames: list[tuple[int, bytes]], cuts: set[int]) -> None:
    data, expected = b"", []
    for kind, payload in frames:
        if kind == DATA_FRAME and payload:
            expected.append(len(data))
        data += frame(kind, payload)
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    answers, found = Answers(), []
    for begin, end in pairwise(edges):
        found += [begin + place for place in answers.within(data[begin:end])]
    headers = [next(edge for edge in reversed(edges) if edge <= place + 8) for place in expected]
    assert found == [max(place, header) for place, header in zip(expected, headers, strict=True)]


@given(after=st.integers(0, 30), sizes=st.lists(st.integers(1, 10), min_size=5, max_size=5))
def test_a_fault_comes_after_so_many_bytes_however_they_come(after: int, sizes: list[int]) -> None:
    script, passed = Script([Fault("cut", after, Way.UP)]), 0
    for size in sizes:
        assert script.meet(Way.DOWN, 0, size, []) == (size, None)
        end, fault = script.meet(Way.UP, 0, size, [])
        passed += end
        if fault is not None:
            break
    assert passed == min(after, sum(sizes))
