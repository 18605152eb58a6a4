"""A disk that loses power: what files and names it may have afterwards, of all that was written and not yet flushed."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, TypeGuard

import pytest

from backwire_api.v1 import storage_pb2
from backwire_server.storage.journal.segment import framed
from backwire_server.storage.manifest import MANIFEST, read_manifest

Boot = Callable[[str], None]
"""Has the machine be under a boot of this name."""

Share = Callable[[int, int, int], float]
"""Which share is left of a write: of a file by its number, the n-th of so many that were not flushed."""

CALLS = ("open", "close", "pwritev", "ftruncate", "fsync", "fdatasync", "mkdir", "rename", "link", "unlink", "rmdir")


@dataclass(frozen=True, slots=True)
class _Write:
    """Bytes that were written to a file, or the size that it was cut to, where there are none."""

    file: int
    place: int
    data: bytes | None


@dataclass(frozen=True, slots=True)
class _Names:
    """Names in directories, and what has each of them now: None for nothing."""

    changes: tuple[tuple[int, str, int | None], ...]


@dataclass(frozen=True, slots=True)
class _Flush:
    """A file or a directory, whose data or names are on the disk from then on."""

    node: int


class Disk:
    """Records what this process does below a directory, and makes what a loss of power may leave of it.

    Of a file's data, what no later flush of the file covers may be lost, and so may changes of names, that no later
    flush of one of their directories covers. No file system keeps less, and most keep more.
    """

    def __init__(self, root: Path) -> None:
        """Begins with an empty directory."""
        self._root = root
        self._log: list[_Write | _Names | _Flush] = []
        self._there: dict[int, dict[str, int]] = {0: {}}
        self._contents: dict[int, bytearray] = defaultdict(bytearray)
        self._open: dict[int, int] = {}
        self._nodes = 0

    @property
    def moment(self) -> int:
        """How much was done by now."""
        return len(self._log)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Records what is done meanwhile."""
        with pytest.MonkeyPatch.context() as patch:
            for name in CALLS:
                patch.setattr(
                    os,
                    name,
                    self._recorded(getattr(os, name), getattr(self, f"_{name}_")),
                )
            yield

    def left(self, moment: int, directory: Path, *, names: bool | Callable[[int], bool], data: float | Share) -> None:
        """Makes what there is after power was lost at a moment.

        `names` tells whether changes of those that were not flushed are there, or which of them, `data` which share of
        each write that was not.
        """
        stays = names if callable(names) else lambda _: names
        changes = count()
        share = data if callable(data) else lambda *_: data
        flushed: dict[int, int] = defaultdict(lambda: -1)
        for now, done in enumerate(self._log[:moment]):
            if isinstance(done, _Flush):
                flushed[done.node] = now
        unflushed = Counter(
            done.file for now, done in enumerate(self._log[:moment]) if _is_data(done) and flushed[done.file] <= now
        )
        ordinals: Counter[int] = Counter()
        entries: dict[int, dict[str, int]] = defaultdict(dict)
        contents: dict[int, bytearray] = defaultdict(bytearray)
        for now, done in enumerate(self._log[:moment]):
            if isinstance(done, _Names):
                if any(flushed[place] > now for place, *_ in done.changes) or stays(next(changes)):
                    _rename(entries, done.changes)
            elif isinstance(done, _Write):
                left = 1.0
                if flushed[done.file] <= now:
                    left = share(done.file, ordinals[done.file], unflushed[done.file])
                    ordinals[done.file] += bool(done.data)
                _write(contents[done.file], done, left)
        self._lay(0, directory, entries, contents)

    def _lay(self, node: int, path: Path, entries: dict[int, dict[str, int]], contents: dict[int, bytearray]) -> None:
        if node in self._there:
            path.mkdir(exist_ok=True)
            for name, child in entries[node].items():
                self._lay(child, path / name, entries, contents)
        else:
            path.write_bytes(contents[node])

    def _recorded(self, call: Callable[..., Any], note: Callable[..., None]) -> Callable[..., Any]:
        def recorded(*args: Any, **kwargs: Any) -> Any:
            found = call(*args, **kwargs)
            note(found, *args, **kwargs)
            return found

        return recorded

    def _where(self, path: Any, dir_fd: int | None = None) -> tuple[int, str] | None:
        """Returns the directory of a path, by its number, and its name there; None for what is elsewhere."""
        if dir_fd is not None:
            return (self._open[dir_fd], os.fspath(path)) if dir_fd in self._open else None
        try:
            parts = Path(path).relative_to(self._root).parts
        except (ValueError, TypeError):
            return None
        node = 0
        for part in parts[:-1]:
            node = self._there[node][part]
        return node, parts[-1] if parts else ""

    def _node(self, place: tuple[int, str], path: Any) -> int:
        """Returns what has a name; a file that was written by other calls than these is noted with what it has."""
        directory, name = place
        if not name:
            return directory
        if name not in self._there[directory]:
            self._change((directory, name, self._new()))
            self._written(_Write(self._nodes, 0, Path(path).read_bytes()))
        return self._there[directory][name]

    def _change(self, *changes: tuple[int, str, int | None]) -> None:
        _rename(self._there, changes)
        self._log.append(_Names(changes))

    def _written(self, write: _Write) -> None:
        _write(self._contents[write.file], write, 1.0)
        self._log.append(write)

    def _new(self) -> int:
        self._nodes += 1
        return self._nodes

    def _open_(self, found: int, path: Any, flags: int, *_: Any, dir_fd: int | None = None) -> None:
        if (place := self._where(path, dir_fd)) is None:
            return
        self._open[found] = node = self._node(place, path)
        if flags & os.O_TRUNC:
            self._written(_Write(node, 0, None))

    def _close_(self, _: None, descriptor: int) -> None:
        self._open.pop(descriptor, None)

    def _pwritev_(self, written: int, descriptor: int, pieces: Sequence[memoryview], offset: int) -> None:
        if descriptor in self._open:
            self._written(_Write(self._open[descriptor], offset, b"".join(map(bytes, pieces))[:written]))

    def _ftruncate_(self, _: None, descriptor: int, size: int) -> None:
        if descriptor in self._open:
            self._written(_Write(self._open[descriptor], size, None))

    def _fsync_(self, _: None, descriptor: int) -> None:
        if (node := self._open.get(descriptor)) is None:
            return
        if node not in self._there:
            data = Path(f"/proc/self/fd/{descriptor}").read_bytes()
            if data != self._contents[node]:  # it was written by other calls than these
                self._written(_Write(node, 0, data))
        self._log.append(_Flush(node))

    _fdatasync_ = _fsync_

    def _mkdir_(self, _: None, path: Any, *__: Any, **___: Any) -> None:
        if (place := self._where(path)) is not None:
            node = self._new()
            self._there[node] = {}
            self._change((*place, node))

    def _rename_(self, _: None, before: Any, after: Any) -> None:
        if (old := self._where(before)) is not None and (new := self._where(after)) is not None:
            node = self._node(old, after)
            self._change((*old, None), (*new, node))

    def _link_(self, _: None, there: Any, new: Any) -> None:
        if (place := self._where(there)) is not None and (other := self._where(new)) is not None:
            self._change((*other, self._node(place, there)))

    def _unlink_(self, _: None, path: Any, *, dir_fd: int | None = None) -> None:
        if (place := self._where(path, dir_fd)) is not None:
            self._change((*place, None))

    _rmdir_ = _unlink_


