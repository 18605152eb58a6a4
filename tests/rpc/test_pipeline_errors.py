"""What an error on a Pipeline stream stops, and requests that are repeated."""

from typing import Any

import grpc
import numpy as np
import pytest
from tests.rpc.pipelining import backward, forward, step, train, zero

from backwire_api import tensors
from backwire_api.v1 import gradient_service_pb2 as pb


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
