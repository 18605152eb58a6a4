"""Reads the files of docker/, and replaces in them what depends on the machine that they run on."""

import os
import re
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text()

PREFIX = "backwire listening on "
"""What a server prints before its address."""

PACKAGES = os.pathsep.join(str(ROOT / folder) for folder in ("proto", "client", "server"))
"""The path that a server imports from."""

CERTIFICATES = frozenset({"ca.crt", "tls.crt", "tls.key"})
"""The files that docker/certificates makes."""


def documents(path: Path) -> list[dict[str, Any]]:
    """Returns the documents of a YAML file."""
    return list(yaml.safe_load_all(path.read_text()))


def image_user() -> tuple[int, int]:
    """Returns the ids of the user and the group that the image runs as."""
    found = re.findall(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE)
    assert len(found) == 1
    user, group = found[0]
    return int(user), int(group)


def image_settings() -> set[str]:
    """Returns the names of the settings that the image's environment has."""
    return set(re.findall(r"\b(BACKWIRE_[A-Z_]+)=", DOCKERFILE))


def adapted(path: Path, replacements: dict[str, str]) -> str:
    """Returns the text of a file with each of these replaced; raises AssertionError for one that it does not have."""
    text = path.read_text()
    for old, new in replacements.items():
        assert old in text, f"{path.name} does not have {old!r}"
        text = text.replace(old, new)
    return text
