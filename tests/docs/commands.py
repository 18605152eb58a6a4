"""Reads the shell snippets of the documentation, and tells what is wrong with their commands."""

import contextlib
import importlib.util
import io
import re
import shlex
import tomllib
from collections.abc import Iterator

from tests.docs.pages import ROOT, Snippet

from backwire._cli import _main
from backwire_server.config_options import OPTIONS
from backwire_server.config_values import read_flag
from backwire_server.storage import verify

SHELL = ("sh", "")
SERVER = {option.flag: option.read is not read_flag for options in OPTIONS.values() for option in options}
"""Whether a flag of the server takes a value."""
SERVER |= {flag.replace("--", "--no-", 1): False for flag, valued in SERVER.items() if not valued} | {"--config": True}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def commands(snippet: Snippet) -> Iterator[list[str]]:
    """Yields the words of each command of a snippet in a shell's language that begins with one of ours."""
    if snippet.language not in SHELL:
        return
    for line in re.sub(r"\\\n\s*", " ", snippet.code).splitlines():
        with contextlib.suppress(ValueError):  # a drawing, or output that has a lone quote
            words = shlex.split(line.removeprefix("$ "), comments=True)
            while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                words = words[1:]
            if words and (words[0] in CHECKS or _is_script(words[0])):
                yield _before_redirection(words)


def mistake(words: list[str]) -> str | None:
    """Returns what is wrong with a command, or None."""
    check = CHECKS.get(words[0])
    if check is not None:
        return check(words[1:])
    return None if (ROOT / words[0]).is_file() else f"{words[0]} does not exist"


def _is_script(word: str) -> bool:
    """Tells whether a word is a path within a folder of the repository, whether or not the file exists."""
    return "/" in word.strip("/") and not word.startswith("/") and (ROOT / word).parent.is_dir()


def _backwire(words: list[str]) -> str | None:
    if words[:1] == ["serve"]:
        return _server(words[1:])
    if words[:2] == ["config", "check"]:
        return _server([word for word in words[2:] if word != "--json"])
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            if words[:1] == ["verify"]:
                verify._parser().parse_args(words[1:])
            else:
                _main._parser().parse_args(words)
    except SystemExit:
        return told.getvalue()
    return None


def _server(words: list[str]) -> str | None:
    left = list(words)
    while left:
        flag, separator, _ = left.pop(0).partition("=")
        if flag not in SERVER:
            return f"the server has no {flag}"
        if SERVER[flag] and not separator and not left:
            return f"{flag} lacks its value"
        left = left[1:] if SERVER[flag] and not separator else left
    return None


def _make(words: list[str]) -> str | None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    unknown = [word for word in words if "=" not in word and word not in targets]
    return f"make has no {', '.join(unknown)}" if unknown else None


def _pip(words: list[str]) -> str | None:
    extras = {name for word in words for part in re.findall(r"\[(.*)\]", word) for name in part.split(",")}
    unknown = extras - set(PROJECT["optional-dependencies"])
    return f"there is no extra {', '.join(sorted(unknown))}" if unknown else None


def _python(words: list[str]) -> str | None:
    module = words[1] if words[:1] == ["-m"] and len(words) > 1 else None
    if module is not None and module.startswith(("backwire", "tests")) and importlib.util.find_spec(module) is None:
        return f"there is no module {module}"
    return None


def _before_redirection(words: list[str]) -> list[str]:
    ends = [number for number, word in enumerate(words) if word in {">", "2>", "|", "&", "&&", ";"}]
    return words[: ends[0]] if ends else words


CHECKS = {"backwire": _backwire, "make": _make, "pip": _pip, "python": _python}
