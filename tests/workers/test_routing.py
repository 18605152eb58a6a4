"""Every call of the contract can be routed by the session that it names."""

from typing import Any

import pytest

from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.workers import routing

SPECIAL = {"CreateSession", "ImportSession", "ListSessions", "DescribeGraph", "ListOps", "Pipeline", "GetStatus"}
"""Those that the front knows what to do with."""


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
