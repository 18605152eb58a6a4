"""What a session holds, against a test double: what is asked for and sent, and what comes back."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pytest

import backwire as bw

if TYPE_CHECKING:
    from tests.client.fake_service import FakeService


def test_parameters_are_writable_copies_in_the_graphs_order(session: bw.Session) -> None:
    parameters = session.parameters()
    assert list(parameters) == ["w", "b", "table"]
    parameters["w"][0, 0] = 9
    assert session.parameters(["w"])["w"][0, 0] == 1


def test_averages_are_asked_for_by_name(session: bw.Session, service: "FakeService") -> None:
    session.parameters()
    assert list(session.parameters(["b"], averaged=True)) == ["b"]
    assert [each.averaged for each in service.requests["GetParameters"]] == [False, True]


def test_gradients_leave_out_frozen_parameters(session: bw.Session) -> None:
    assert list(session.gradients()) == ["w", "b"]
    assert list(session.gradients(["b"])) == ["b"]
    with pytest.raises(bw.UnknownNameError, match="no trainable parameter 'table'"):
        session.gradients(["table"])


def test_set_parameters_streams_large_ones_in_chunks(client: bw.Client) -> None:
    big = np.arange(700_000, dtype=np.float32)
    loss = bw.mean(bw.parameter("big", np.zeros_like(big)) * bw.parameter("small", 1.0))
    session = client.create_session(loss)
    session.set_parameters({"big": big, "small": 2})
    np.testing.assert_array_equal(session.parameters()["big"], big)
    assert session.parameters(["small"])["small"] == 2


def test_set_parameters_checks_names_shapes_and_dtypes_first(session: bw.Session, service: "FakeService") -> None:
    with pytest.raises(bw.UnknownNameError, match="no parameter 'v'"):
        session.set_parameters({"v": [1.0]})
    with pytest.raises(bw.ShapeError, match=r"'w' has shape \[2, 2\], not \[2\]"):
        session.set_parameters({"w": [1.0, 2.0]})
    with pytest.raises(bw.DTypeError, match="must be int64"):
        session.set_parameters({"table": [1.0, 2.0]})
    with pytest.raises(bw.InvalidRequestError, match="at least one"):
        session.set_parameters({})
    assert not service.requests["SetParameters"]


def test_a_stream_that_does_not_hold_what_was_asked_for_is_an_error(
    session: bw.Session, service: "FakeService"
) -> None:
    del service.parameters["b"]
    with pytest.raises(bw.ServerError, match="instead of"):
        session.parameters()
    service.parameters["w"] = np.zeros(1000, np.float32)
    with pytest.raises(bw.ServerError, match="cannot be read"):
        session.parameters()


def test_zero_gradients_tells_how_many_contributions_were_discarded(session: bw.Session) -> None:
    assert session.zero_gradients() == 3


def test_info_is_plain_data(session: bw.Session) -> None:
    info = session.info()
    assert info.inputs[0] == bw.InputInfo("x", np.dtype("float32"), ("batch", 2))
    assert info.parameters[2] == bw.ParameterInfo("table", np.dtype("int64"), (2,), True)
    assert info.outputs == ("rows", "y")
    assert info.created == datetime.fromtimestamp(1_700_000_000, UTC)
    assert info.limits.pass_ttl.total_seconds() == 60
    assert info.limits.idle_ttl is None
    assert info.optimizer is not None


def test_info_tells_what_has_changed_since_it_was_asked_before(session: bw.Session, service: "FakeService") -> None:
    first = session.info()
    told = service.sessions[session.id]
    told.step += 1
    told.last_use_time.FromSeconds(1_000)
    second = session.info()
    assert (second.step, second.last_used) == (first.step + 1, datetime.fromtimestamp(1_000, UTC))
    assert second.parameters is first.parameters, "what is as it was is not made again"
    told.limits.max_passes += 1
    told.parameters[0].frozen = True
    told.inputs[0].name = "other"
    told.create_time.FromSeconds(2_000)
    third = session.info()
    assert third.limits.max_passes == first.limits.max_passes + 1
    assert third.parameters[0].frozen
    assert third.parameters[1:] == first.parameters[1:]
    assert third.inputs[0].name == "other"
    assert third.created == datetime.fromtimestamp(2_000, UTC)
