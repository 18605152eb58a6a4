"""The checkpoints of a session and its manifest, which says which of them count. See docs/storage.md."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from backwire_server.sessions.errors import CheckpointNotFound, StorageFailed
from backwire_server.sessions.requests import RequestKey
from backwire_server.sessions.training.state import Image
from backwire_server.storage import failpoints
from backwire_server.storage.checkpoints.checkpointer import write_image
from backwire_server.storage.checkpoints.image_file import read_image
from backwire_server.storage.checkpoints.state_file import SEAL
from backwire_server.storage.disk import (
    TEMPORARY,
    Usage,
    damaged,
    failed,
    storage_errors,
    sync_directory,
    write_temporary,
)
from backwire_server.storage.manifest import MANIFEST, SUFFIX, Manifest, Stored

KEPT = 2
"""How many checkpoints that the server made by itself are kept, besides one that is passing."""

AUTOMATIC, NAMED = "checkpoint-", "saved-"


def automatic_stem(record: int) -> str:
    """Returns the name, but for its ending, of the file of a checkpoint that the server makes by itself."""
    return f"{AUTOMATIC}{record:020d}"


class Checkpoints:
    """The checkpoints that the manifest of a session names. May be used by several threads at once.

    `broken` is told of a failure after which it is not known which manifest is on the disk.
    """

    def __init__(
        self, directory: Path, manifest: Manifest, usage: Usage, broken: Callable[[StorageFailed], None]
    ) -> None:
        self.manifest = manifest
        self._directory = directory
        self._usage = usage
        self._broken = broken
        self._mutex = threading.RLock()
        self._busy: set[str] = set()

    @property
    def newest(self) -> Stored | None:
        """What a replay begins with; None for the definition."""
        return self.manifest.automatic[-1] if self.manifest.automatic else None

    @property
    def lasting_record(self) -> int:
        """The last record that the newest has which stays; 0 for none."""
        return self.manifest.lasting[-1].record if self.manifest.lasting else 0

    @contextmanager
    def still(self) -> Iterator[Manifest]:
        """Gives the manifest, and a time in which it stays as it is and nothing that it names is removed."""
        with self._mutex:
            yield self.manifest

    def check(self) -> None:
        """Raises SessionQuarantined when a file is missing, or not as large as it was, that a replay may begin with."""
        for each in self.manifest.automatic:
            self._check_size(each)

    def read(self, stored: Stored) -> Image:
        """Returns what is in a checkpoint, verified; raises SessionQuarantined, StorageFailed."""
        path = self._directory / stored.file
        with storage_errors(f"{path} could not be read"):
            try:
                image, metadata = read_image(path)
            except FileNotFoundError:
                raise damaged(path, "the file is missing") from None
        if (metadata.get("digest"), metadata.get(SEAL)) != (stored.digest, stored.seal):
            raise damaged(path, "it is another checkpoint than the one that was written under this name")
        image.settled = stored.settled
        return image

    def verify(self) -> int:
        """Reads all files and returns how many there are; raises SessionQuarantined, StorageFailed."""
        for each in self.manifest.checkpoints:
            with storage_errors(f"{self._directory / each.file} could not be read"):
                self._check_size(each)
            self.read(each).close()
        return len(self.manifest.checkpoints)

    def find(self, name: str) -> Stored:
        """Returns the checkpoint of a name; raises CheckpointNotFound."""
        found = self.manifest.find(name)
        if found is None:
            known = ", ".join(each.name for each in self.manifest.named) or "none"
            raise CheckpointNotFound(
                f"there is no checkpoint {name!r}; those that were saved are: {known}", field="name"
            )
        return found

    def at_or_before(self, step: int) -> Stored | None:
        """Returns the checkpoint to replay from to come to a step; None for the definition.

        That is the newest of an earlier step, or of the step itself if nothing has changed since it got there. Raises
        CheckpointNotFound for a step before all that are kept.
        """
        kept, lasting = self.manifest.automatic, self.manifest.lasting
        found = [each for each in kept if each.step < step or (each.step == step and each.settled)]
        if not found and lasting:
            first = lasting[0].step + (not lasting[0].settled)
            raise CheckpointNotFound(
                f"the way to step {step} is no longer kept; go back to step {first} or a later one, or to a checkpoint "
                "that was saved by name",
                field="step",
            )
        return found[-1] if found else None

    def digests_after(self, record: int) -> dict[int, str]:
        """Returns the digest that the state must have so many mutations after a record, where a checkpoint tells it."""
        return {each.record - record: each.digest for each in self.manifest.checkpoints if each.record > record}

    def add(
        self,
        image: Image,
        record: int,
        name: str = "",
        *,
        key: RequestKey | None = None,
        alone: bool = False,
        passing: bool = False,
    ) -> Stored:
        """Writes a checkpoint and has it count, as the request asked; `alone`: instead of all others without a name.

        One that is `passing` counts until the next without a name does, and takes the place of none that stays. Raises
        StorageFailed or DiskQuotaExceeded with nothing changed, unless `broken` was told.
        """
        with self._file(f"{NAMED}{name}" if name else automatic_stem(record)) as file:
            stored = write_image(self._directory / file, image, record, self._usage, self._directory.name, name)
            stored = replace(stored, passing=passing)
            with self._mutex:
                self._commit(_with(self.manifest, stored, alone=alone).after(key, stored))
        return stored

    def remove(self, name: str, key: RequestKey | None = None) -> None:
        """Has the checkpoint of a name not count any more; raises CheckpointNotFound, StorageFailed."""
        with self._mutex:
            gone = self.find(name)
            kept = tuple(each for each in self.manifest.checkpoints if each is not gone)
            self._commit(replace(self.manifest, checkpoints=kept).after(key))

    def prune(self) -> None:
        """Removes the files of checkpoints that do not count, and what interrupted writes left; raises OSError."""
        with self._mutex:
            counting = {each.file for each in self.manifest.checkpoints} | self._busy
            for name in sorted(os.listdir(self._directory)):
                if name not in counting and (name.startswith((AUTOMATIC, NAMED)) or name.endswith(TEMPORARY)):
                    self._unlink(self._directory / name)

    def _check_size(self, stored: Stored) -> None:
        path = self._directory / stored.file
        try:
            found = path.stat().st_size
        except FileNotFoundError:
            raise damaged(path, "the file is missing") from None
        if found != stored.bytes:
            raise damaged(path, f"it has {found:,} bytes, but {stored.bytes:,} were written")

    def _unlink(self, path: Path) -> None:
        failpoints.hit("prune.checkpoint")
        nbytes = path.stat().st_size
        path.unlink()
        self._usage.give(self._directory.name, nbytes)

    @contextmanager
    def _file(self, stem: str) -> Iterator[str]:
        """Gives a name that no file has, and keeps it from being pruned for the time."""
        with self._mutex:
            number, file = 1, stem + SUFFIX
            while (self._directory / file).exists():
                number += 1
                file = f"{stem}~{number}{SUFFIX}"
            own = {file, file + TEMPORARY}
            self._busy |= own
        try:
            yield file
        finally:
            with self._mutex:
                self._busy -= own

    def _commit(self, manifest: Manifest) -> None:
        """Puts a manifest in place of the one there is: with its name, what it says is true."""
        data, path = manifest.encode(), self._directory / MANIFEST
        with storage_errors("the manifest of the session could not be written"):
            temporary = write_temporary(path, [[data]], "manifest", sync=True)
        try:
            os.rename(temporary, path)
            failpoints.hit("manifest.renamed")
            sync_directory(self._directory)
            failpoints.hit("manifest.committed")
        except OSError as error:
            unsure = failed("it is not known whether the manifest of the session is on the disk", error)
            self._broken(unsure)
            raise unsure from error
        self._usage.take(self._directory.name, len(data) - len(self.manifest.encode()), checked=False)
        self.manifest = manifest


def _with(manifest: Manifest, stored: Stored, *, alone: bool) -> Manifest:
    """Returns the manifest with one more checkpoint, and without those that it replaces."""
    named, automatic = manifest.named, manifest.automatic
    most = KEPT + stored.passing
    if stored.name:
        named = (*(each for each in named if each.name != stored.name), stored)
    else:
        automatic = (stored,) if alone else (*manifest.lasting, stored)[-most:]
    return replace(manifest, checkpoints=tuple(sorted((*automatic, *named), key=lambda each: each.record)))
