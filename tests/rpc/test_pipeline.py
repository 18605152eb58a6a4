"""A Pipeline stream: order, many requests in flight, how it ends, and how much it takes."""

import threading
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.rpc.conftest import TIMEOUT
from tests.rpc.pipelining import backward, forward, kinds, step, train

from backwire_api import tensors
from backwire_api.v1 import gradient_service_pb2 as pb


class TestOrder:
    def test_all_three_verbs_are_in_flight_and_answered_in_order(self, api: Any, converse: Any) -> None:
        session, stream = api.create(), converse(api)
        for name in ("a", "b"):
            stream.send(forward=forward(session, name))
            stream.send(backward=backward(session, name, wrt=["x"]))
            stream.send(step=step(session))
        answers = stream.answers()
        assert kinds(answers) == [*enumerate(("forward", "backward", "step") * 2, 1)]
        assert [answer.step.result.step for answer in answers[2::3]] == [1, 2]

    def test_results_are_those_of_calls_of_their_own(self, api: Any, converse: Any) -> None:
        one, other, stream = api.create(seed=3), api.create(seed=3), converse(api)
        stream.send(forward=forward(one, "a", outputs=["y"]))
        stream.send(backward=backward(one, "a", wrt=["x"], weight=0.5))
        stream.send(step=step(one, learning_rate=0.25))
        stream.send(train_step=train(one, outputs=["y"], weight=2.0))
        stream.send(forward=forward(one, mode=pb.MODE_EVAL))
        found = stream.answers()
        expected = [
            api.forward(other, forward_id="a", outputs=["y"]),
            api.backward(other, "a", wrt=["x"], weight=0.5),
            pb.StepResponse(result=api.step(other, learning_rate=0.25)),
            api.train(other, outputs=["y"], weight=2.0),
            api.forward(other, mode=pb.MODE_EVAL),
        ]
        assert [getattr(answer, answer.WhichOneof("kind")) for answer in found] == expected
        assert api.parameters(one)["w"].tobytes() == api.parameters(other)["w"].tobytes()

    def test_two_sessions_share_a_stream(self, api: Any, converse: Any) -> None:
        one, other, stream = api.create(), api.create(), converse(api)
        for _ in range(3):
            stream.send(train_step=train(one))
            stream.send(train_step=train(other, options=pb.StepOptions(learning_rate=0.1)))
        steps = [answer.train_step.result for answer in stream.answers()]
        assert [(found.step, found.learning_rate) for found in steps] == [(n, r) for n in (1, 2, 3) for r in (0.5, 0.1)]

    def test_a_session_tells_where_it_stands_between_requests(self, api: Any, converse: Any) -> None:
        session, stream = api.create(), converse(api)
        for _ in range(2):
            stream.send(train_step=train(session))
            stream.send(get_session=pb.GetSessionRequest(session_id=session))
        assert [answer.get_session.session.step for answer in stream.answers()[1::2]] == [1, 2]

    def test_answers_come_while_the_stream_stays_open(self, api: Any, converse: Any) -> None:
        session, stream = api.create(), converse(api)
        for number in range(1, 4):
            stream.send(train_step=train(session))
            assert stream.answer().train_step.result.step == number


