"""Fields are what a protobuf parser would read, and hostile bytes do no harm."""

from hypothesis import given
from hypothesis import strategies as st

from backwire_api import tensors
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.messages import fields

KINDS = {each.number for each in pb.PipelineRequest.DESCRIPTOR.oneofs_by_name["kind"].fields}


@given(st.text(), st.text(), st.booleans(), st.floats(allow_nan=False), st.lists(st.text()))
def test_a_text_is_what_the_parser_reads(
    session_id: str, request_id: str, retain: bool, weight: float, names: list[str]
) -> None:
    request = pb.BackwardRequest(session_id=session_id, wrt=names, retain=retain, weight=weight, request_id=request_id)
    request.output_gradients["y"].CopyFrom(tensors.encode(weight))
    message = request.SerializeToString()
    assert fields.text(message, 1) == session_id
    assert fields.text(message, 7) == request_id
    assert fields.text(message, 99) == ""


@given(st.text(), st.integers(0, 2**62))
def test_the_session_of_a_request_on_a_pipeline_is_found(session_id: str, number: int) -> None:
    for name in ("forward", "backward", "step", "train_step", "zero_gradients", "get_session", "save_checkpoint"):
        request = pb.PipelineRequest(id=number, dependency=pb.DEPENDENCY_NONE)
        getattr(request, name).session_id = session_id
        getattr(request, name).SetInParent()
        message = request.SerializeToString()
        kind = pb.PipelineRequest.DESCRIPTOR.fields_by_name[name].number
        assert fields.text_within(message, KINDS, 1) == (kind, session_id)
        assert fields.number(message) == number


@given(st.binary())
def test_any_bytes_are_read_without_harm(message: bytes) -> None:
    assert isinstance(fields.text(message, 1), str)
    assert isinstance(fields.text_within(message, KINDS, 1)[1], str)
    assert fields.number(message) >= 0


@given(st.text(min_size=1), st.data())
def test_truncated_messages_are_read_without_harm(session_id: str, data: st.DataObject) -> None:
    message = pb.StepRequest(session_id=session_id, request_id="r").SerializeToString()
    cut = message[: data.draw(st.integers(0, len(message)))]
    assert fields.text(cut, 1) in ("", session_id)


def test_only_so_many_fields_are_looked_at() -> None:
    behind = pb.StepRequest(session_id="s").SerializeToString()
    assert fields.text(b"\x20\x01" * (fields.MOST_FIELDS - 1) + behind, 1) == "s"
    assert fields.text(b"\x20\x01" * fields.MOST_FIELDS + behind, 1) == ""
