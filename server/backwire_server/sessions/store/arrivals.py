"""Finds sessions that other servers make on a directory that is shared with them."""

from collections.abc import Callable, Container

from backwire_server.sessions.info import slot_of
from backwire_server.sessions.keeping.vault import Entry, Vault
from backwire_server.sessions.session import Session
from backwire_server.sessions.store.maker import SessionMaker


class Arrivals:
    """The sessions of a vault that a store does not know yet; none where the vault is not shared."""

    def __init__(self, vault: Vault | None, maker: SessionMaker, add: Callable[[Session], Session]) -> None:
        """Hands what is found to `add`, which returns the session of that id that it has."""
        self._vault = vault if vault is not None and vault.shared else None
        self._maker = maker
        self._add = add

    def find(self, session_id: str) -> Session | None:
        """Returns the session of this id, asleep; None when there is none."""
        entry = None if self._vault is None else self._vault.entry(session_id)
        return None if entry is None else self._add(self._maker.asleep(entry))

    def of_request(self, request_id: str, tenant: str) -> Entry | None:
        """Returns the session that a tenant's request made, on any of the servers; None for none."""
        session_id = "" if self._vault is None else self._maker.id_of_request(request_id, tenant)
        return self._vault.entry(session_id) if self._vault is not None and session_id else None

    def elsewhere(self, session_id: str) -> str:
        """Returns the address of another server that has a session open; empty for none."""
        return "" if self._vault is None else self._vault.owner(session_id)

    def find_all(self, known: Container[str]) -> None:
        """Finds all whose ids are not known."""
        for session_id in self._vault.names() if self._vault is not None else ():
            if session_id not in known:
                self.find(session_id)

    def anywhere(self, session_id: str) -> bool:
        """Tells whether it would be found wherever it was made, so that it is nowhere when it is not found."""
        return self._vault is not None and slot_of(session_id) is not None
