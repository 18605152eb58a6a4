"""No call of the SDK fails while a server ends in good order and another takes its place."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.trainees import PATIENCE, WAYS, Replica, Trainee, create

import backwire as bw
from backwire._wire._channel import open_channel
from backwire._wire._transport import Transport


@pytest.fixture(scope="module")
def undisturbed() -> Iterator[bw.Client]:
    with bw.connect("embedded") as client:
        yield client


def distant(target: str) -> bw.Client:
    """Returns a client that has no direct way to the workers, as one on another machine."""
    return bw.Client(Transport(open_channel(target, token=None, tls=None), token=None, timeout=None, retry=bw.Retry()))


CASES = [
    pytest.param(1, bw.connect, id="one-process"),
    pytest.param(2, bw.connect, id="workers"),
    pytest.param(2, distant, id="workers-behind-the-front"),
]


@pytest.mark.parametrize(("workers", "connect"), CASES)
def test_a_single_server_is_replaced_under_clients_that_train(
    workers: int, connect: Callable[[str], bw.Client], tmp_path: Path, undisturbed: bw.Client
) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(Replica(tmp_path / "data", "--workers", str(workers)))
        client = stack.enter_context(connect(server.address))
        sessions = [(create(client, seed), way, seed) for seed in range(2) for way in WAYS]
        trainees = [stack.enter_context(Trainee(*each)) for each in sessions]
        for _ in range(2):
            for each in trainees:
                each.goes_on()
            server.upgrade()
        results = [each.result() for each in trainees]
    assert results == [each.expected(undisturbed) for each in trainees]


class Caller(threading.Thread):
    """Calls without repeating anything, until the server no longer answers."""

    def __init__(self, address: str, session_id: str) -> None:
        super().__init__(daemon=True)
        self.codes: set[str] = set()
        self.began = threading.Event()
        self._address = address
        self._id = session_id

    def run(self) -> None:
        with bw.connect(self._address, retry=bw.Retry(attempts=1)) as client:
            session, alive = client.session(self._id), True
            while alive:
                try:
                    session.info()
                    self.codes.add("OK")
                except bw.BackwireError as error:
                    self.codes.add(error.code.name if error.code else repr(error))
                    alive = error.reason == "SHUTTING_DOWN"
                self.began.set()


def test_a_call_is_done_or_may_be_repeated_at_whatever_moment_the_server_ends(tmp_path: Path) -> None:
    with Replica(tmp_path / "data") as server, bw.connect(server.address) as client:
        callers = [Caller(server.address, create(client, 0).id) for _ in range(8)]
        for each in callers:
            each.start()
        for each in callers:
            assert each.began.wait(PATIENCE)
        server.end_in_good_order()
        for each in callers:
            each.join(PATIENCE)
    assert set().union(*(each.codes for each in callers)) == {"OK", "UNAVAILABLE"}
