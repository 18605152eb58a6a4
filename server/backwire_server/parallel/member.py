"""A helper process, as the one that started it sees it."""

import contextlib
import selectors
import socket
import subprocess
import sys
from collections import OrderedDict

from backwire_server.parallel import kept, task
from backwire_server.parallel.segment import LIVE
from backwire_server.parallel.task import Answer, Result, Task, Work

MOST_MODELS = 4
"""How many graphs a helper knows at a time."""


SILENCE_SECONDS = 30.0
"""How long a message may stand still half-way, before the helper counts as lost."""


class Member:
    """A helper, which is busy until it is ready for its first part. For one thread at a time.

    Attributes:
        connection: Where it answers.
        place: Which part it computes; None for none, or one that nobody waits for any more.
        busy: Whether it has an answer to give.
        ready: Whether it has ever answered.
    """

    def __init__(self, pass_bytes: int = kept.KEPT_BYTES) -> None:
        """Starts the process, which keeps at most so many bytes of passes; raises OSError."""
        self.connection, theirs = socket.socketpair()
        self.connection.settimeout(SILENCE_SECONDS)
        self.place: int | None = None
        self.busy, self.ready = True, False
        self._kept_bytes = 0
        self._models: OrderedDict[int, None] = OrderedDict()
        self._segments: set[int] = set()
        self._kept: dict[int, set[int]] = {}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "backwire_server.parallel.helper", str(pass_bytes)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,  # a worker's own leads to the front
                start_new_session=True,  # an interrupt at the terminal is not for it
            )

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def kept_bytes(self) -> int:
        """The bytes that it kept of passes when it last answered, 0 once it has ended; for any thread."""
        return self._kept_bytes if self._process.poll() is None else 0

    def has(self, work: Work, place: int) -> bool:
        """Tells whether it has kept the pass of a part, unless that went for others."""
        return work.residue is not None and place in self._kept.get(work.residue.number, ())

    def give(self, work: Work, place: int) -> None:
        """Has it compute a part, with whatever it does not know yet; raises OSError."""
        part, places = work.placed(place)
        new = [segment for segment in places if segment.number not in self._segments]
        dropped = tuple(number for number in self._segments if number not in LIVE)
        graph = None if work.model in self._models else work.graph
        self._models[work.model] = None
        self._models.move_to_end(work.model)
        forgotten = [self._models.popitem(last=False)[0] for _ in range(len(self._models) - MOST_MODELS)]
        self._segments.difference_update(dropped)
        self._segments.update(segment.number for segment in new)
        given = tuple((segment.number, segment.nbytes) for segment in new)
        numbers = tuple(segment.number for segment in places)
        released = tuple(number for number in self._kept if number not in kept.LIVE)
        for number in released:
            del self._kept[number]
        residue = work.residue.number if work.residue else 0
        if residue and not part.differentiates:
            self._kept.setdefault(residue, set()).add(place)
        message = Task(
            part, work.model, graph, numbers, given, dropped, tuple(forgotten), released, place=place, residue=residue
        )
        task.send(self.connection, message, new)
        self.place, self.busy = place, True

    def hears(self, seconds: float) -> bool:
        """Tells whether an answer has come, or the end of the process, or does within so many seconds."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.connection, selectors.EVENT_READ)
            return bool(selector.select(seconds))

    def answer(self) -> Result | None:
        """Returns what it has computed; None where the engine refused to. Raises EOFError, OSError."""
        answer: Answer | None
        answer, _ = task.receive(self.connection)
        self.busy, self.ready, self.place = False, True, None
        if answer is None:  # it says that it is ready
            return None
        self._kept_bytes = answer.kept_bytes
        return answer.result

    def end(self) -> None:
        """Ends the process, if it has not ended."""
        self.connection.close()
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
