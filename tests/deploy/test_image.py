"""The image is what a shell-less, unprivileged container takes, as far as its file tells; docker/verify runs it."""

import json
import re

import pytest
from tests.deploy.files import DOCKERFILE, image_user

FINAL = DOCKERFILE.rpartition("\nFROM ")[2]


def test_the_image_begins_empty_and_runs_nothing_when_it_is_built() -> None:
    assert FINAL.startswith("scratch\n")
    assert not re.search(r"^(RUN|SHELL|ADD)\b", FINAL, re.MULTILINE)


@pytest.mark.parametrize("instruction", ["ENTRYPOINT", "HEALTHCHECK .* CMD"])
def test_no_shell_is_needed(instruction: str) -> None:
    (command,) = re.findall(rf"^{instruction} (.*)$", FINAL, re.MULTILINE)
    assert json.loads(command)[0] in {"python", "backwire"}


def test_it_does_not_run_as_root() -> None:
    assert min(image_user()) >= 10_000
    assert "USER " in FINAL


def test_the_volume_belongs_to_the_user_alone() -> None:
    user, group = image_user()
    assert f"install --directory --owner={user} --group={group} --mode=0700 var/lib/backwire;" in DOCKERFILE
