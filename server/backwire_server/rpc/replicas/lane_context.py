"""What a call on a lane is to those who do it: as the context of a gRPC call, as far as calls use one."""

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from backwire_server.rpc.replicas import lane_frames as frames
from backwire_server.rpc.replicas.lane_frames import Head, Metadata

STATUS_DETAILS = "grpc-status-details-bin"


class Aborted(Exception):
    """The call has failed, as its context says."""


class LaneContext:
    """A call in progress. May be used by several threads at once.

    Attributes:
        trailing: What the caller is told besides the answer.
        status: The bytes of the google.rpc.Status that it failed with; empty for none.
    """

    def __init__(self, head: Head, peer: str, break_off: Callable[[], None]) -> None:
        """Is of the call that a head tells of; `break_off` ends its lane."""
        self.trailing: Metadata = ()
        self.status = b""
        self._metadata = frames.metadata_of(head["metadata"])
        timeout = head["timeout"]
        self._deadline = float("inf") if timeout is None else time.monotonic() + timeout
        self._peer = peer
        self._break_off = break_off
        self._mutex = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []
        self._over = False

    def invocation_metadata(self) -> Metadata:
        """What came with the call."""
        return self._metadata

    def peer(self) -> str:
        """The server that passed it on."""
        return self._peer

    def time_remaining(self) -> float:
        """The seconds until the deadline; infinite when there is none."""
        return self._deadline - time.monotonic()

    def is_active(self) -> bool:
        """Whether somebody waits for the answer."""
        return not self._over

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Has `callback` called when the call is over; tells whether it is not yet."""
        with self._mutex:
            if not self._over:
                self._callbacks.append(callback)
            return not self._over

    def set_trailing_metadata(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Takes what the caller is told besides the answer."""
        self.trailing = tuple(metadata)

    def abort_with_status(self, status: Any) -> None:
        """Ends the call with a status; raises Aborted."""
        self.status = next(value for key, value in status.trailing_metadata if key == STATUS_DETAILS)
        raise Aborted

    def cancel(self) -> None:
        """Ends the call without an answer, soon: its lane breaks."""
        self._break_off()

    def end(self) -> None:
        """Notes that the call is over: it was answered, or nobody waits for it."""
        with self._mutex:
            over, self._over = self._over, True
        if not over:
            for callback in self._callbacks:
                callback()
