"""A Pipeline stream: order, many requests in flight, what an error stops, and requests that are repeated."""

import threading
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from backwire_api import tensors
from backwire_api.v1 import gradient_service_pb2 as pb

X = {"x": tensors.encode(np.array([1.0, -2.0, 4.0]))}


def forward(session: str, forward_id: str = "", **fields: Any) -> pb.ForwardRequest:
    return pb.ForwardRequest(session_id=session, inputs=X, forward_id=forward_id, **fields)


def backward(session: str, forward_id: str, **fields: Any) -> pb.BackwardRequest:
    return pb.BackwardRequest(session_id=session, forward_id=forward_id, **fields)


def step(session: str, request_id: str = "", **options: Any) -> pb.StepRequest:
    return pb.StepRequest(session_id=session, options=pb.StepOptions(**options), request_id=request_id)


def train(session: str, **fields: Any) -> pb.TrainStepRequest:
    return pb.TrainStepRequest(session_id=session, inputs=X, **fields)


def zero(session: str) -> pb.ZeroGradientsRequest:
    return pb.ZeroGradientsRequest(session_id=session)


def kinds(answers: list[pb.PipelineResponse]) -> list[tuple[int, str | None]]:
    return [(answer.id, answer.WhichOneof("kind")) for answer in answers]


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


