"""Reads and changes the file of the tokens that let clients in."""

import contextlib
import fcntl
import os
import re
import secrets
import tomllib
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from backwire._errors import InvalidRequestError

Entry = dict[str, Any]

_HEAD = re.compile(r"^[ \t]*\[\[[ \t]*token[ \t]*\]\].*$", re.MULTILINE)
_TAIL = re.compile(r"(?:^[ \t]*(?:#.*)?\n?)*\Z", re.MULTILINE)


def read_file(path: str) -> str:
    """Returns the text of the file; raises InvalidRequestError when it cannot be read."""
    try:
        return Path(path).read_bytes().decode()
    except OSError as error:
        raise _unusable(path, "read", error) from None
    except UnicodeDecodeError:
        raise InvalidRequestError(f"{path} is not in UTF-8; give the path of a tokens file") from None


def change_file(path: str, make: Callable[[str], str]) -> None:
    """Replaces the text of the file by what `make` makes of it; without a file, of an empty text.

    A new file is readable by its owner alone; another keeps its mode and, as far as this user may set them, its owner
    and group. Others that change the file in this way wait meanwhile.
    """
    target = Path(os.path.realpath(path))  # a link stays one
    try:
        with _locked(target.parent):
            text = make(read_file(path) if target.exists() else "")
            _replace(target, text)
    except OSError as error:
        raise _unusable(path, "write", error) from None


def entries(text: str) -> list[Entry]:
    """Returns the entries of a text; raises InvalidRequestError for one that is no tokens file."""
    try:
        found = tomllib.loads(text).get("token", [])
    except tomllib.TOMLDecodeError:
        raise InvalidRequestError("the tokens file is no TOML; correct it by hand") from None
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise InvalidRequestError("the tokens file has a `token` that is no entry; begin each entry with [[token]]")
    return found


def added(text: str, entry: str) -> str:
    """Returns the text with an entry at its end."""
    before = entries(text)
    start = f"{text.rstrip()}\n\n" if text.strip() else ""
    return _checked(f"{start}{entry}\n", [*before, *entries(entry)])


def without(text: str, gone: list[Entry]) -> str:
    """Returns the text without these entries; comments before the next entry stay."""
    bounds = [*(match.start() for match in _HEAD.finditer(text)), len(text)]
    parts = [text[: bounds[0]]]
    for start, end in pairwise(bounds):
        part = text[start:end]
        tail = _TAIL.search(part)
        found = _entry(part)
        parts.append((tail[0].lstrip("\n") if tail else "") if found in gone else part)
    return _checked("".join(parts), [each for each in entries(text) if each not in gone])


def _entry(part: str) -> Entry | None:
    with contextlib.suppress(InvalidRequestError):
        found = entries(part)
        return found[0] if len(found) == 1 else None
    return None


def _checked(text: str, expected: list[Entry]) -> str:
    """Returns the text if its entries are those expected, which unusual TOML may have prevented."""
    with contextlib.suppress(InvalidRequestError):
        if entries(text) == expected:
            return text
    raise InvalidRequestError("the tokens file is written in a way that cannot be changed safely; edit it by hand")


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keeps others out who change a file of this folder, which is locked since the file itself is replaced."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(target: Path, text: str) -> None:
    unfinished = target.with_name(f"{target.name}.{secrets.token_hex(4)}.partial")
    try:
        with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            with contextlib.suppress(FileNotFoundError):
                old = os.stat(target)
                with contextlib.suppress(PermissionError):
                    os.fchown(file.fileno(), old.st_uid, old.st_gid)
                os.fchmod(file.fileno(), old.st_mode & 0o777)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, target)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def _unusable(path: str, verb: str, error: OSError) -> InvalidRequestError:
    reason = os.strerror(error.errno) if error.errno else str(error)
    return InvalidRequestError(f"cannot {verb} {path}: {reason}; give the path of a tokens file")
