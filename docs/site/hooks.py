"""Brings files of the repository that pages link to into the site, each as a page of its own."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
FOLDER = "files"
CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)#\s]+)")
LANGUAGES = {".go": "go", ".proto": "protobuf", ".py": "python", ".ts": "typescript", ".yaml": "yaml", ".json": "json"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds a page for each file or folder outside of the documentation that a page links to."""
    linked = {target for file in list(files.documentation_pages()) for target in _outside(file, files)}
    for target in sorted(linked):
        page = File.generated(config, _place(target), content=_shown(target), inclusion=InclusionLevel.NOT_IN_NAV)
        files.append(page)
    return files


def on_page_markdown(markdown: str, *, page: Page, files: Files, **_: object) -> str:
    """Points links that leave the documentation to the pages that stand for their targets."""
    here = _folder(page.file)

    def pointed(match: re.Match[str]) -> str:
        target = _target(here, match[1])
        known = files.get_file_from_path(_place(target))
        if known is None or _is_page(target, files):
            return match[0]
        return os.path.relpath(DOCS / known.src_uri, here)

    return LINK.sub(pointed, markdown)


def _outside(file: File, files: Files) -> Iterator[Path]:
    for link in LINK.findall(CODE.sub("", file.content_string)):
        target = _target(_folder(file), link)
        if not _is_page(target, files):
            if not target.exists() or not target.is_relative_to(ROOT):
                raise PluginError(f"{file.src_uri} links to {link}, which does not exist; mend the link")
            yield target


def _target(folder: Path, link: str) -> Path:
    return Path(os.path.normpath(folder / link))


def _folder(file: File) -> Path:
    return (DOCS / file.src_uri).parent


def _is_page(target: Path, files: Files) -> bool:
    if not target.is_relative_to(DOCS):
        return False
    found = files.get_file_from_path(target.relative_to(DOCS).as_posix())
    return found is not None and found.inclusion is not InclusionLevel.EXCLUDED


def _place(target: Path) -> str:
    return f"{FOLDER}/{target.relative_to(ROOT).as_posix()}.md" if target.is_relative_to(ROOT) else ""


def _shown(target: Path) -> str:
    """Returns a file, or all files of a folder, as a page."""
    name = target.relative_to(ROOT)
    members = sorted(each for each in target.iterdir() if each.is_file()) if target.is_dir() else [target]
    parts = [f"# {name}\n"]
    for member in members:
        heading = f"## {member.name}\n\n" if target.is_dir() else ""
        parts.append(f"{heading}````{LANGUAGES.get(member.suffix, 'text')}\n{member.read_text()}````\n")
    return "\n".join(parts)