class TestErrors:
    def test_an_error_stops_what_depends_on_it_and_nothing_else(self, api: Any, converse: Any, failure: Any) -> None:
        session, other, stream = api.create(), api.create(), converse(api)
        broken = stream.send(forward=pb.ForwardRequest(session_id=session, forward_id="bad"))
        stream.send(backward=backward(session, "bad"))
        stream.send(forward=forward(session, "good"))
        stream.send(backward=backward(session, "good"))
        stream.send(step=step(session))
        stream.send(train_step=train(session))
        stream.send(train_step=train(other))
        stream.send(zero_gradients=zero(session))
        stream.send(train_step=train(session))
        answers = stream.answers()
        assert failure(answers[0]) == ("MISSING_INPUT", 0)
        for place in (1, 4, 5):
            assert failure(answers[place]) == ("DEPENDENCY_FAILED", broken)
        assert [answers[place].WhichOneof("kind") for place in (2, 3, 6)] == ["forward", "backward", "train_step"]
        assert answers[7].zero_gradients.contributions == 1
        assert answers[8].train_step.result.step == 1

    def test_a_failed_step_stops_the_next_step(self, api: Any, converse: Any, failure: Any) -> None:
        session, stream = api.create(), converse(api)
        stream.send(forward=forward(session, "a"))
        stream.send(backward=backward(session, "a"))
        failed = stream.send(step=step(session, expected_step=7))
        stream.send(step=step(session))
        stream.send(dependency=pb.DEPENDENCY_NONE, step=step(session))
        answers = stream.answers()
        assert failure(answers[2])[0] == "STEP_MISMATCH"
        assert failure(answers[3]) == ("DEPENDENCY_FAILED", failed)
        assert answers[4].step.result.contributions == 1

    def test_a_failed_train_step_stops_the_next_only_if_that_says_so(
        self, api: Any, converse: Any, failure: Any
    ) -> None:
        session, stream = api.create(), converse(api)
        stream.send(train_step=pb.TrainStepRequest(session_id=session))
        stream.send(train_step=train(session))
        failed = stream.send(train_step=pb.TrainStepRequest(session_id=session))
        stream.send(dependency=pb.DEPENDENCY_PREVIOUS, train_step=train(session))
        stream.send(dependency=pb.DEPENDENCY_PREVIOUS, train_step=train(session))
        stream.send(train_step=train(session))
        answers = stream.answers()
        assert answers[1].train_step.result.step == 1
        assert failure(answers[3]) == failure(answers[4]) == ("DEPENDENCY_FAILED", failed)
        assert answers[5].train_step.result.step == 2

    def test_what_changes_nothing_stops_nothing(self, api: Any, converse: Any, failure: Any) -> None:
        session, stream = api.create(), converse(api)
        stream.send(forward=pb.ForwardRequest(session_id=session, mode=pb.MODE_EVAL))
        stream.send(get_session=pb.GetSessionRequest(session_id="none"))
        stream.send(train_step=train(session))
        answers = stream.answers()
        assert [failure(answer)[0] for answer in answers[:2]] == ["MISSING_INPUT", "SESSION_NOT_FOUND"]
        assert answers[2].train_step.result.step == 1

    def test_malformed_requests_fail_alone(self, api: Any, converse: Any, failure: Any) -> None:
        session, stream = api.create(), converse(api)
        tensor = tensors.encode(np.ones(3))
        tensor.shape[:] = [4]
        stream.send(train_step=pb.TrainStepRequest(session_id=session, inputs={"x": tensor}))
        stream.send(forward=forward(session, "f" * 200))
        stream.send(dependency=9, get_session=pb.GetSessionRequest(session_id=session))
        stream.send(zero_gradients=zero(session))
        stream.send(train_step=train(session))
        answers = stream.answers()
        assert [failure(answer)[0] for answer in answers[:3]] == ["INVALID_TENSOR"] + ["INVALID_ARGUMENT"] * 2
        assert answers[4].train_step.result.step == 1

    def test_a_request_that_the_server_does_not_know_fails_alone(self, api: Any, converse: Any, failure: Any) -> None:
        session, stream = api.create(), converse(api)
        stream.send()
        stream.send(train_step=train(session))
        answers = stream.answers()
        assert failure(answers[0])[0] == "INVALID_ARGUMENT"
        assert answers[1].train_step.result.step == 1

    @pytest.mark.parametrize("numbers", [[0], [-3], [2, 2], [5, 4]])
    def test_ids_that_do_not_rise_end_the_stream(
        self, api: Any, converse: Any, refused: Any, numbers: list[int]
    ) -> None:
        session, stream = api.create(), converse(api)
        for number in numbers:
            stream.send(number, train_step=train(session))
        told = refused(stream.answers)
        assert (told.code, told.reason, told.field) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", "id")
        assert api.info(session).step == len(numbers) - 1

    @pytest.mark.parametrize("data", [b"\xff\xff", b"\x08\x01\x3a\x05"])
    def test_what_is_no_request_ends_the_stream(self, api: Any, refused: Any, data: bytes) -> None:
        call = api.channel.stream_stream("/backwire_api.v1.GradientService/Pipeline")
        told = refused(lambda: list(call(iter([data]), timeout=20)))
        assert (told.code, told.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")


class TestRepetition:
    def test_a_request_id_holds_across_streams_and_calls(self, api: Any, converse: Any, failure: Any) -> None:
        session = api.create()
        first = api.train(session, request_id="r1", outputs=["y"])
        answers = []
        for _ in range(2):
            stream = converse(api)
            stream.send(train_step=train(session, request_id="r1", outputs=["y"]))
            stream.send(train_step=train(session, request_id="r2"))
            stream.send(train_step=train(session, request_id="r2", weight=3.0))
            answers.append(stream.answers())
        for found in answers:
            assert found[0].train_step == first
            assert found[1].train_step.result.step == 2
            assert failure(found[2])[0] == "REQUEST_ID_REUSED"
        assert api.info(session).step == 2

    def test_a_broken_stream_has_done_a_prefix_and_repeating_it_finishes_the_rest(
        self, api: Any, converse: Any
    ) -> None:
        session, stream = api.create(), converse(api)
        requests = [train(session, request_id=f"r{number}") for number in range(200)]
        for request in requests:
            stream.send(train_step=request)
        stream.answer()
        stream.call.cancel()
        again = converse(api)
        for request in requests:
            again.send(train_step=request)
        steps = [answer.train_step.result.step for answer in again.answers()]
        assert steps == list(range(1, 201))
        assert api.info(session).step == 200


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

        call = api.stub.Pipeline(flood(), timeout=20)
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

        streams = [api.stub.Pipeline(flood(), timeout=20) for _ in range(3)]
        readers = [threading.Thread(target=lambda stream=stream: list(stream)) for stream in streams]
        for reader in readers:
            reader.start()
        stub = health_pb2_grpc.HealthStub(api.channel)
        for number in range(1, 11):
            assert stub.Check(health_pb2.HealthCheckRequest(), timeout=5).status == 1
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
