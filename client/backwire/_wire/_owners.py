"""Learns which server has a session, where several share a directory and the target is any of them."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

import grpc
from google.rpc import error_details_pb2

from backwire._errors import BackwireError
from backwire._wire._failures import status_of, unpacked
from backwire._wire._transport_base import SESSION_KEY
from backwire_api.metadata import FOLLOWS_KEY
from backwire_api.reasons import DOMAIN, Reason

Channel = TypeVar("Channel")
Known = TypeVar("Known")

ELSEWHERE = {Reason.SHUTTING_DOWN, Reason.NO_WORKER, Reason.WRONG_REPLICA}
"""Why a call is to be sent to another server."""

PAUSE_SECONDS = 0.5
"""How long a server that went away is not gone to, while others may still name it."""

LONG_PAUSE_SECONDS = 60.0
"""The same for one that never answered, which may be out of this client's reach; calls are forwarded meanwhile."""

MOST_KNOWN = 4_096
"""Of how many sessions it is remembered where they are called; those that were learnt first are learnt again."""


class Owners(Generic[Channel]):
    """The channels to servers that tell which of them has a session.

    A server that does not have it answers WRONG_REPLICA and the owner's address, as long as calls say that the client
    follows; else it forwards them. They say so unless the owner was found not to be reachable from here. May be used by
    several threads at once.

    Attributes:
        main: The channel to any of the servers.
    """

    def __init__(self, main: Channel, open_channel: Callable[[str], Channel]) -> None:
        """Opens other channels by address."""
        self.main = main
        self._open_channel = open_channel
        self._mutex = threading.Lock()
        self._channels: dict[str, Channel] = {}
        self._owners: dict[str, str] = {}
        self._forwarded: dict[str, float] = {}
        self._answered: set[str] = set()
        self._paused: dict[str, float] = {}

    @property
    def channels(self) -> list[Channel]:
        """All that were opened."""
        with self._mutex:
            return [self.main, *self._channels.values()]

    def owner(self, session_id: str) -> str:
        """Returns the address at which a session is called; empty for that of the main channel."""
        return self._owners.get(session_id, "")

    def to(self, address: str) -> Channel:
        """Returns the channel to an address, or the main one where there is none, or none any more."""
        return self._channels.get(address, self.main)

    def others(self, address: str) -> list[Channel]:
        """Returns the channels to servers that may know of the one at an address, the main one first."""
        now = time.monotonic()
        with self._mutex:
            known = [self._channels[each] for each in self._channels if each != address and self._reaches(each, now)]
            return [self.main, *known]

    def drop(self, address: str, heir: str) -> Channel | None:
        """Has no channel to an address any more, where no server lives; returns the one that there was, to be closed.

        Sessions that were called there are called at that of the heir, or by the main channel where that cannot be:
        what is behind it may not know yet that a server is gone, and send them there.
        """
        with self._mutex:
            self._paused[address] = time.monotonic() + PAUSE_SECONDS
            for session_id in [each for each, owner in self._owners.items() if owner == address]:
                del self._owners[session_id]
                if heir not in ("", address):
                    self._follow(session_id, heir)
            return self._channels.pop(address, None)

    def told(self, session_id: str, metadata: Iterable[Any] | None) -> tuple[Any, ...]:
        """Returns the metadata of a call for a session, with whether the client follows."""
        follows = time.monotonic() >= self._forwarded.get(session_id, 0.0)
        return (*(metadata or ()), (FOLLOWS_KEY, "1")) if follows else tuple(metadata or ())

    def answered(self, address: str) -> None:
        """Learns that a call to an address succeeded."""
        self._answered.add(address)

    def note(self, session_id: str, address: str, call: Any) -> bool:
        """Learns from a call to an address that is over; tells whether it should be sent again at once."""
        reason, metadata = told_of(call)
        if call.code() is not grpc.StatusCode.UNAVAILABLE and reason not in ELSEWHERE:
            self._answered.add(address)
            return bool(address) and self._is_unfit(session_id, call)
        owner = metadata.get("owner", "")
        with self._mutex:
            if address and reason in ("", Reason.SHUTTING_DOWN):
                seconds = PAUSE_SECONDS if reason or address in self._answered else LONG_PAUSE_SECONDS
                self._paused[address] = time.monotonic() + seconds
            if reason in ("", Reason.SHUTTING_DOWN, Reason.WRONG_REPLICA):
                self._owners.pop(session_id, None)
            if reason == Reason.NO_WORKER:  # the owner may be gone: another server takes calls over that follow
                self._forwarded.pop(session_id, None)
            if reason != Reason.WRONG_REPLICA or owner in ("", address):
                return False
            return self._follow(session_id, owner)

    def _is_unfit(self, session_id: str, call: Any) -> bool:
        """Tells whether a server cannot compute a session, which it lets go of then; any other may be able to."""
        if call.code() is not grpc.StatusCode.FAILED_PRECONDITION:
            return False
        if told_of(call)[0] != Reason.EXECUTOR_UNAVAILABLE:
            return False
        with self._mutex:
            return self._owners.pop(session_id, None) is not None

    def _follow(self, session_id: str, owner: str) -> bool:
        """Has a session called at an address, or forwarded there where it cannot be; tells whether that is new."""
        before = self._forwarded.pop(session_id, None)
        until = self._paused.get(owner, 0.0)
        if self._reaches(owner, time.monotonic()) and (owner in self._channels or self._opened(owner)):
            _remember(self._owners, session_id, owner)
            return True
        _remember(self._forwarded, session_id, max(until, time.monotonic() + PAUSE_SECONDS))
        return before is None

    def _reaches(self, address: str, now: float) -> bool:
        return now >= self._paused.get(address, 0.0)

    def _opened(self, owner: str) -> bool:
        try:
            self._channels[owner] = self._open_channel(owner)
        except BackwireError:  # a token would travel in clear text or to anybody, or it is no address
            return False
        return True


def _remember(known: dict[str, Known], session_id: str, what: Known) -> None:
    """Keeps something of a session, in place of what was known of it, or of another where that is too many."""
    known.pop(session_id, None)
    if len(known) >= MOST_KNOWN:
        del known[next(iter(known))]
    known[session_id] = what


def session_of(metadata: Iterable[Any] | None) -> str:
    """Returns the session that a call names in its metadata; empty for none."""
    return next((value for key, value in metadata or () if key == SESSION_KEY), "")


def told_of(call: Any) -> tuple[str, Mapping[str, str]]:
    """Returns the reason that the server told of a failure, empty for none, and what it told with that."""
    info = error_details_pb2.ErrorInfo()
    for detail in status_of(call).details:
        if unpacked(detail, info) and info.domain == DOMAIN:
            return info.reason, info.metadata
    return "", {}
