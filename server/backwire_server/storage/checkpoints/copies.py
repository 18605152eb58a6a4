"""Copies of checkpoints in an object store, reached through fsspec (extra `fsspec`). See docs/storage.md.

What a session needs to go on from its newest checkpoint is in `SESSION/`: its definition, its checkpoints by their
seals, and a manifest whose name tells the number of the last record. The manifest is put there last, and of several the
one with the highest number counts, so that neither an interruption nor a server that was slow does any harm.
"""

import contextlib
import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from backwire_server.storage.checkpoints.checkpoints import automatic_stem
from backwire_server.storage.disk import Usage, sync_file
from backwire_server.storage.journal.journal import Journal
from backwire_server.storage.manifest import DEFINITION, MANIFEST, SUFFIX, Manifest, Stored, decode

_LOG = logging.getLogger("backwire.storage")

_MANIFEST = f".{MANIFEST}"
_TRIAL_SECONDS = 10.0

T = TypeVar("T")
Place = Callable[[str], AbstractContextManager[Path | None]]


class DamagedCopy(Exception):
    """What a store has of a session is not what was put there."""


class Copies:
    """The copies at a URL. A thread puts them there, one after another; may be used by several threads at once."""

    def __init__(self, url: str, scratch: str) -> None:
        """Keeps in `scratch` what is on its way.

        Raises OSError for a URL that nothing is known for, for a bucket that is not there, and for one that may not be
        written. A store that does not answer now is logged, since it may later.
        """
        self._url = url
        self._scratch = scratch
        self._files, self._root = _opened(url)
        self._writing = ThreadPoolExecutor(1, "backwire-copies-put")
        try:
            self._writing.submit(self._try).result(_TRIAL_SECONDS)
        except (FileNotFoundError, PermissionError, NotADirectoryError) as error:
            self._writing.shutdown()
            told = str(error) or type(error).__name__
            raise OSError(
                f"checkpoints cannot be copied to --checkpoint-url {url}: {told}; see that "
                "the bucket or directory is there, is spelt so, and that this server may write and delete in it"
            ) from error
        except TimeoutError:
            _LOG.warning("%s has not answered for %g s: no copies of checkpoints may be there", url, _TRIAL_SECONDS)
        except Exception as error:  # each kind of store has its own
            _LOG.warning("copies of checkpoints cannot be made at %s now: %s", url, error)

    def put(self, directory: Path, manifest: Manifest) -> None:
        """Has the checkpoints of a manifest copied soon, from files in a directory that may go once this returns.

        A copy that cannot be made is logged, and made with the next checkpoint.
        """
        reduced = _reduced(manifest)
        if reduced is None:
            return
        own = Path(tempfile.mkdtemp(dir=self._scratch, prefix="copy-"))
        try:
            files = {_object(each): each.file for each in manifest.checkpoints}
            for name in _objects(reduced):
                os.link(directory / files.get(name, name), own / name)
        except OSError as error:  # another checkpoint has replaced it
            _LOG.warning("a checkpoint of session %s is not copied: %s", manifest.session_id, error)
            shutil.rmtree(own, ignore_errors=True)
            return
        self._writing.submit(self._attempt, partial(self._put, own, reduced), manifest.session_id, own)

    def forget(self, session_id: str) -> None:
        """Has the copies of a session removed soon."""
        self._writing.submit(self._attempt, partial(self._remove, session_id), session_id)

    def restore(self, is_mine: Callable[[str], bool], place: Place) -> None:
        """Makes the sessions that are mine again, each as it was at its newest checkpoint.

        That is in an empty directory which `place` gives, whose names it flushes; it gives None for one to leave out.
        One whose copy is damaged is logged and left out. Raises OSError when the store cannot be read.
        """
        for session_id in filter(is_mine, self._guarded(self._session_ids)):
            try:
                with place(session_id) as directory:
                    if directory is not None:
                        self._guarded(partial(self._fetch, session_id, directory))
                        _LOG.info("session %s was restored from %s", session_id, self._url)
            except DamagedCopy as error:
                _LOG.error("session %s is not restored from %s: %s", session_id, self._url, error)

    def _guarded(self, read: Callable[[], T]) -> T:
        try:
            return read()
        except DamagedCopy:
            raise
        except Exception as error:  # each kind of store has its own
            raise OSError(f"sessions cannot be restored from {self._url}: {error}; see that it can be read") from error

    def _session_ids(self) -> list[str]:
        return sorted(name for name in self._names("") if self._numbers(name))

    def _fetch(self, session_id: str, directory: Path) -> None:
        newest = self._numbers(session_id)[-1]
        data = self._files.cat_file(self._path(session_id, f"{newest:020d}{_MANIFEST}"))
        try:
            manifest = decode(data)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DamagedCopy(f"its manifest is not what was written ({error})") from None
        if manifest.session_id != session_id:
            raise DamagedCopy(f"its manifest is that of another session, {manifest.session_id!r}")
        self._files.get_file(self._path(session_id, DEFINITION), str(directory / DEFINITION))
        for each in manifest.checkpoints:
            self._files.get_file(self._path(session_id, _object(each)), str(directory / each.file))
        (directory / MANIFEST).write_bytes(data)
        journal = Journal(directory, session_id, manifest.ancestors, Usage(), sync=False)
        journal.begin(newest + 1)
        journal.close()
        for path in directory.iterdir():
            sync_file(path)

    def close(self) -> None:
        """Returns when all copies are made."""
        self._writing.shutdown()

    def _try(self) -> None:
        """Writes something small and removes it; no bucket is made, since a misspelt one would never be found again."""
        name = self._path(f".trial-{uuid.uuid4().hex}")
        try:
            self._files.pipe_file(name, b"backwire")
        except FileNotFoundError:
            if "/" not in self._root.strip("/"):
                raise
            self._make(self._root)
            self._files.pipe_file(name, b"backwire")
        self._files.rm_file(name)

    def _make(self, path: str) -> None:
        """Makes a directory, where the store has such, unless it is there; neither what it is in, nor a bucket."""
        with contextlib.suppress(FileExistsError):
            self._files.mkdir(path, create_parents=False)

    def _put(self, own: Path, manifest: Manifest) -> None:
        session_id, number = manifest.session_id, manifest.automatic[-1].record
        there = set(self._names(session_id))
        if not there:
            self._make(self._path(session_id))
        objects = _objects(manifest)
        for name in objects - there:
            self._files.put_file(str(own / name), self._path(session_id, name))
        self._files.pipe_file(self._path(session_id, f"{number:020d}{_MANIFEST}"), manifest.encode())
        if self._numbers(session_id)[-1] == number:
            for name in there - objects - {f"{number:020d}{_MANIFEST}"}:
                self._files.rm_file(self._path(session_id, name))

    def _remove(self, session_id: str) -> None:
        if self._names(session_id):
            self._files.rm(self._path(session_id), recursive=True)

    def _attempt(self, act: Callable[[], None], session_id: str, own: Path | None = None) -> None:
        try:
            act()
        except Exception as error:  # each kind of store has its own
            _LOG.warning("the copies of session %s at %s were not brought up to date: %s", session_id, self._url, error)
        finally:
            if own is not None:
                shutil.rmtree(own, ignore_errors=True)

    def _numbers(self, session_id: str) -> list[int]:
        """Returns the numbers of a session's manifests, in order."""
        names = (name.removesuffix(_MANIFEST) for name in self._names(session_id) if name.endswith(_MANIFEST))
        return sorted(int(name) for name in names if name.isdecimal())

    def _names(self, session_id: str) -> list[str]:
        try:
            self._files.invalidate_cache()
            found = self._files.ls(self._path(session_id), detail=False)
        except FileNotFoundError:
            return []
        return [each.rstrip("/").rpartition("/")[2] for each in found]

    def _path(self, *names: str) -> str:
        return "/".join([self._root.rstrip("/"), *filter(None, names)])


def _opened(url: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ImportError:
        raise OSError(
            "--checkpoint-url needs packages that are not installed: run `pip install 'backwire[fsspec]'`, or leave it "
            "out"
        ) from None
    try:
        files, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise OSError(f"--checkpoint-url {url} cannot be used: {error}") from None
    return files, root


def _objects(manifest: Manifest) -> set[str]:
    """Returns the names in the store of what a manifest needs."""
    return {DEFINITION, *map(_object, manifest.checkpoints)}


def _object(checkpoint: Stored) -> str:
    return checkpoint.seal + SUFFIX


def _reduced(manifest: Manifest) -> Manifest | None:
    """Returns a manifest without what takes a journal further back than the newest checkpoint; None without any.

    Where the newest is one that was saved by name, it is also what the session goes on from, as another file.
    """
    newest = max((*manifest.automatic[-1:], *manifest.named), key=lambda each: each.record, default=None)
    if newest is None:
        return None
    if newest.name:
        newest = replace(newest, name="", file=automatic_stem(newest.record) + SUFFIX)
    newest = replace(newest, passing=False)
    kept = sorted((*manifest.named, newest), key=lambda each: each.record)
    return replace(manifest, checkpoints=tuple(kept))
