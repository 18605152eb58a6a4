"""A Pipeline stream for sessions of several servers keeps the order of its requests, and holds no more than it may."""

import threading
import time
from collections.abc import Iterator

import pytest

from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_api.v1 import tensor_pb2
from backwire_server.config_parts import Capacity
from backwire_server.messages import fields
from backwire_server.rpc.admission import PIPELINES, Admission
from backwire_server.rpc.replicas.branches import MOST_BYTES_ON_THE_WAY, Branches
from backwire_server.sessions.errors import CallTooLarge, NoWorker


def request(number: int, session: str) -> bytes:
    return pb.PipelineRequest(id=number, step=pb.StepRequest(session_id=session)).SerializeToString()


def test_a_request_is_not_passed_on_when_one_before_it_ended_the_stream() -> None:
    begun: list[str] = []
    before = set(threading.enumerate())

    def begin(address: str, messages: Iterator[bytes]) -> Iterator[bytes]:
        begun.append(address)
        next(messages)
        raise NoWorker("it is gone")
        yield b""

    with Admission(Capacity()).enter(PIPELINES) as ticket, pytest.raises(NoWorker, match="it is gone"):
        list(Branches(ticket, str, begin, 1 << 20).run(iter([request(1, "there"), request(2, "here")])))
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
    assert begun == ["there"]


def test_chunks_that_wait_for_their_request_are_held_up_to_a_limit() -> None:
    most, taken = 10_000, []

    def chunks() -> Iterator[bytes]:
        chunk = tensor_pb2.TensorChunk(name="x", data=bytes(1_000))
        for _ in range(100):
            taken.append(chunk)
            yield pb.PipelineRequest(id=1, chunk=chunk).SerializeToString()

    with Admission(Capacity()).enter(PIPELINES) as ticket, pytest.raises(CallTooLarge, match="20,000 bytes"):
        list(Branches(ticket, str, lambda _, messages: messages, most).run(chunks()))
    assert sum(len(each.data) for each in taken) <= 2 * most


def test_of_large_messages_one_is_on_its_way() -> None:
    sent: list[int] = []
    two = threading.Event()

    def requests() -> Iterator[bytes]:
        for number in range(1, 6):
            sent.append(number)
            if number == 2:
                two.set()
            large = pb.ForwardRequest(session_id="there", forward_id="f" * MOST_BYTES_ON_THE_WAY)
            yield pb.PipelineRequest(id=number, forward=large).SerializeToString()

    def begin(_: str, messages: Iterator[bytes]) -> Iterator[bytes]:
        assert two.wait(10)
        time.sleep(0.2)  # in which it would read on
        assert sent == [1, 2]
        for message in messages:
            yield pb.PipelineResponse(id=fields.number(message)).SerializeToString()

    with Admission(Capacity()).enter(PIPELINES) as ticket:
        answers = list(Branches(ticket, str, begin, 1 << 20).run(requests()))
    assert [pb.PipelineResponse.FromString(each).id for each in answers] == [1, 2, 3, 4, 5]
