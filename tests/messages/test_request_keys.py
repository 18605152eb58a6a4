"""The fingerprint of a request depends on its content and on nothing else."""

import zlib

import numpy as np
import pytest

from backwire_api import tensors
from backwire_api.tensors import Array, RawTensor
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.messages.request_keys import key_of
from backwire_server.sessions.errors import InvalidRequest
from backwire_server.sessions.requests import RequestKey


def raw(values: dict[str, Array]) -> dict[str, RawTensor]:
    return {name: tensors.encode_raw(value) for name, value in values.items()}


def forward(order: str, scale: float = 1.0, request_id: str = "r", session_id: str = "s") -> RequestKey:
    request = pb.ForwardRequest(session_id=session_id, request_id=request_id)
    found = key_of(request, raw({name: np.full(2, ord(name) * scale) for name in order}))
    assert found is not None
    return found


def test_the_order_of_a_map_does_not_matter() -> None:
    assert forward("abcdefgh") == forward("hgfedcba")


def test_the_id_is_not_part_of_the_content() -> None:
    assert forward("a").fingerprint == forward("a", request_id="q").fingerprint


def test_any_difference_in_content_matters() -> None:
    assert forward("a") != forward("a", scale=2.0)
    assert forward("a") != forward("ab")
    assert forward("a") != forward("a", session_id="t")


def test_the_kind_of_request_is_part_of_the_content() -> None:
    step = key_of(pb.StepRequest(session_id="s", request_id="r"))
    zero = key_of(pb.ZeroGradientsRequest(session_id="s", request_id="r"))
    assert step is not None
    assert zero is not None
    assert step.fingerprint != zero.fingerprint


def test_without_an_id_there_is_no_key() -> None:
    assert key_of(pb.StepRequest(session_id="s")) is None
    assert key_of(pb.ForwardRequest(session_id="s"), raw({"x": np.zeros(3)})) is None


@pytest.mark.parametrize("letter", ["a", "é"])
def test_an_id_has_at_most_128_bytes(letter: str) -> None:
    longest = letter * (128 // len(letter.encode()))
    assert key_of(pb.StepRequest(request_id=longest))
    with pytest.raises(InvalidRequest) as caught:
        key_of(pb.StepRequest(request_id=longest + letter))
    assert caught.value.field == "request_id"


def test_tensors_differ_by_name_type_shape_and_bytes() -> None:
    values: list[dict[str, Array]] = [
        {},
        {"w": np.zeros(4)},
        {"v": np.zeros(4)},
        {"w": np.zeros((2, 2))},
        {"w": np.zeros(8, np.float32)},
        {"w": np.zeros(4, np.int64)},
        {"w": np.ones(4)},
        {"w": np.arange(4.0)},
        {"w": np.arange(4.0)[::-1]},
        {"w": np.zeros(4), "v": np.zeros(0)},
    ]
    keys = [key_of(pb.SetParametersRequest(session_id="s", request_id="r"), raw(each)) for each in values]
    assert len({each.fingerprint for each in keys if each}) == len(values)


def test_a_checksum_that_is_known_stands_for_the_bytes() -> None:
    value = np.arange(5.0)
    checksums = {"x": zlib.crc32(value.tobytes())}
    known = key_of(pb.ForwardRequest(request_id="r"), raw({"x": value}), checksums)
    assert known == key_of(pb.ForwardRequest(request_id="r"), raw({"x": value}))
