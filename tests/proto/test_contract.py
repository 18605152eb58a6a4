"""What the .proto files promise throughout, beyond the style that `buf lint` holds."""

import re
from importlib.resources import files

import pytest
from google.protobuf import descriptor

from backwire_api.reasons import Reason
from backwire_api.tensors import data_type_of, dtype_of
from backwire_api.v1 import gradient_service_pb2, gradient_service_pb2_grpc, graph_pb2, optimizer_pb2, tensor_pb2

MODULES = (gradient_service_pb2, graph_pb2, optimizer_pb2, tensor_pb2)
METHODS = list(gradient_service_pb2.DESCRIPTOR.services_by_name["GradientService"].methods)
BY_NAME = {method.name: method for method in METHODS}
OWN = ("chunk", "error")  # what a stream has besides
CANONICAL = {"ABORTED", "FAILED_PRECONDITION", "INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED", "UNAVAILABLE"}


def comments() -> str:
    folder = files("backwire_api.v1")
    lines = (
        line for path in folder.iterdir() if path.name.endswith(".proto") for line in path.read_text().splitlines()
    )
    return "\n".join(line for line in lines if line.lstrip().startswith("//"))


def enumerators() -> set[str]:
    top = [enum for module in MODULES for enum in module.DESCRIPTOR.enum_types_by_name.values()]
    nested = [
        enum
        for module in MODULES
        for message in module.DESCRIPTOR.message_types_by_name.values()
        for enum in message.enum_types
    ]
    return {name for enum in [*top, *nested] for name in enum.values_by_name}


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_an_rpc_has_a_request_and_a_response_of_its_own(method: descriptor.MethodDescriptor) -> None:
    assert method.input_type.name == f"{method.name}Request"
    assert method.output_type.name == f"{method.name}Response"
    assert hasattr(gradient_service_pb2_grpc.GradientServiceServicer, method.name)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_rpc_that_changes_something_can_be_repeated_safely(method: descriptor.MethodDescriptor) -> None:
    reads = method.name.startswith(("Get", "List", "Describe", "Check", "Export"))
    others = method.name in ("Pipeline", "MoveSession")  # whose requests have one; which leaves a session as it is
    assert ("request_id" in method.input_type.fields_by_name) == (not reads and not others)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_rpc_on_a_session_names_it_first(method: descriptor.MethodDescriptor) -> None:
    if method.name in (
        "CreateSession",
        "ImportSession",
        "ListSessions",
        "DescribeGraph",
        "ListOps",
        "Pipeline",
        "GetStatus",
    ):
        assert "session_id" not in method.input_type.fields_by_name
    else:
        assert method.input_type.fields_by_number[1].name == "session_id"


def test_a_pipeline_carries_requests_of_methods_and_their_answers_by_the_same_names() -> None:
    answers = {method.input_type.full_name: method.output_type.full_name for method in METHODS}
    requests, responses = (
        {
            field.name: field.message_type.full_name
            for field in messages.oneofs_by_name["kind"].fields
            if field.message_type and field.name not in OWN
        }
        for messages in (BY_NAME["Pipeline"].input_type, BY_NAME["Pipeline"].output_type)
    )
    assert {name: answers[request] for name, request in requests.items()} == responses


def test_every_data_type_has_one_numpy_dtype() -> None:
    numbers = [number for number in tensor_pb2.DataType.values() if number]
    assert [data_type_of(dtype_of(number)) for number in numbers] == numbers


def test_a_reason_is_its_own_name_in_upper_snake_case() -> None:
    assert all(reason == reason.name and re.fullmatch(r"[A-Z]+(_[A-Z]+)*", reason) for reason in Reason)
    assert len({reason.value for reason in Reason}) == len(Reason.__members__)


def test_every_code_that_a_comment_mentions_exists() -> None:
    mentioned = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", comments()))
    assert mentioned
    assert mentioned - set(Reason) - CANONICAL - enumerators() == set()
