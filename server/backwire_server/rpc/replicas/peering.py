"""How servers that share a data directory compute parts of batches for each other."""

from collections.abc import Mapping
from typing import Any

from backwire_server.config import version
from backwire_server.config_parts import Access
from backwire_server.parallel.crew import Crew
from backwire_server.rpc.replicas.connections import Connections
from backwire_server.rpc.replicas.lending import Lending
from backwire_server.rpc.replicas.peers import Peers
from backwire_server.sessions.store.store import SessionStore
from backwire_server.storage.journal.environment import JAX, environment
from backwire_server.storage.sharing.shared_vault import SharedVault


class Peering:
    """Has a crew's parts computed by other servers, and those of other servers by the crew's helpers, until `close`."""

    def __init__(self, crew: Crew, most: int, vault: SharedVault, store: SessionStore, access: Access) -> None:
        """Has at most so many parts computed elsewhere at a time; connects as `access` has it."""
        self._connections = Connections(access)
        crew.elsewhere = Peers(most, vault.peers, vault.secret, self._connections, surroundings)
        self._lending = Lending(
            crew, vault.secret, lambda: vault.address, store.limits, store.budget.account, surroundings
        )

    def add_to(self, server: Any) -> None:
        """Adds what others call to a gRPC server, before it is started."""
        self._lending.add_to(server)

    def drain(self, seconds: float) -> None:
        """Takes no parts of others from now on, and waits so long for those that are being computed."""
        self._lending.drain(seconds)

    def close(self) -> None:
        """Ends all connections to others."""
        self._connections.close()
        self._lending.close()


PARTS = "2"
"""How parts are put together: their gradients are weighted by who asked for them since 2."""


def surroundings() -> Mapping[str, str]:
    """Returns by name what the bits of parts depend on, which are not computed by JAX; servers of one version agree."""
    return {
        "backwire": version(),
        "parts": PARTS,
        **{name: value for name, value in environment().items() if name != JAX},
    }
