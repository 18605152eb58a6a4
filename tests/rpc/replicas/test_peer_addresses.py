"""What is known of the addresses of other servers, and forgotten."""

import pytest

from backwire_server.config import Access
from backwire_server.rpc.replicas import peers
from backwire_server.rpc.replicas.connections import Connections
from backwire_server.rpc.replicas.peers import Peers


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
