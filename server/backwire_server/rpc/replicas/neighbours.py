"""What a server does with those that share its data directory: passes calls on, has lanes, has parts computed."""

from collections.abc import Mapping
from typing import Any

from backwire_server.config_parts import Access, Capacity, Keeping
from backwire_server.parallel.crew import CREW
from backwire_server.rpc.replicas.forwarding import Forwarder
from backwire_server.rpc.replicas.lane_server import LaneServer, lanes_of
from backwire_server.rpc.replicas.peering import Peering
from backwire_server.sessions.store.store import SessionStore
from backwire_server.storage.sharing.shared_vault import SharedVault
from backwire_server.storage.vault import FileVault


class Neighbours:
    """The other servers on the directory of this one; does nothing where it has none, or has it for itself.

    Attributes:
        lanes: What the others have lanes to; None for none.
        forwarder: What passes calls on to them; None for none.
    """

    lanes: LaneServer | None = None
    forwarder: Forwarder | None = None
    _peering: Peering | None = None

    def __init__(
        self,
        vault: FileVault | SharedVault | None,
        store: SessionStore,
        listen: str,
        replica: str,
        keeping: Keeping,
        access: Access,
        capacity: Capacity,
    ) -> None:
        """Has lanes, if there are to be some, for a server that is to listen there; raises OSError when it cannot."""
        CREW.elsewhere = None
        self._vault = vault if isinstance(vault, SharedVault) else None
        if self._vault is None:
            return
        self.lanes = lanes_of(listen, keeping, access, store.limits, self._vault.secret)
        told = self.lanes.told if self.lanes is not None else ""
        secret = self._vault.secret if keeping.lanes else None
        self.forwarder = Forwarder(replica, store.elsewhere, self._vault.lives_at, access, secret, told)
        if capacity.peer_helpers:
            self._peering = Peering(CREW, capacity.peer_helpers, self._vault, store, access)

    def add_to(self, server: Any) -> None:
        """Adds what the others call to a gRPC server, before it is started."""
        if self._peering is not None:
            self._peering.add_to(server)

    def announce(self, address: str) -> None:
        """Tells the others where this server is called; raises OSError."""
        if self.forwarder is not None and self._vault is not None:
            self.forwarder.address = address
            self._vault.announce(address)

    def serve(self, behaviours: Mapping[str, Any], address: str) -> None:
        """Has lanes lead to the methods of a server, which is called there and has begun to serve."""
        if self.lanes is not None:
            self.lanes.serve(behaviours, address)

    def drain(self, seconds: float) -> None:
        """Takes no parts of others from now on, and waits so long for those that are being computed."""
        if self._peering is not None:
            self._peering.drain(seconds)

    def part(self) -> None:
        """Ends the lanes and all that is passed on."""
        if self.lanes is not None:
            self.lanes.close()
        if self.forwarder is not None:
            self.forwarder.close()

    def close(self) -> None:
        """Ends what is left, once nothing is computed any more."""
        if self._peering is not None:
            self._peering.close()
