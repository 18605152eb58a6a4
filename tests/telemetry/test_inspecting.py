"""What gRPC's own tools see of a server: the contract, and for admins its connections; or nothing."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tests.access.conftest import entry, new_token, write
from tests.e2e.conftest import ServerProcess

SECONDS = 20.0
CONTRACT = "backwire_api.v1.GradientService"
WORKERS = pytest.mark.parametrize("workers", ["1", "2"])

Start = Callable[..., ServerProcess]


@contextmanager
def connected(server: ServerProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.wait_until_ready(), [("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield channel


def asked(channel: grpc.Channel, **question: Any) -> Any:
    """Asks reflection a question, without a token."""
    request = reflection_pb2.ServerReflectionRequest(**question)
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    [answer] = stub.ServerReflectionInfo(iter([request]), timeout=SECONDS)
    return answer


def services(channel: grpc.Channel) -> set[str]:
    return {each.name for each in asked(channel, list_services="").list_services_response.service}


def servers(channel: grpc.Channel, token: str = "") -> Any:
    """Asks channelz for the servers of the process."""
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    request = channelz_pb2.GetServersRequest()
    return channelz_pb2_grpc.ChannelzStub(channel).GetServers(request, timeout=SECONDS, metadata=metadata).server


def refused(call: Callable[[], Any]) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    found: grpc.StatusCode = caught.value.code()
    return found


@WORKERS
def test_both_are_off_unless_asked_for(start_server: Start, workers: str) -> None:
    with connected(start_server("--workers", workers)) as channel:
        assert refused(lambda: services(channel)) is grpc.StatusCode.UNIMPLEMENTED
        assert refused(lambda: servers(channel)) is grpc.StatusCode.UNIMPLEMENTED


@WORKERS
def test_reflection_tells_the_contract_also_without_a_token_and_nothing_else(
    start_server: Start, tmp_path: Path, workers: str
) -> None:
    tokens = write(tmp_path / "tokens.toml", [entry(new_token())])
    with connected(start_server("--workers", workers, "--reflection", "--tokens", str(tokens))) as channel:
        assert services(channel) == {
            CONTRACT,
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        }
        answer = asked(channel, file_containing_symbol=CONTRACT)
        files = [
            descriptor_pb2.FileDescriptorProto.FromString(each)
            for each in answer.file_descriptor_response.file_descriptor_proto
        ]
        [methods] = [file.service[0].method for file in files if file.service]
        assert {"TrainStep", "Pipeline"} <= {each.name for each in methods}
        hidden = asked(channel, file_by_filename="backwire_api/v1/storage.proto")
        assert hidden.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0], "how it stores is its own matter"


@WORKERS
def test_reflection_knows_methods_and_the_names_of_fields_in_json(start_server: Start, workers: str) -> None:
    with connected(start_server("--workers", workers, "--reflection")) as channel:
        answer = asked(channel, file_containing_symbol=f"{CONTRACT}.TrainStep")
        [told] = answer.file_descriptor_response.file_descriptor_proto[:1]
        file = descriptor_pb2.FileDescriptorProto.FromString(told)
        [request] = [each for each in file.message_type if each.name == "TrainStepRequest"]
        assert next(each.json_name for each in request.field if each.name == "request_id") == "requestId"
        missing = asked(channel, file_containing_symbol=f"{CONTRACT}.Guess")
        assert missing.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


@WORKERS
def test_channelz_shows_the_connections_of_a_server_without_tokens(start_server: Start, workers: str) -> None:
    with connected(start_server("--workers", workers, "--channelz", "--reflection")) as channel:
        assert "grpc.channelz.v1.Channelz" in services(channel)
        assert sum(each.data.calls_started for each in servers(channel)) > 0


@WORKERS
def test_channelz_is_for_admins_alone(start_server: Start, tmp_path: Path, workers: str) -> None:
    writer, admin = new_token(), new_token()
    tokens = write(tmp_path / "tokens.toml", [entry(writer), entry(admin, scope='"admin"')])
    with connected(start_server("--workers", workers, "--channelz", "--tokens", str(tokens))) as channel:
        assert refused(lambda: servers(channel)) is grpc.StatusCode.UNAUTHENTICATED
        assert refused(lambda: servers(channel, new_token())) is grpc.StatusCode.UNAUTHENTICATED
        assert refused(lambda: servers(channel, writer)) is grpc.StatusCode.PERMISSION_DENIED
        assert servers(channel, admin)


@WORKERS
def test_streams_of_reflection_that_stay_open_take_nothing_from_health(start_server: Start, workers: str) -> None:
    server, ended = start_server("--workers", workers, "--reflection"), threading.Event()

    def silence() -> Iterator[Any]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        ended.wait()

    with connected(server) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        streams = [stub.ServerReflectionInfo(silence())]
        assert next(streams[0]).list_services_response.service
        streams += [stub.ServerReflectionInfo(silence()) for _ in range(19)]
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        server.signal()
        assert server.wait() == 0, "".join(server.errors)
        ended.set()
