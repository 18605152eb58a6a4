"""Answers that a session remembers come back with the same bits."""

from typing import Any

from hypothesis import given
from tests.storage.drawing import TIMES, answers, keys, told

from backwire_api.v1 import storage_pb2
from backwire_server.messages.durability import checkpoint_to_proto
from backwire_server.sessions.calls import CheckpointInfo
from backwire_server.sessions.requests import RequestKey
from backwire_server.sessions.training.state import RequestImage
from backwire_server.storage.checkpoints.answers import decode_request, encode_request


def carried(image: RequestImage) -> RequestImage:
    record, arrays = encode_request(image)
    return decode_request(storage_pb2.RequestRecord.FromString(record.SerializeToString()), arrays)


@given(key=keys, answer=answers)
def test_an_answer_comes_back_as_it_was(key: RequestKey, answer: Any) -> None:
    assert told(carried(RequestImage(key, answer))) == told(RequestImage(key, answer))


@given(key=keys)
def test_a_mutation_whose_answer_was_dropped_stays_known(key: RequestKey) -> None:
    assert carried(RequestImage(key, None)) == RequestImage(key, None)


@given(key=keys, answer=answers)
def test_tensors_lie_beside_the_message(key: RequestKey, answer: Any) -> None:
    record, arrays = encode_request(RequestImage(key, answer))
    assert all(array is held for array, held in zip(arrays.values(), held_by(answer), strict=True))
    assert len(record.SerializeToString()) < 1_000


def held_by(answer: Any) -> list[Any]:
    maps = [getattr(answer, name, {}) for name in ("outputs", "input_gradients")]
    return [array for arrays in maps for array in arrays.values()]


@given(created=TIMES)
def test_a_checkpoint_is_told_with_the_same_time_again(created: float) -> None:
    info = CheckpointInfo("a", 1, "d", created, 5)
    again = carried(RequestImage(RequestKey("r", b"f"), info)).answer
    assert checkpoint_to_proto(again) == checkpoint_to_proto(info)
