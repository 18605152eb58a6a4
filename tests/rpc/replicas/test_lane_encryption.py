"""Servers that encrypt have lanes that encrypt, where each shows the other the certificate that it shows for calls."""

import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.access.conftest import Authority, trusting
from tests.rpc.conftest import TIMEOUT, Api
from tests.rpc.replicas.serving import SOME, Held, Until, X, encrypting, lane_to, lanes_between, open_lane, started

from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.access.credentials import PeerCertificates
from backwire_server.config_parts import Access
from backwire_server.rpc.replicas.lane_frames import LaneBroken
from backwire_server.rpc.replicas.passing import Passing
from backwire_server.sessions.calls import TrainCall
from backwire_server.sessions.training import trainer


@dataclass
class Replicas:
    """Clients of two servers that encrypt, and who the servers are to others."""

    owner: Api
    other: Api
    access: Access

    @property
    def encryption(self) -> ssl.SSLContext:
        """What the servers open lanes with."""
        found = PeerCertificates.of(self.access.tls_certificate, self.access.tls_key, self.access.peer_ca)
        assert found is not None
        return found.context()


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    directory = tmp_path_factory.mktemp("encrypting")
    access, credentials = encrypting(directory)
    options = [("grpc.max_receive_message_length", -1)]
    with ExitStack() as stack:
        apis = []
        for name in "ab":
            server = started(directory / "data", name, access, "localhost:0", SOME)
            stack.callback(server.stop, 5.0)
            apis.append(Api(server, stack.enter_context(grpc.secure_channel(server.address, credentials, options))))
        owner, other = apis
        yield Replicas(owner, other, access)


@pytest.fixture
def by_lane(replicas: Replicas, until: Until, monkeypatch: pytest.MonkeyPatch) -> Replicas:
    """Has the second server pass calls on by a lane, or not at all."""
    open_lane(replicas.other, replicas.owner, until)
    monkeypatch.setattr(Passing, "by_grpc", None)
    return replicas


def test_unary_calls_of_servers_that_encrypt_go_by_an_encrypted_lane(by_lane: Replicas) -> None:
    owner, other = by_lane.owner, by_lane.other
    session = owner.create()
    for step in range(1, 4):
        assert other.train(session).result.step == step
    found = lanes_between(other, owner)
    assert found is not None
    assert [type(lane._connection) for lane in found._idle] == [ssl.SSLSocket]
    assert all(lane.stands for lane in found._idle), "nothing comes on it between calls"


def test_a_message_of_many_records_goes_over_and_an_error_leaves_the_lane_to_the_next_call(
    by_lane: Replicas, refused: Any
) -> None:
    owner, other = by_lane.owner, by_lane.other
    session = owner.create()
    names = ["n" * 100] * 30_000
    told = [refused(lambda api=api: api.backward(session, "f", wrt=names)) for api in (owner, other)]
    assert told[0].reason == told[1].reason == "PASS_NOT_FOUND"
    assert other.train(session).result.step == 1


def test_a_call_on_an_encrypted_lane_that_is_cancelled_is_not_computed_on(
    by_lane: Replicas, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    held = Held(until)
    monkeypatch.setitem(trainer._COMPUTING, TrainCall, held.train)
    request = pb.TrainStepRequest(session_id=by_lane.owner.create(), inputs=X)
    call = by_lane.other.stub.TrainStep.future(request, timeout=TIMEOUT)
    assert held.begun.wait(TIMEOUT)
    call.cancel()
    assert held.stopped.wait(TIMEOUT)


def test_lanes_take_the_certificates_that_calls_take_where_python_is_strict_by_itself(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    ordinary = ssl.create_default_context

    def strict(**settings: Any) -> ssl.SSLContext:
        context = ordinary(**settings)
        context.verify_flags |= ssl.VERIFY_X509_STRICT  # as it is by itself since Python 3.13
        return context

    monkeypatch.setattr(ssl, "create_default_context", strict)
    with pytest.raises(ssl.SSLCertVerificationError, match="Missing Authority Key Identifier"):
        lane_to(replicas.owner, encryption=strict(cafile=replicas.access.peer_ca))
    lane_to(replicas.owner, encryption=replicas.encryption).close()


def test_who_shows_no_certificate_gets_no_lane_though_it_knows_the_secret(replicas: Replicas) -> None:
    assert replicas.access.peer_ca is not None
    anonymous = trusting(Path(replicas.access.peer_ca).read_bytes())
    with pytest.raises((LaneBroken, OSError)):
        lane_to(replicas.owner, encryption=anonymous)
    with pytest.raises((LaneBroken, OSError)):
        lane_to(replicas.owner)
    lane_to(replicas.owner, encryption=replicas.encryption).close()


def test_a_server_opens_no_lane_to_who_shows_a_certificate_of_another_authority(
    replicas: Replicas, tmp_path: Path
) -> None:
    theirs = tmp_path / "ca.crt"
    theirs.write_bytes(Authority("theirs").certificate)
    certificate, key = str(replicas.access.tls_certificate), str(replicas.access.tls_key)
    wary = PeerCertificates.of(certificate, key, str(theirs))
    assert wary is not None
    with pytest.raises(ssl.SSLCertVerificationError):
        lane_to(replicas.owner, encryption=wary.context())


def test_a_certificate_that_changes_is_shown_on_new_lanes(tmp_path: Path) -> None:
    authority = Authority("ours")
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"

    def renew() -> None:
        pair = authority.issue("replicas", host="localhost")
        certificate.write_bytes(pair.certificate)
        key.write_bytes(pair.key)

    renew()
    owner = Api(started(tmp_path / "data", "a", Access(str(certificate), str(key)), "localhost:0"))
    shown = set()
    for _ in range(2):
        lane = lane_to(owner, encryption=trusting(authority.certificate))
        assert isinstance(lane._connection, ssl.SSLSocket)
        shown.add(lane._connection.getpeercert(binary_form=True))
        lane.close()
        renew()
    assert len(shown) == 2
    owner.channel.close()
    owner.server.stop(5.0)
