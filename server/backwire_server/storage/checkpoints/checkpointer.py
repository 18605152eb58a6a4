"""Writes checkpoints, and does so in the background."""

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from backwire_api.tensors import Bytes
from backwire_server.sessions.errors import SessionError
from backwire_server.sessions.training.state import Image
from backwire_server.storage.checkpoints.image_file import image_content
from backwire_server.storage.checkpoints.state_file import SEAL
from backwire_server.storage.checkpoints.tensorfile import tensor_parts
from backwire_server.storage.disk import Usage, storage_errors, sync_directory, write_file
from backwire_server.storage.manifest import Stored
from backwire_server.storage.seldom import Seldom

T = TypeVar("T")

_LOG = logging.getLogger("backwire.storage")

_BATCH = 256  # pieces that are written at a time


class Checkpointer:
    """A thread that writes the checkpoints of all sessions, one after another, and one that takes copies before.

    Copies are taken at once, whatever is being written: while an image is held, its session may have to wait.

    Attributes:
        warnings: What logs that there is no checkpoint, after which the next comes soon.
    """

    def __init__(self) -> None:
        self.warnings = Seldom()
        self._copying = ThreadPoolExecutor(1, "backwire-copies")
        self._writing = ThreadPoolExecutor(1, "backwire-checkpoints")

    def submit(self, image: Image, write: Callable[[Image], T]) -> "Future[T]":
        """Has a copy of the image written soon, after all before it, and closes the image.

        The future has what `write` returns, or what went wrong.
        """
        copy = self._copying.submit(_copied, image)
        return self._writing.submit(lambda: write(copy.result()))

    def attempt(self, image: Image, write: Callable[[Image], object]) -> "Future[None]":
        """Does what `submit` does; what goes wrong is logged."""
        copy = self._copying.submit(_copied, image)
        return self._writing.submit(self._attempt, copy, write)

    def close(self) -> None:
        """Returns when all is written."""
        self._copying.shutdown()
        self._writing.shutdown()

    def _attempt(self, copy: "Future[Image]", write: Callable[[Image], object]) -> None:
        try:
            write(copy.result())
        except (SessionError, MemoryError) as error:
            self.warnings.warn(
                "a checkpoint could not be written in the background, and the journal goes on: %s", error
            )
        except Exception:
            _LOG.exception("a checkpoint failed in the background, and the journal goes on")


def write_image(path: Path, image: Image, record: int, usage: Usage, session_id: str, name: str = "") -> Stored:
    """Writes a checkpoint of an image, and returns what the manifest of its session is to say of it.

    It is on the disk at return. Raises StorageFailed or DiskQuotaExceeded and leaves nothing behind.
    """
    created = time.time()
    arrays, metadata = image_content(image, record, created)
    counter = _Counter(usage, session_id)
    try:
        with storage_errors(f"the checkpoint {path.name} could not be written"):
            write_file(path, counter.batches(tensor_parts(arrays, metadata)), "checkpoint", sync=True)
            sync_directory(path.parent)
    except BaseException:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        counter.undo()
        raise
    return Stored(
        path.name,
        name,
        record,
        image.state.step,
        image.state.contributions,
        image.settled,
        metadata["digest"],
        metadata[SEAL],
        created,
        counter.nbytes,
    )


class _Counter:
    """Counts the bytes of a file on their way as the session's."""

    def __init__(self, usage: Usage, session_id: str) -> None:
        self.nbytes = 0
        self._usage = usage
        self._session_id = session_id

    def batches(self, pieces: Iterator[Bytes]) -> Iterator[list[Bytes]]:
        """Yields the pieces, many at a time; raises DiskQuotaExceeded before those that are too many."""
        batch: list[Bytes] = []
        for piece in pieces:
            self._usage.take(self._session_id, len(piece))
            self.nbytes += len(piece)
            batch.append(piece)
            if len(batch) == _BATCH:
                yield batch
                batch = []
        yield batch

    def undo(self) -> None:
        """Gives back what was taken."""
        self._usage.give(self._session_id, self.nbytes)


def _copied(image: Image) -> Image:
    with image:
        return image.detached()
