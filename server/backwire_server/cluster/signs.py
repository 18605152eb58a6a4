"""Which workers have fallen silent, by the signs of life that each gives in the directory which they share.

A machine that is gone says nothing: a connection to it is taken for broken after many seconds, and what Ray knows is no
faster. But from `lease` on another worker may have the sessions, so that waiting for the first is of no use.
"""

import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from backwire_server.storage.lock import REPLICAS


class Signs:
    """The signs as one sees them who looks from time to time. For one thread at a time."""

    def __init__(self, data_dir: str, lease: float) -> None:
        """Looks in a directory that need not be there: of whom no sign can be read, nothing is known."""
        self._directory = Path(data_dir) / REPLICAS
        self._lease = lease
        self._seen: Mapping[str, tuple[bytes, float]] = {}

    def silent(self, workers: Iterable[str]) -> set[str]:
        """Returns those whose sign has been the same for `lease` seconds.

        None are where all are: then it is here that nothing is seen.
        """
        now, seen = time.monotonic(), dict[str, tuple[bytes, float]]()
        for worker in workers:
            try:
                sign = (self._directory / worker).read_bytes()
            except OSError:
                continue
            before = self._seen.get(worker)
            seen[worker] = before if before is not None and before[0] == sign else (sign, now)
        self._seen = seen
        silent = {worker for worker, (_, since) in seen.items() if now - since >= self._lease}
        return silent if len(silent) < len(seen) else set()