class TestEnds:
    def test_a_half_closed_stream_is_answered_to_its_end(self, api: Any, converse: Any) -> None:
        session, stream = api.create(), converse(api)
        for _ in range(50):
            stream.send(train_step=train(session))
        stream.close()
        assert len(list(stream.call)) == 50
        assert stream.call.code() is grpc.StatusCode.OK

    def test_a_stream_without_requests_ends(self, api: Any, converse: Any) -> None:
        assert converse(api).answers() == []

    def test_a_cancelled_stream_stops_and_gives_back_what_it_held(self, api: Any, converse: Any, until: Any) -> None:
        session, stream = api.create(), converse(api)
        for _ in range(500):
            stream.send(train_step=train(session))
        stream.answer()
        stream.call.cancel()
        until(lambda: not api.server.admission._in_progress["max_concurrent_pipelines"])
        until(lambda: not api.server.admission._request_bytes)
        step = api.info(session).step
        assert api.train(session).result.step == step + 1

    def test_threads_end_with_their_streams(self, api: Any, converse: Any, until: Any) -> None:
        session = api.create()
        for end in ("close", "cancel"):
            stream = converse(api)
            stream.send(train_step=train(session))
            stream.answer()
            stream.close() if end == "close" else stream.call.cancel()
        until(lambda: not [each for each in threading.enumerate() if each.name == "backwire-pipeline-reader"])

    def test_shutting_down_answers_what_was_read_and_ends_idle_streams(
        self, api: Any, converse: Any, refused: Any
    ) -> None:
        session, idle, busy = api.create(), converse(api), converse(api)
        for stream in (idle, busy):
            stream.send(train_step=train(session))
            stream.answer()
        for _ in range(20):
            busy.send(train_step=train(session))
        for _ in range(20):
            busy.answer()
        stopper = threading.Thread(target=api.server.stop, args=(10.0,))
        stopper.start()
        for stream in (idle, busy):
            told = refused(lambda stream=stream: list(stream.call))
            assert (told.code, told.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
        stopper.join(10)
        assert not stopper.is_alive()


class TestCapacity:
    def test_idle_streams_take_no_places_of_calls(self, serve: Any, converse: Any, refused: Any) -> None:
        api = serve(max_concurrent_calls=1, max_concurrent_streams=1, max_concurrent_pipelines=3)
        session = api.create()
        streams = [converse(api) for _ in range(3)]
        for stream in streams:
            stream.send(train_step=train(session))
            stream.answer()
        assert api.train(session).result.step == 4
        assert set(api.parameters(session)) == {"w", "c"}
        told = refused(lambda: converse(api).answers())
        assert (told.reason, told.quota) == ("OVERLOADED", "max_concurrent_pipelines")

    def test_a_flood_is_held_back_at_the_window(self, serve: Any, until: Any) -> None:
        api = serve(max_pipeline_bytes=200_000)
        session = api.create()
        turn = api.server._store.get(session)._turn
        assert turn.try_acquire(), "nothing is done as long as the test has it"
        inputs = {"x": tensors.encode(np.ones(3))}
        other = pb.ForwardRequest(session_id=session, inputs=inputs, mode=pb.MODE_EVAL, outputs=["y"] * 1_000)
        held: list[int] = []
        sent = threading.Event()

        def flood() -> Iterator[pb.PipelineRequest]:
            for number in range(1, 2_001):
                held.append(api.server.admission._request_bytes)
                yield pb.PipelineRequest(id=number, forward=other)
            sent.set()

        call = api.stub.Pipeline(flood(), timeout=3 * TIMEOUT)
        until(lambda: api.server.admission._request_bytes >= 200_000)
        held.append(api.server.admission._request_bytes)
        turn.release()
        assert sum(1 for _ in call) == 2_000
        assert sent.is_set()
        assert 200_000 <= max(held) <= 200_000 + len(other.SerializeToString()) + 2_000

    def test_calls_and_health_are_answered_while_streams_are_flooded(self, api: Any) -> None:
        busy, calm = api.create(), api.create()
        over = threading.Event()

        def flood() -> Iterator[pb.PipelineRequest]:
            for number in range(1, 1_000_000):
                if over.is_set():
                    return
                yield pb.PipelineRequest(id=number, train_step=train(busy))

        streams = [api.stub.Pipeline(flood(), timeout=3 * TIMEOUT) for _ in range(3)]
        readers = [threading.Thread(target=lambda stream=stream: list(stream)) for stream in streams]
        for reader in readers:
            reader.start()
        stub = health_pb2_grpc.HealthStub(api.channel)
        for number in range(1, 11):
            assert stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT).status == 1
            assert api.train(calm).result.step == number
        over.set()
        for reader in readers:
            reader.join(20)
        assert all(stream.code() is grpc.StatusCode.OK for stream in streams)

    def test_a_client_that_reads_no_answers_stops_the_server_from_reading(self, serve: Any, until: Any) -> None:
        api = serve(max_pipeline_bytes=100_000)
        session = api.create()
        inputs = {"x": tensors.encode(np.ones(3))}
        request = pb.ForwardRequest(session_id=session, inputs=inputs, mode=pb.MODE_EVAL, forward_id="", outputs=["y"])
        request.outputs.extend(["y"] * 20_000)
        read: list[int] = []

        def flood() -> Iterator[pb.PipelineRequest]:
            for number in range(1, 100_001):
                read.append(number)
                yield pb.PipelineRequest(id=number, forward=request)

        call = api.stub.Pipeline(flood(), timeout=20)
        until(lambda: api.server.admission._request_bytes >= 100_000)
        assert api.info(session).step == 0  # others are served
        assert api.server.admission._request_bytes < 300_000
        call.cancel()
        until(lambda: not api.server.admission._request_bytes)
