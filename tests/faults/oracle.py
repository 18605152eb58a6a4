"""The oracle: plays the same script on an undisturbed server in memory, and so tells what must have come out."""

import secrets

from tests.faults.actor import Actor, Answer
from tests.faults.tasks import Task

import backwire as bw


class Oracle(Actor):
    """An actor whose session is kept in memory alone, where branches stand for checkpoints."""

    def __init__(self, client: bw.Client, task: Task) -> None:
        """Creates the session; its request ids are those of no other oracle."""
        super().__init__(client, task, secrets.token_hex(8), "memory")
        self.rewound = True
        self._first: Answer = ()
        self._saved: dict[str, bw.Session] = {}
        self._mark: bw.Session | None = None

    def train_step(self, batch: int, weight: float = 1.0) -> Answer:
        self._first = super().train_step(batch, weight)
        return self._first

    def repeat(self) -> Answer:
        """Returns the first answer; a branch does not know the requests of its parent."""
        return self._first if self._repeatable else ()

    def save(self, name: str) -> Answer:
        self._drop(self._saved.pop(name, None))
        self._saved[name] = self.session.fork()
        return self._standing()

    def restore(self, name: str) -> Answer:
        self._go_on_from(self._known(name))
        return self._standing()

    def forget(self, name: str) -> Answer:
        self._known(name)
        self._drop(self._saved.pop(name))
        return ()

    def mark(self, batch: int) -> Answer:
        answer = super().mark(batch)
        self._drop(self._mark)
        self._mark = self.session.fork()
        return answer

    def rewind(self) -> Answer:
        """Goes back to the mark, or for not `rewound` tells that nobody can."""
        if not self.rewound:
            raise bw.CheckpointNotFoundError("the mark is no longer kept")
        assert self._mark is not None, "the script has a mark before it goes back"
        self._go_on_from(self._mark)
        return self._standing()

    def forget_requests(self) -> None:
        super().forget_requests()
        for name in list(self._saved):
            self._drop(self._saved.pop(name))

    def close(self) -> None:
        """Deletes all of its sessions."""
        super().close()
        for kept in (*self._saved.values(), self._mark):
            self._drop(kept)

    def _standing(self) -> Answer:
        return self.session.info().step, self.session.digest()

    def _known(self, name: str) -> bw.Session:
        if name not in self._saved:
            raise bw.CheckpointNotFoundError(f"there is no checkpoint {name!r}")
        return self._saved[name]

    def _go_on_from(self, kept: bw.Session) -> None:
        before, self.session = self.session, kept.fork()
        self._drop(before)
        self.passes.clear()

    def _drop(self, session: bw.Session | None) -> None:
        if session is not None:
            session.close()