def _is_data(done: _Write | _Names | _Flush) -> TypeGuard[_Write]:
    return isinstance(done, _Write) and bool(done.data)


def _rename(entries: dict[int, dict[str, int]], changes: Sequence[tuple[int, str, int | None]]) -> None:
    for directory, name, node in changes:
        if node is None:
            entries[directory].pop(name, None)
        else:
            entries[directory][name] = node


def _write(content: bytearray, write: _Write, share: float) -> None:
    """Does so much of a write as its share tells; none of a cut unless all of it."""
    if write.data is None:
        if share == 1.0:
            del content[write.place :]
            content.extend(bytes(write.place - len(content)))
        return
    data = write.data[: int(len(write.data) * share)]
    if data:
        content.extend(bytes(max(0, write.place + len(data) - len(content))))
        content[write.place : write.place + len(data)] = data


def end_boot(session: Path) -> None:
    """Has the files of a session tell that they were written under another boot."""
    for path in session.glob("journal-*"):
        data = path.read_bytes()
        end = 16 + int.from_bytes(data[8:12], "little")
        header = storage_pb2.JournalHeader.FromString(data[16:end])
        header.boot = "another"
        path.write_bytes(b"".join([data[:8], *map(bytes, framed([header.SerializeToString()])), data[end:]]))
    manifest = replace(read_manifest(session), boot="another")
    (session / MANIFEST).write_bytes(manifest.encode())
