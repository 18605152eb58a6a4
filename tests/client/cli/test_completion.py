"""The scripts that complete commands, asked in the shells that they are for."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from backwire._cli import _completion, _main

SECONDS = 60

LINES = {
    "backwire des": "describe",
    "backwire train --lea": "--learning-rate",
    "backwire sessions fo": "fork",
    "backwire completion z": "zsh",
}
"""What is typed, and the one word that it can become."""

BASH = """
source "$SCRIPT"
COMP_WORDS=($1) COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
$(complete -p backwire | sed -E 's/.*-F ([^ ]+).*/\\1/') backwire "${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""

ZSH = r"""
zmodload zsh/zpty
zpty shell "zsh -f -i 2>&1"
until_told() {
  local part; REPLY=
  while [[ $REPLY != *${~1}* ]] && zpty -r shell part; do REPLY+=$part; done
}
tell() { print -r -- "<$BUFFER>"; BUFFER= }
zpty -w shell "PS1=; fpath=(${(q)SCRIPT:h} \$fpath); autoload -Uz compinit; compinit -u -D"
zpty -w shell "$(functions tell); zle -N tell; bindkey '^X' tell; print REA''DY"
until_told READY
zpty -w -n shell "$1"$'\t\C-x'
until_told '<backwire*>'
line=${${REPLY##*<}%%>*}
print -r -- ${${(z)line}[-1]}
"""
"""Types the line into a shell on a terminal, then Tab, and a key on which the shell tells what stands there."""

FISH = r"""
source "$SCRIPT"
complete -C $argv[1] | string split -f1 \t
"""


@pytest.fixture
def script(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    pytest.importorskip("shtab")
    assert _main.main(["completion", shell]) == 0
    path = tmp_path / "_backwire"
    path.write_text(capsys.readouterr().out)
    return path


@pytest.fixture
def completed(shell: str, script: Path) -> Callable[[str], list[str]]:
    """Returns what the shell makes of the last word of a line."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    given = {"bash": [BASH, "bash"], "zsh": [ZSH, "zsh"], "fish": [FISH]}[shell]
    quiet = {"bash": "--norc", "zsh": "-f", "fish": "--no-config"}[shell]

    def run(line: str) -> list[str]:
        finished = subprocess.run(
            [program, quiet, "-c", *given, line],
            env={"SCRIPT": str(script), "PATH": "/usr/bin:/bin", "HOME": str(script.parent), "TERM": "dumb"},
            capture_output=True,
            text=True,
            check=True,
            timeout=SECONDS,
        )
        return finished.stdout.split()

    return run


@pytest.mark.parametrize("shell", _completion.SHELLS)
def test_a_script_knows_commands_and_options(script: Path) -> None:
    text = script.read_text()
    for word in ("check-gradients", "completion", "fork", "learning-rate", "server-name"):
        assert word in text


@pytest.mark.parametrize("shell", _completion.SHELLS)
@pytest.mark.parametrize("line", LINES)
def test_a_shell_completes_the_last_word(line: str, completed: Callable[[str], list[str]]) -> None:
    assert completed(line) == [LINES[line]]


def test_without_shtab_names_the_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert _main.main(["completion", "zsh"]) == 1
    assert "pip install 'backwire[cli]'" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["cmd"]])
def test_another_shell_is_wrong_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        _main.main(["completion", *arguments])
    assert ended.value.code == 2
