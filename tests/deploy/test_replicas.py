"""Three replicas behind HAProxy and Envoy: each session stays where it is, whatever becomes of the other replicas."""

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from tests.deploy.balancers import LISTEN, NAMES, EnvoyReplicas, HaproxyReplicas
from tests.deploy.proxies import BEGINNING, running
from tests.ports import unused_port
from tests.trainees import WAYS, Replica, Trainee, Way, create

import backwire as bw
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_api.v1 import gradient_service_pb2_grpc as pb_grpc

Balancer = type[HaproxyReplicas | EnvoyReplicas]
KINDS = [pytest.param(HaproxyReplicas, id="haproxy"), pytest.param(EnvoyReplicas, id="envoy")]


@dataclass
class Site:
    """Replicas by their names, and the address and the authority of the balancer before them."""

    replicas: Mapping[str, Replica]
    target: str
    authority: bytes

    def connect(self) -> bw.Client:
        return bw.connect(self.target, tls=bw.TLS(root_certificates=self.authority), retry=BEGINNING)


@pytest.fixture(scope="module", params=KINDS)
def site(
    request: pytest.FixtureRequest, certificates: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    kind: Balancer = request.param
    directory, port = tmp_path_factory.mktemp("site"), unused_port()
    replicas = {name: Replica(directory / name, "--workers", "1", "--replica", name) for name in NAMES}
    with ExitStack() as stack:
        with ThreadPoolExecutor() as pool:
            for each in pool.map(Replica.__enter__, replicas.values()):
                stack.push(each)
        backends = [each.address for each in replicas.values()]
        stack.enter_context(running(kind(directory, certificates, backends, port)))
        yield Site(replicas, f"localhost:{port}", (certificates / "ca.crt").read_bytes())


@pytest.fixture(scope="module")
def undisturbed() -> Iterator[bw.Client]:
    with bw.connect("embedded") as client:
        yield client


def replica_of(session: bw.Session) -> str:
    return session.id.partition("~")[2]


def one_on_each(client: bw.Client, stack: ExitStack, ways: Sequence[Way]) -> list[Trainee]:
    """Trains a session on each replica, which must turn up; in these ways."""
    found: dict[str, Trainee] = {}
    for seed in range(100):
        session = create(client, seed)
        if replica_of(session) not in found:
            way = ways[len(found) % len(ways)]
            found[replica_of(session)] = stack.enter_context(Trainee(session, way, seed))
        if len(found) == len(NAMES):
            return [found[name] for name in NAMES]
    raise AssertionError(f"all sessions are on {list(found)}")


@pytest.mark.parametrize("kind", KINDS)
def test_the_configuration_is_valid(kind: Balancer, certificates: Path, tmp_path: Path) -> None:
    ended = subprocess.run(kind(tmp_path, certificates, LISTEN, 443).check, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "[WARNING]" not in ended.stderr


def test_a_session_is_found_by_its_id_and_made_once_however_often_it_is_asked_for(site: Site) -> None:
    loss = bw.squared_error(bw.parameter("w", 0.0), 1.0)
    with site.connect() as client, site.connect() as other:
        made: list[bw.Session] = []
        while len({*map(replica_of, made)}) < len(NAMES) and len(made) < 100:  # by chance: the addresses are hashed
            made.append(client.create_session(loss, request_id=f"request-{len(made)}"))
        again = [other.create_session(loss, request_id=f"request-{number}") for number in range(len(made))]
        assert [each.id for each in again] == [each.id for each in made]
        assert {replica_of(each) for each in made} == set(NAMES)
        assert [other.session(each.id).id for each in made] == [each.id for each in made]
        assert {replica_of(each.fork()) for each in made if replica_of(each) == "b"} == {"b"}


def test_a_call_that_does_not_name_its_session_is_told_which_replica_to_ask(site: Site) -> None:
    trust = grpc.ssl_channel_credentials(site.authority)
    with site.connect() as client, grpc.secure_channel(site.target, trust) as channel:
        session = client.create_session(bw.squared_error(bw.parameter("w", 0.0), 1.0))
        stub = pb_grpc.GradientServiceStub(channel)
        found: dict[str, str | None] = {}
        for _ in range(30):
            try:
                stub.GetSession(pb.GetSessionRequest(session_id=session.id), timeout=20)
                found["OK"] = ""
            except grpc.RpcError as error:
                found[error.code().name] = error.details()
        assert set(found) == {"OK", "UNAVAILABLE"}
        assert f"kept by the replica '{replica_of(session)}'" in str(found["UNAVAILABLE"])


@pytest.mark.parametrize("first", WAYS)
def test_sessions_go_on_to_the_bit_when_a_replica_is_killed(site: Site, undisturbed: bw.Client, first: Way) -> None:
    second = next(way for way in WAYS if way != first)
    with ExitStack() as stack:
        client = stack.enter_context(site.connect())
        killed, *others = trainees = one_on_each(client, stack, (first, second))
        for each in trainees:
            each.goes_on()
        site.replicas["a"].kill()
        for each in others:
            each.goes_on()
        site.replicas["a"].start()
        killed.goes_on()
        results = [each.result() for each in trainees]
    assert results == [each.expected(undisturbed) for each in trainees]


def test_no_call_fails_while_each_replica_is_upgraded(site: Site, undisturbed: bw.Client) -> None:
    with ExitStack() as stack:
        client = stack.enter_context(site.connect())
        trainees = one_on_each(client, stack, WAYS)
        for replica in site.replicas.values():
            for each in trainees:
                each.goes_on()
            replica.upgrade()
        for each in trainees:
            each.goes_on()
        results = [each.result() for each in trainees]
    assert results == [each.expected(undisturbed) for each in trainees]
