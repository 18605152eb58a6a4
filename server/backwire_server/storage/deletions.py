"""Remembers which sessions were deleted, and by which request, so that a repetition of it is known for one."""

import json
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from backwire_server.sessions.requests import RequestKey
from backwire_server.storage import failpoints
from backwire_server.storage.disk import sync_directory, write_file

MOST = 1_024

LEAST_SECONDS = 1e-6
"""By how much later than the one before each is noted, should the clock have been set back."""


class Deletions:
    """The newest MOST deletions of sessions, one file each. For one thread at a time."""

    def __init__(self, directory: Path, owns: Callable[[str], bool]) -> None:
        """Reads what is remembered of the sessions that are owned; raises OSError."""
        self._directory = directory
        found = []
        for path in directory.glob("*.json"):
            if owns(path.stem):
                with suppress(ValueError, TypeError, KeyError):
                    content = json.loads(path.read_bytes())
                    key = RequestKey(content["request"]["id"], bytes.fromhex(content["request"]["fingerprint"]))
                    found.append((float(content["deleted"]), path.stem, key))
        self._latest = max((moment for moment, *_ in found), default=0.0)
        self._keys = OrderedDict((session_id, key) for _, session_id, key in sorted(found, key=lambda each: each[:2]))

    def all(self) -> list[tuple[str, RequestKey]]:
        """Returns session ids and requests, oldest first."""
        return list(self._keys.items())

    def __contains__(self, session_id: str) -> bool:
        """Tells whether a session was deleted, also by another server meanwhile."""
        return session_id in self._keys or self._path(session_id).exists()

    def add(self, session_id: str, key: RequestKey) -> None:
        """Remembers a deletion, also when the machine ends; raises OSError."""
        moment = self._latest = max(time.time(), self._latest + LEAST_SECONDS)
        request = {"id": key.request_id, "fingerprint": key.fingerprint.hex()}
        data = json.dumps({"session_id": session_id, "request": request, "deleted": moment}).encode()
        write_file(self._path(session_id), [[data]], "deletion", sync=True)
        sync_directory(self._directory)
        failpoints.hit("delete.noted")
        self._keys[session_id] = key
        while len(self._keys) > MOST:
            oldest, _ = self._keys.popitem(last=False)
            self._path(oldest).unlink(missing_ok=True)

    def forget(self, session_id: str) -> None:
        """Takes back what was remembered of a session that could not be deleted, as far as the disk lets it."""
        self._keys.pop(session_id, None)
        with suppress(OSError):
            self._path(session_id).unlink(missing_ok=True)

    def _path(self, session_id: str) -> Path:
        return self._directory / f"{session_id}.json"
