"""The SDK goes straight to the worker that keeps a session, and back to the server's address when it cannot."""

import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from tests.access.conftest import Authority
from tests.ports import unused_port

import backwire as bw
from backwire._wire import _direct


def create(client: bw.Client) -> bw.Session:
    w = bw.parameter("w", [1.0, 2.0])
    return client.create_session(bw.sum(w * w), optimizer=bw.SGD(0.25))


def is_direct(session: bw.Session) -> bool:
    return isinstance(session._transport._channel, _direct.FallbackChannel)


def test_sessions_are_called_directly_one_connection_for_each_worker(client: bw.Client) -> None:
    sessions = [create(client) for _ in range(4)]
    assert all(map(is_direct, sessions))
    channels = {session._transport._channel for session in sessions}
    assert len(channels) == len({each.info().address for each in sessions}) == 2
    found = client.session(sessions[0].id)
    assert found._transport._channel is sessions[0]._transport._channel
    assert [session.train_step({}).loss for session in (*sessions, found)] == [5.0, 5.0, 5.0, 5.0, 1.25]
    for session in sessions:
        assert session.info().address.startswith("unix:")
        assert list(session.parameters()) == ["w"]
        session.set_parameters({"w": [0.0, 0.0]})
        assert [result.loss for result in session.train_steps({} for _ in range(3))] == [0.0, 0.0, 0.0]
        session.close()


def test_a_worker_whose_socket_cannot_be_reached_is_called_by_the_servers_address(start: Any, until: Any) -> None:
    server = start()
    until(lambda: server.workers)
    for path in server.directory.glob("*/*"):
        path.rename(path.with_name("moved-" + path.name))
    with bw.connect(server.address) as client:
        session = create(client)
        assert not is_direct(session)
        # The front has its connections already, so what it passes on still arrives.
        assert session.train_step({}).loss == 5.0


def test_a_socket_of_somebody_else_is_not_trusted(client: bw.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    session = create(client)
    assert not is_direct(session)
    assert session.train_step({}).loss == 5.0
    session.close()


def test_a_connection_that_breaks_is_replaced_by_the_way_through_the_front(client: bw.Client) -> None:
    session = create(client)
    assert is_direct(session)
    assert session.train_step({}).loss == 5.0
    channel: Any = session._transport._channel
    channel._direct.close()
    channel.broken = True
    assert session.train_step({}).loss == 1.25
    again = client.session(session.id)
    assert is_direct(again), "a way that broke is looked for again"
    assert again.train_step({}).loss == 0.3125
    session.close()


def test_the_call_after_the_one_that_found_the_worker_gone_goes_by_the_front(start: Any, until: Any) -> None:
    server = start()
    until(lambda: server.workers)
    with bw.connect(server.address, retry=bw.Retry(attempts=1)) as client:
        session = create(client)
        assert is_direct(session)
        os.kill(server.worker_of(session), signal.SIGKILL)
        with pytest.raises(bw.UnavailableError):
            session.train_step({})
        with pytest.raises(bw.SessionLostError):
            session.train_step({})


def test_the_ports_of_workers_are_used_on_the_host_of_the_server(start: Any) -> None:
    port = unused_port(2)
    server = start("--worker-port", str(port))
    with bw.connect(server.address) as client:
        sessions = [create(client) for _ in range(2)]
        assert {session.info().address for session in sessions} == {f":{port}", f":{port + 1}"}
        assert all(map(is_direct, sessions))


def test_where_traffic_is_encrypted_the_ports_of_workers_encrypt_and_ask_clients_who_they_are(
    start: Any, tmp_path: Path
) -> None:
    authority, port = Authority("ours"), unused_port(2)
    pair = authority.issue("trainer", host="localhost")
    files = {"ca.crt": authority.certificate, "tls.crt": pair.certificate, "tls.key": pair.key}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
    kept = {"--client-ca": "ca.crt", "--tls-certificate": "tls.crt", "--tls-key": "tls.key"}
    flags = [word for flag, name in kept.items() for word in (flag, str(tmp_path / name))]
    server = start(*flags, "--worker-port", str(port))
    target = f"localhost:{server.address.rpartition(':')[2]}"
    ours = bw.TLS(root_certificates=authority.certificate, private_key=pair.key, certificate_chain=pair.certificate)
    with bw.connect(target, tls=ours) as client:
        session = create(client)
        assert session.info().address in {f":{port}", f":{port + 1}"}
        assert is_direct(session)
        assert session.train_step({}).loss == 5.0
        worker = f"localhost{session.info().address}"
        with bw.connect(worker, tls=ours) as past_the_front:
            assert past_the_front.session(session.id).train_step({}).loss == 1.25
        for tls in (bw.TLS(root_certificates=authority.certificate), False):
            with (
                bw.connect(worker, tls=tls, retry=bw.Retry(attempts=1)) as stranger,
                pytest.raises(bw.UnavailableError),
            ):
                stranger.session(session.id)


@pytest.mark.parametrize(
    ("address", "target", "expected"),
    [
        (":50052", "example.com:50051", "example.com:50052"),
        (":50052", "dns:///example.com:50051", "dns:///example.com:50052"),
        (":50052", "[::1]:50051", "[::1]:50052"),
        (":50052", "unix:/s", None),
        (":http", "example.com:50051", None),
        ("elsewhere.com:50052", "example.com:50051", None),
        ("dns:///elsewhere.com", "example.com:50051", None),
        ("unix:/no/such/socket", "localhost:50051", None),
        ("unix:/etc/passwd", "localhost:50051", None),
    ],
)
def test_only_the_servers_own_host_and_this_users_sockets_are_called(
    address: str, target: str, expected: str | None
) -> None:
    assert _direct.direct_target(address, target) == expected


def test_a_server_elsewhere_is_not_followed_to_a_socket_here(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as mine:
        mine.bind(str(tmp_path / "s"))
        address = f"unix:{tmp_path / 's'}"
        for target in ("localhost:50051", "127.0.0.1:50051", "unix:/run/backwire.sock"):
            assert _direct.direct_target(address, target) == address
        assert _direct.direct_target(address, "example.com:50051") is None
