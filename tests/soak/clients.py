"""Clients of a soak, threads and processes; a process that is killed has an heir, which goes on where it was."""

import contextlib
import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.sharedctypes import RawValue
from pathlib import Path
from typing import Any

import numpy as np
from tests.faults.actor import PATIENT
from tests.soak.board import WRONG, Board
from tests.soak.notebook import Notebook
from tests.soak.player import Player, Stage

import backwire as bw
from backwire._info import Durability

END_SECONDS = 120.0
SPAWN = multiprocessing.get_context("spawn")
ROOT = str(Path(__file__).resolve().parents[2])


@dataclass(frozen=True)
class Crew:
    """All that clients, in whatever process, have in common.

    Attributes:
        address: Of the server to soak.
        quiet: The address of the server that the twins are on.
        directory: Has the notebooks, and a file for what each client found wrong.
        board: Where they count.
        ending: Becomes 1 when they are to come to an end.
    """

    address: str
    quiet: str
    directory: Path
    board: Board
    ending: Any
    seed: int
    slots: int
    durability: Durability
    most_piped: int


def new_ending() -> Any:
    """Returns a flag that all processes share."""
    return RawValue("b", 0)


def play(crew: Crew, index: int) -> None:
    """Is a client: plays a deed of one of its stories after the other until the end, and then judges all of them."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # that connections break is no news here
    draw = np.random.default_rng([crew.seed, index, os.getpid()])
    with _connected(crew.address) as client, _connected(crew.quiet) as quiet:
        stage = Stage(crew.address, client, quiet, crew.board, crew.durability, crew.most_piped)
        books = [Notebook(crew.directory / f"{index}-{slot}.note") for slot in range(crew.slots)]
        players = [Player(stage, book, crew.seed, index, slot) for slot, book in enumerate(books)]
        while not crew.ending.value:
            player = players[draw.integers(len(players))]
            with _noted(crew, index, player):
                player.advance()
        for player in players:
            with _noted(crew, index, player):
                player.finish()


@contextlib.contextmanager
def _noted(crew: Crew, index: int, player: Player) -> Iterator[None]:
    """Writes down what was wrong with a story, whose sessions are given up then."""
    story = player.story
    try:
        yield
    except Exception:
        crew.board.count(index, WRONG)
        with (crew.directory / f"{index}.wrong").open("a") as file:
            how = f"--durability {crew.durability} --piped {crew.most_piped}"
            again = f"python -m tests.soak --story {story.id} {how}"
            file.write(f"story {story.id} (seed {story.id.seed})\n{traceback.format_exc()}  again: {again}\n")
        with contextlib.suppress(bw.BackwireError):
            player.forsake()


def _connected(address: str) -> bw.Client:
    return bw.connect(address, retry=PATIENT)


class Clients:
    """The clients, every other one a process. A context manager, which has them come to an end.

    Attributes:
        kills: How many were killed.
    """

    def __init__(self, crew: Crew, count: int) -> None:
        self.kills = 0
        self._crew = crew
        self._threads = [threading.Thread(target=play, args=(crew, each)) for each in range(0, count, 2)]
        self._processes = {each: self._process(each) for each in range(1, count, 2)}

    def __enter__(self) -> "Clients":
        for each in (*self._threads, *self._processes.values()):
            each.start()
        return self

    def kill(self, draw: np.random.Generator) -> None:
        """Kills one of the processes, if there are any, and starts its heir."""
        if not self._processes:
            return
        index = int(draw.choice(list(self._processes)))
        self._processes[index].kill()
        self._processes[index].join()
        self.kills += 1
        self._processes[index] = self._process(index)
        self._processes[index].start()

    def __exit__(self, *_: object) -> None:
        """Raises AssertionError for a client that does not come to its end."""
        self._crew.ending.value, until = 1, time.monotonic() + END_SECONDS
        for each in (*self._threads, *self._processes.values()):
            each.join(max(0.0, until - time.monotonic()))
        for process in self._processes.values():
            hangs = process.is_alive()
            process.kill()
            assert not hangs, "a client hangs: a call of it is not answered"
            assert process.exitcode == 0, "a client failed; its standard error tells why"
        assert not any(each.is_alive() for each in self._threads), "a client hangs: a call of it is not answered"

    def _process(self, index: int) -> Any:
        if ROOT not in sys.path:
            sys.path.append(ROOT)  # the process gets this path, and must find this module there
        return SPAWN.Process(target=play, args=(self._crew, index), daemon=True)
