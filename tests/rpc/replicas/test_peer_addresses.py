"""What is known of the addresses of other servers, and forgotten."""

from pathlib import Path

import pytest
from tests.rpc.replicas.serving import encrypting

from backwire_server.config_parts import Access
from backwire_server.rpc.replicas import peers
from backwire_server.rpc.replicas.connections import Connections
from backwire_server.rpc.replicas.peers import Peers


def test_a_connection_with_certificates_of_before_is_closed_when_no_call_uses_it(tmp_path: Path) -> None:
    access, _ = encrypting(tmp_path)
    found = Connections(access)
    with found.to("localhost:1") as first:
        (tmp_path / "tls.crt").touch()
        with found.to("localhost:1") as second:
            assert second is not first
        assert len(found) == 2
    (tmp_path / "tls.crt").touch()
    with found.to("localhost:1") as third, found.to("localhost:1") as again, found.to("localhost:2"):
        assert third is again
        assert len(found) == 2
    for closed in (first, second):
        with pytest.raises(ValueError, match="closed channel"):
            closed.way("GetSession")(b"")
    found.close()


def test_what_is_known_of_servers_that_are_gone_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "LOOK_SECONDS", 0.0)
    there = ["127.0.0.1:1"]
    found = Peers(1, lambda: there, b"secret", Connections(Access()), dict)
    found._say(there[0], "it is full", 60.0)
    assert found.lend(1) == []
    there[0] = "127.0.0.1:2"
    found._look()
    assert not found._rest
    assert not found._said
