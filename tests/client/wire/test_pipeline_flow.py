"""Futures of a pipeline, how many requests are in flight, and when threads end."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import as_completed
from typing import Any

import pytest
from tests.client.wire.test_pipeline import X

import backwire as bw


def test_futures_are_those_of_the_standard_library(session: bw.Session) -> None:
    seen: list[int] = []
    with session.pipeline(depth=64) as pipe:
        futures = [pipe.train_step(X) for _ in range(30)]
        futures[0].add_done_callback(lambda future: seen.append(future.result().step))
        assert {future.result().step for future in as_completed(futures)} == set(range(1, 31))
    assert seen == [1]


def test_at_most_depth_requests_are_in_flight(session: bw.Session, service: Any) -> None:
    go, most = threading.Semaphore(0), 3

    def stream(requests: Any, context: Any) -> Iterator[Any]:
        for request in requests:
            go.acquire(timeout=20)
            yield service.answered(request, context)

    service.streams.append(stream)
    made: list[Any] = []
    with session.pipeline(depth=most) as pipe:
        worker = threading.Thread(target=lambda: made.extend(pipe.train_step(X) for _ in range(9)))
        worker.start()
        while len(pipe._stream._outstanding) < most:
            time.sleep(0.001)
        for _ in range(9):
            assert len(pipe._stream._outstanding) <= most
            go.release()
        worker.join()
    assert [each.result().step for each in made] == list(range(1, 10))


def test_threads_share_a_pipeline(session: bw.Session, service: Any) -> None:
    with session.pipeline(depth=4) as pipe:
        threads = [threading.Thread(target=lambda: [pipe.train_step(X) for _ in range(20)]) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert service.sessions[session.id].step == 60


def test_nothing_is_sent_before_a_loop_of_steps_is_asked_for_results(session: bw.Session, service: Any) -> None:
    results = session.train_steps([X])
    assert not service.requests["TrainStep"]
    assert next(results).step == 1
    assert list(results) == []


def test_a_loop_of_steps_waits_for_what_is_on_its_way_when_its_batches_fail(session: bw.Session, service: Any) -> None:
    def batches() -> Iterator[Any]:
        yield X
        yield X
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="disk"):
        list(session.train_steps(batches(), depth=8))
    assert service.sessions[session.id].step == 2


def test_threads_end_with_their_pipelines(session: bw.Session) -> None:
    for _ in range(3):
        with session.pipeline() as pipe:
            pipe.step()
    deadline = time.monotonic() + 10
    while any(thread.name == "backwire-pipeline" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.005)
