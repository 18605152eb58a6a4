"""Makes the directories of new sessions, each wholly or not at all. See docs/storage.md."""

import errno
import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from backwire_server.sessions.calls import BranchCall
from backwire_server.sessions.keeping.durable import Durability, Mutation
from backwire_server.sessions.requests import RequestKey
from backwire_server.sessions.training.state import Image
from backwire_server.storage import failpoints
from backwire_server.storage.checkpoints.checkpointer import write_image
from backwire_server.storage.checkpoints.checkpoints import automatic_stem
from backwire_server.storage.disk import (
    Usage,
    failed,
    new_directory,
    size_of,
    storage_errors,
    sync_directory,
    write_file,
)
from backwire_server.storage.journal.boots import Boots
from backwire_server.storage.journal.journal import Journal
from backwire_server.storage.manifest import DEFINITION, MANIFEST, SUFFIX, Manifest


def new_manifest(
    session_id: str, durability: Durability, key: RequestKey | None, definition: bytes, boot: str = ""
) -> Manifest:
    """Returns the manifest of a session that is created now, under a boot, which counts where not all is flushed."""
    told = "" if durability is Durability.FSYNC else boot
    return Manifest(session_id, time.time(), durability, key, hashlib.sha256(definition).hexdigest(), boot=told)


def branched(manifest: Manifest, session_id: str, key: RequestKey | None, record: int) -> Manifest:
    """Returns the manifest of a session that branches now from the one of a manifest, without what has a name.

    The record of this number is the last that both have.
    """
    return replace(
        manifest,
        session_id=session_id,
        created=time.time(),
        key=key,
        checkpoints=manifest.automatic,
        ancestors=(*manifest.ancestors, manifest.session_id),
        requests=(),
        begun=record + 1,
    )


def make(root: Path, usage: Usage, manifest: Manifest, definition: bytes, image: Image | None) -> None:
    """Makes a session that begins with an image, or with its definition alone.

    Raises StorageFailed, DiskQuotaExceeded.
    """
    session_id = manifest.session_id
    sync = _is_flushed(manifest) or image is not None
    with _directory(root, usage, manifest, sync=sync) as directory:
        usage.take(session_id, len(definition))
        write_file(directory / DEFINITION, [[definition]], "definition", sync=sync)
        if image is not None:
            path = directory / f"{automatic_stem(0)}{SUFFIX}"
            manifest = replace(manifest, checkpoints=(write_image(path, image, 0, usage, session_id),))
        _write_manifest(directory, usage, manifest)
        journal = Journal(directory, session_id, (), usage, sync=sync, boots=Boots(manifest.boot))
        journal.begin(1)
        journal.close()


def make_branch(root: Path, usage: Usage, manifest: Manifest, shared: Iterable[Path]) -> None:
    """Makes a session that shares files with another, and whose journal goes on where it branches.

    Raises StorageFailed, DiskQuotaExceeded.
    """
    session_id, sync = manifest.session_id, _is_flushed(manifest)
    with _directory(root, usage, manifest, sync=sync) as directory:
        for path in shared:
            os.link(path, directory / path.name)
        usage.take(session_id, size_of(directory))
        failpoints.hit("fork.linked")
        _write_manifest(directory, usage, manifest)
        journal = Journal(directory, session_id, manifest.ancestors, usage, sync=sync, boots=Boots(manifest.boot))
        journal.begin(manifest.begun)
        try:
            journal.append(Mutation(BranchCall()))
        finally:
            journal.close()
        if manifest.checkpoints and not sync:
            sync_directory(directory)  # one that has these and no manifest is damaged
        failpoints.hit("fork.journal")


@contextmanager
def _directory(root: Path, usage: Usage, manifest: Manifest, *, sync: bool) -> Iterator[Path]:
    session_id, failure = manifest.session_id, "the session could not be put on disk"
    if (root / session_id).exists():
        raise failed(failure, FileExistsError(errno.EEXIST, f"there is a session {session_id!r}"))
    try:
        with storage_errors(failure), new_directory(root, session_id, sync=sync) as directory:
            yield directory
    except BaseException:
        usage.forget(session_id)
        raise


def _write_manifest(directory: Path, usage: Usage, manifest: Manifest) -> None:
    data = manifest.encode()
    usage.take(manifest.session_id, len(data))
    sync = _is_flushed(manifest) or bool(manifest.checkpoints)  # which tell that there was one
    write_file(directory / MANIFEST, [[data]], "manifest", sync=sync)


def _is_flushed(manifest: Manifest) -> bool:
    return manifest.durability is Durability.FSYNC
