"""Reads the pages of the documentation: their snippets, and what they say that these print."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"[-+]?\d+\.\d*(?:e[-+]?\d+)?|[-+]?\d+e[-+]?\d+")
TOLERANCE = 0.02
"""How far a number with a fraction may be from the printed one, relative to it: other CPUs round differently."""


@dataclass(frozen=True, slots=True)
class Snippet:
    """A block of code: where it begins, its language, and what the block of text behind it says that it prints."""

    line: int
    language: str
    code: str
    printed: str | None = None


def pages() -> list[str]:
    """Returns all pages that people wrote, by their paths within the documentation."""
    found = (path.relative_to(DOCS) for path in DOCS.rglob("*.md") if "node_modules" not in path.parts)
    return sorted(path.as_posix() for path in found)


def snippets(page: str) -> list[Snippet]:
    """Returns the blocks of a page in their order; a `text` block right behind a Python block is what that prints."""
    return list(_read((DOCS / page).read_text()))


def python(page: str) -> list[Snippet]:
    """Returns the Python snippets of a page."""
    return [each for each in snippets(page) if each.language == "python"]


def _read(text: str) -> Iterator[Snippet]:
    blocks = list(FENCE.finditer(text))
    for number, block in enumerate(blocks):
        line = text.count("\n", 0, block.start("code")) + 1
        following = blocks[number + 1] if number + 1 < len(blocks) else None
        said = following is not None and following["language"] == "text" and _touch(text, block, following)
        yield Snippet(line, block["language"], block["code"], following["code"] if following and said else None)


def _touch(text: str, block: re.Match[str], following: re.Match[str]) -> bool:
    """Tells whether nothing but white space lies between two blocks."""
    return not text[block.end() : following.start()].strip()


def agree(printed: str, said: str) -> bool:
    """Tells whether two texts are the same but for white space and the last digits of fractions."""
    if _words(printed) != _words(said):
        return False
    pairs = zip(NUMBER.findall(printed), NUMBER.findall(said), strict=True)
    return all(math.isclose(float(a), float(b), rel_tol=TOLERANCE, abs_tol=1e-9) for a, b in pairs)


def _words(text: str) -> list[str]:
    """Returns the lines with each fraction replaced, and without the blanks that line up columns."""
    return [" ".join(NUMBER.sub(" # ", line).split()) for line in text.strip().splitlines()]
