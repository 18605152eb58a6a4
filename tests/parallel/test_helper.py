"""A helper process ends with the process that started it, and by itself when nobody needs it."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest

from backwire_server.parallel import task
from backwire_server.parallel.member import Member

SECONDS = 60.0


def started(connection: socket.socket, idle: float) -> subprocess.Popen[bytes]:
    program = (
        f"from backwire_server.parallel import helper; helper.IDLE_SECONDS = {idle}; raise SystemExit(helper.main())"
    )
    return subprocess.Popen([sys.executable, "-c", program], stdin=connection.fileno())


def nothing(_: socket.socket) -> None:
    """Keeps silent."""


def hang_up(connection: socket.socket) -> None:
    connection.close()


def break_off(connection: socket.socket) -> None:
    """Sends the beginning of a message."""
    connection.sendall(b"\x10" + bytes(15))
    connection.close()


@pytest.mark.parametrize(("idle", "act"), [(0.2, nothing), (SECONDS, hang_up), (SECONDS, break_off)])
def test_it_ends_when_nothing_more_can_come(idle: float, act: Callable[[socket.socket], None]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = started(theirs, idle)
        theirs.close()
        ours.settimeout(SECONDS)
        assert task.receive(ours) == (None, []), "it says that it is ready"
        act(ours)
        assert process.wait(SECONDS) == 0


def test_it_has_nothing_open_of_the_process_that_started_it() -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    member = Member()
    try:
        os.close(writing)
        assert member.answer() is None, "it says that it is ready"
        os.set_blocking(reading, False)
        assert os.read(reading, 1) == b"", "the descriptor, such as that of a lock, is not open in it"
    finally:
        os.close(reading)
        member.end()
