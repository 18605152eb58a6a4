"""The fingerprint of a request depends on its content and on nothing else."""

import numpy as np
import pytest

from backwire_api import tensors
from backwire_api.tensors import Array
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.rpc.request_keys import key_of, key_of_parameters
from backwire_server.sessions.errors import InvalidRequest
from backwire_server.sessions.requests import RequestKey


def forward(order: str, scale: float = 1.0, request_id: str = "r") -> pb.ForwardRequest:
    request = pb.ForwardRequest(session_id="s", request_id=request_id)
    for name in order:
        request.inputs[name].CopyFrom(tensors.encode(np.full(2, ord(name) * scale)))
    return request


def key(request: pb.ForwardRequest) -> RequestKey:
    found = key_of(request)
    assert found is not None
    return found


def test_the_order_of_a_map_does_not_matter() -> None:
    assert key(forward("abcdefgh")) == key(forward("hgfedcba"))


def test_the_id_is_not_part_of_the_content() -> None:
    assert key(forward("a")).fingerprint == key(forward("a", request_id="q")).fingerprint


def test_any_difference_in_content_matters() -> None:
    assert key(forward("a")) != key(forward("a", scale=2.0))
    assert key(forward("a")) != key(forward("ab"))


def test_the_kind_of_request_is_part_of_the_content() -> None:
    step = key_of(pb.StepRequest(session_id="s", request_id="r"))
    zero = key_of(pb.ZeroGradientsRequest(session_id="s", request_id="r"))
    assert step is not None
    assert zero is not None
    assert step.fingerprint != zero.fingerprint


def test_without_an_id_there_is_no_key() -> None:
    assert key_of(pb.StepRequest(session_id="s")) is None
    assert key_of_parameters("s", "", {}) is None


@pytest.mark.parametrize("letter", ["a", "é"])
def test_an_id_has_at_most_128_bytes(letter: str) -> None:
    longest = letter * (128 // len(letter.encode()))
    assert key_of(pb.StepRequest(request_id=longest))
    with pytest.raises(InvalidRequest) as caught:
        key_of(pb.StepRequest(request_id=longest + letter))
    assert caught.value.field == "request_id"


def test_parameters_differ_by_name_type_shape_and_bytes() -> None:
    values: list[dict[str, Array]] = [
        {"w": np.zeros(4)},
        {"v": np.zeros(4)},
        {"w": np.zeros((2, 2))},
        {"w": np.zeros(8, np.float32)},
        {"w": np.ones(4)},
        {"w": np.zeros(4), "v": np.zeros(0)},
    ]
    keys = [key_of_parameters("s", "r", each) for each in values]
    keys.append(key_of_parameters("t", "r", values[0]))
    assert len({each.fingerprint for each in keys if each}) == len(keys)
    ordered = {"a": np.zeros(1), "b": np.ones(1)}
    assert key_of_parameters("s", "r", ordered) == key_of_parameters("s", "r", dict(reversed(ordered.items())))
