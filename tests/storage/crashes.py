"""Goes through all that a vault does, in one process after another, each interrupted at another failpoint.

`python crashes.py DIRECTORY ACTION` makes a directory `NAME@N` for every failpoint and every time N that it is passed,
with the data directory of a process to which ACTION (`kill`, or an error such as EIO) happened there, and a file `log`
that tells in its last line what had to be on disk: what was true before the operation that was interrupted, and what
would have been after it.
"""

import json
import os
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

from tests.storage.toy import KEY, image, mutation, spec, vault

from backwire_server.sessions.errors import StorageFailed
from backwire_server.sessions.keeping.durable import Durability
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.storage import failpoints, life
from backwire_server.storage.journal.segment import file_name
from backwire_server.storage.session_files import FileSession

Model = dict[str, dict[str, Any]]
"""What every session has: everything that was set, and what is saved by name."""

KILLED, FAILED = 9, 3


class Run:
    """Does one thing after another, and logs before and after each what a vault must have."""

    def __init__(self, directory: Path) -> None:
        self.model: Model = {}
        self._log = os.open(directory / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self._vault = vault(directory / "data", Durability.FSYNC)
        self._root = directory / "data" / "sessions"
        self._files: dict[str, FileSession] = {}

    def everything(self) -> None:
        self.create("a")
        for value in (1, 2):
            self.append("a", value)
        self.checkpoint("a", background=False)
        self.append("a", 3)
        self.save("a", "best")
        self.append("a", 4)
        self.save("a", "best")
        self.checkpoint("a", background=True)
        self.append("a", 5)
        self.checkpoint("a", background=False)
        self.fork("a", "b")
        self.append("b", 6)
        self.restart("a", [70, 71])
        self.restart("a", [80])
        self.append("a", 81)
        self.unsave("a", "best")
        self.tear("a")
        self.delete("b")
        self._vault.close()
        self.lose_power("c")
        self._vault.close()

    def create(self, name: str, durability: Durability = Durability.FSYNC) -> None:
        def act() -> None:
            self._files[name] = self._vault.create(name, spec(), durability, KEY)

        self._do(act, lambda model: model.update({name: {"history": [], "saved": {}}}))

    def append(self, name: str, value: int) -> None:
        files = self._files[name]
        self._do(
            lambda: files.wait(files.append(mutation(value)), UNBOUNDED),
            lambda model: model[name]["history"].append(value),
        )

    def checkpoint(self, name: str, *, background: bool) -> None:
        def act() -> None:
            self._files[name].checkpoint(image(self.model[name]["history"]), background=background)
            self._files[name].close()

        self._do(act, lambda _: None)

    def save(self, name: str, label: str) -> None:
        history = self.model[name]["history"]
        self._do(
            lambda: self._files[name].save(label, image(history)).result(),
            lambda model: model[name]["saved"].update({label: history}),
        )

    def unsave(self, name: str, label: str) -> None:
        self._do(
            lambda: self._files[name].delete_checkpoint(label),
            lambda model: model[name]["saved"].pop(label),
        )

    def restart(self, name: str, history: list[int]) -> None:
        self._do(
            lambda: self._files[name].restart(image(history)),
            lambda model: model[name].update(history=history),
        )

    def fork(self, name: str, other: str) -> None:
        def act() -> None:
            self._files[other] = self._files[name].fork(other, KEY)

        self._do(act, lambda model: model.update({other: {**deepcopy(model[name]), "saved": {}}}))

    def tear(self, name: str) -> None:
        """Leaves what an interrupted write leaves, and opens the session again."""

        def act() -> None:
            self._files[name].close()
            path = max((self._root / name).glob("journal-*"))
            path.write_bytes(path.read_bytes() + b"\x20\0\0\0torn")
            self._files[name] = self._vault.open(name)
            self._files[name].recover()

        self._do(act, lambda _: None)

    def lose_power(self, name: str) -> None:
        """Leaves what a loss of power may leave of a session that was made under another boot, and opens it again."""
        now = life.this_machine
        life.this_machine = lambda: "another"  # type: ignore[assignment]
        self._vault = vault(self._root.parent)
        self.create(name, Durability.JOURNAL)
        for value in (1, 2, 3):
            self.append(name, value)
            self._files[name]._journal.rotate()
        self._files[name].close()
        path = self._root / name / file_name(2)
        life.this_machine = now

        def act() -> None:
            os.truncate(path, path.stat().st_size - 1)
            self._vault = vault(self._root.parent)
            self._files[name] = self._vault.open(name)
            self._files[name].recover()

        self._do(act, lambda model: model[name].update(history=[1]))

    def delete(self, name: str) -> None:
        def act() -> None:
            self._files[name].close()
            self._vault.delete(name, KEY)

        self._do(act, lambda model: model.pop(name))

    def _do(self, act: Callable[[], object], change: Callable[[Model], object]) -> None:
        after = deepcopy(self.model)
        change(after)
        self._tell(self.model, after)
        act()
        self.model = after
        self._tell(after)

    def _tell(self, *models: Model) -> None:
        os.write(self._log, json.dumps(models).encode() + b"\n")


def one(directory: Path, setting: str) -> None:
    """Runs in a process of its own with failpoints armed, and writes how it ended: killed, failed, or at its end."""
    directory.mkdir(parents=True)
    process = os.fork()
    if process == 0:
        passed = failpoints.arm(setting)
        try:
            Run(directory).everything()
            (directory / "passed").write_text(json.dumps(passed))
        except StorageFailed:
            os._exit(FAILED)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    status = os.waitpid(process, 0)[1]
    end = os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    (directory / "end").write_text(str(end))


def main(root: Path, action: str) -> None:
    """Runs with every failpoint, each at every time that it is passed."""
    # A killed process loses nothing that it wrote, flushed or not: without flushes all goes many times as fast.
    for name in ("fsync", "fdatasync"):
        setattr(os, name, lambda _: None)
    one(root / "whole", ",".join(f"{name}=kill@1000" for name in failpoints.NAMES))
    for name, times in json.loads((root / "whole" / "passed").read_text()).items():
        for number in range(1, times + 1):
            one(root / f"{name}@{number}", f"{name}={action}@{number}")
    one(root / "journal.append.undo@1", f"journal.append.half=ENOSPC@3,journal.append.undo={action}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
