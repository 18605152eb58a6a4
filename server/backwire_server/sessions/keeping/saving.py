"""A checkpoint that is being written for a caller, while the session goes on."""

from concurrent.futures import Future, wait

from backwire_server.sessions.calls import CheckpointInfo
from backwire_server.sessions.requests import RequestKey, RequestLog
from backwire_server.sessions.scope import CallScope
from backwire_server.sessions.turns.locks import POLL_SECONDS


class Saving:
    """Something that will be on disk under a name, or not, whoever waits for it."""

    def __init__(self, key: RequestKey | None, written: "Future[CheckpointInfo]") -> None:
        """Was asked for by a request, unless the key is None."""
        self._key = key
        self._written = written

    @property
    def done(self) -> bool:
        """Whether it is written, or it is known that it could not be."""
        return self._written.done()

    def wait(self, scope: CallScope) -> None:
        """Returns when it is `done`; raises what `scope.check` raises, after which it is written all the same."""
        while not self.done:
            remaining = scope.remaining()
            wait([self._written], POLL_SECONDS if remaining is None else min(POLL_SECONDS, remaining))
            if not self.done:
                scope.check()

    def result(self) -> CheckpointInfo:
        """Returns what was written, once it is `done`; raises why it could not be."""
        return self._written.result()

    def record(self, log: RequestLog) -> None:
        """Has the request remembered with its answer if it is `done` and was written."""
        if self._key is not None and self._written.exception() is None and self._key.request_id not in log:
            log.record(self._key, self.result())
