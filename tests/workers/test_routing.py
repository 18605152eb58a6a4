"""Requests are routed by what a protobuf parser would read, and hostile bytes do no harm."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backwire_api import tensors
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.workers import routing

SPECIAL = {"CreateSession", "ImportSession", "ListSessions", "DescribeGraph", "ListOps", "Pipeline", "GetStatus"}
"""Those that the front knows what to do with."""

KINDS = {each.number for each in pb.PipelineRequest.DESCRIPTOR.oneofs_by_name["kind"].fields}


@given(st.text(), st.text(), st.booleans(), st.floats(allow_nan=False), st.lists(st.text()))
def test_a_text_is_what_the_parser_reads(
    session_id: str, request_id: str, retain: bool, weight: float, names: list[str]
) -> None:
    request = pb.BackwardRequest(session_id=session_id, wrt=names, retain=retain, weight=weight, request_id=request_id)
    request.output_gradients["y"].CopyFrom(tensors.encode(weight))
    message = request.SerializeToString()
    assert routing.text(message, 1) == session_id
    assert routing.text(message, 7) == request_id
    assert routing.text(message, 99) == ""


@given(st.text(), st.integers(0, 2**62))
def test_the_session_of_a_request_on_a_pipeline_is_found(session_id: str, number: int) -> None:
    for name in ("forward", "backward", "step", "train_step", "zero_gradients", "get_session", "save_checkpoint"):
        request = pb.PipelineRequest(id=number, dependency=pb.DEPENDENCY_NONE)
        getattr(request, name).session_id = session_id
        getattr(request, name).SetInParent()
        message = request.SerializeToString()
        kind = pb.PipelineRequest.DESCRIPTOR.fields_by_name[name].number
        assert routing.text_within(message, KINDS, 1) == (kind, session_id)
        assert routing.number(message) == number


@given(st.binary())
def test_any_bytes_are_read_without_harm(message: bytes) -> None:
    assert isinstance(routing.text(message, 1), str)
    assert isinstance(routing.text_within(message, KINDS, 1)[1], str)
    assert routing.number(message) >= 0


@given(st.text(min_size=1), st.data())
def test_truncated_messages_are_read_without_harm(session_id: str, data: st.DataObject) -> None:
    message = pb.StepRequest(session_id=session_id, request_id="r").SerializeToString()
    cut = message[: data.draw(st.integers(0, len(message)))]
    assert routing.text(cut, 1) in ("", session_id)


def test_only_so_many_fields_are_looked_at() -> None:
    behind = pb.StepRequest(session_id="s").SerializeToString()
    assert routing.text(b"\x20\x01" * (routing.MOST_FIELDS - 1) + behind, 1) == "s"
    assert routing.text(b"\x20\x01" * routing.MOST_FIELDS + behind, 1) == ""


@pytest.mark.parametrize(
    "method", list(pb.DESCRIPTOR.services_by_name["GradientService"].methods), ids=lambda each: each.name
)
def test_every_call_can_be_routed(method: Any) -> None:
    assert method.name in SPECIAL or method.input_type.fields_by_number[1].name == "session_id"


def test_every_request_on_a_pipeline_can_be_routed() -> None:
    requests = pb.PipelineRequest.DESCRIPTOR.oneofs_by_name["kind"].fields
    messages = {each.name: each.message_type for each in requests if each.message_type is not None}
    routed = {name for name, message in messages.items() if message.fields_by_number[1].name == "session_id"}
    assert routed == {each.name for each in requests} - {"chunk"}


def test_an_id_has_the_tag_of_its_worker() -> None:
    tags = [routing.new_tag() for _ in range(100)]
    assert len(set(tags)) == 100
    for tag in tags:
        assert routing.tag_of(routing.home(tag, "").id_prefix + "x" * 24) == tag
    for other in ("", "s_", "nonsense", "t_" + tags[0]):
        assert routing.tag_of(other) not in tags
