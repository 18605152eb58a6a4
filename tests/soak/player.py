"""Plays stories on the server, through all of their troubles, and has each judged at its end."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from tests.soak import troubles
from tests.soak.board import CALLS, GOOD, STORIES, Board, reason_of
from tests.soak.notebook import Note, Notebook
from tests.soak.plan import Deed, StoryId, drawn_story
from tests.soak.twin import SEED, twin

import backwire as bw
from backwire._info import Durability

Result = TypeVar("Result")


class ViolationError(Exception):
    """A session is not what its twin is, or a call failed that must not."""


@dataclass(frozen=True)
class Stage:
    """Where stories are played.

    Attributes:
        address: That of the server to soak, which troubles have connections of their own to.
        client: A patient client of it.
        quiet: A client of a server that nothing befalls.
        board: Where what happens is counted.
        durability: That of the sessions.
        most_piped: The most batches that a pipeline trains on.
    """

    address: str
    client: bw.Client
    quiet: bw.Client
    board: Board
    durability: Durability
    most_piped: int


class Player:
    """Has a slot, where one story follows the other; a deed is done when the server has acknowledged it."""

    def __init__(self, stage: Stage, notebook: Notebook, seed: int, client: int, slot: int) -> None:
        """Goes on from the last note."""
        self._stage = stage
        self._notebook = notebook
        self._slot = (seed, client, slot)
        self._session: bw.Session | None = None
        self._begin()

    def advance(self) -> None:
        """Does the next deed, or ends the story; raises ViolationError."""
        note = self._notebook.last
        if not note.session:
            self._create()
        elif note.judged or note.done == len(self.story.deeds):
            self.finish()
        else:
            found = self._do(note, self.story.deeds[note.done])
            self._notebook.write(replace(found, done=note.done + 1))

    def finish(self) -> None:
        """Judges the session, deletes it, and turns to the next story; raises ViolationError.

        Does a deed before, as one that was killed may have sent it: nobody knows whether it was applied.
        """
        note = self._notebook.last
        if not note.judged and note.done < len(self.story.deeds):
            self.advance()
            note = self._notebook.last
        if not note.judged:
            self._judge(note)
            self._notebook.write(replace(note, judged=True))
        self.forsake()

    def forsake(self) -> None:
        """Deletes the sessions of the story, and turns to the next."""
        note = self._notebook.last
        for gone in filter(None, (note.session, note.other)):
            self._delete(gone)
        self._notebook.write(Note(note.number + 1))
        self._begin()

    def _begin(self) -> None:
        id = StoryId(*self._slot, self._notebook.last.number)  # noqa: A001
        stage = self._stage
        self.story = drawn_story(id, durable=stage.durability != "memory", most_piped=stage.most_piped)
        self._session = None

    def _create(self) -> None:
        task = self.story.task
        made = self._call(
            lambda: self._stage.client.create_session(
                task.loss, task.optimizer, SEED, durability=self._stage.durability, request_id=f"{self.story.id}"
            )
        )
        self._notebook.write(replace(self._notebook.last, session=made.id))
        self._session = made

    def _do(self, note: Note, deed: Deed) -> Note:
        if deed.name in ("stay", "switch"):
            return self._leave(note, deed)
        session, request_id = self._opened(note.session), f"{self.story.id}-{note.done}"
        if deed.name in ("train", "pipe"):
            self._train(session, deed, [f"{request_id}-{each}" for each in deed.batches])
        elif deed.name == "passes":
            inputs = self.story.task.batch(deed.batches[0])
            made = self._call(lambda: session.forward(inputs, forward_id=request_id, request_id=f"{request_id}-f"))
            self._call(lambda: made.backward(request_id=f"{request_id}-b"))
            self._call(lambda: session.step(request_id=f"{request_id}-s"))
        elif deed.name == "save":
            self._call(lambda: session.save_checkpoint(deed.checkpoint, request_id=request_id))
        elif deed.name == "restore":
            self._call(lambda: session.restore_checkpoint(deed.checkpoint, request_id=request_id))
        else:
            return replace(note, other=self._call(lambda: session.fork(request_id=request_id)).id)
        return note

    def _leave(self, note: Note, deed: Deed) -> Note:
        """Deletes the branch to stay, or to switch to it what it was branched from."""
        gone, kept = (note.other, note.session) if deed.name == "stay" else (note.session, note.other)
        self._delete(gone)
        if kept != note.session:
            self._session = None
        return replace(note, session=kept, other="")

    def _train(self, session: bw.Session, deed: Deed, request_ids: list[str]) -> None:
        """Has trouble first, and then sends the same requests until all are acknowledged, which applies each once."""
        inputs = [self.story.task.batch(each) for each in deed.batches]
        if deed.trouble:
            self._count(deed.trouble)
            self._count(CALLS, len(inputs))
            try:
                troubles.attempt(self._stage.address, session, deed, inputs, request_ids)
            except bw.BackwireError as error:
                self._count(reason_of(error))
        elif deed.name == "pipe":
            self._pipe(session, inputs, request_ids)
            return
        for each, request_id in zip(inputs, request_ids, strict=True):
            self._settle(session, each, request_id)

    def _pipe(self, session: bw.Session, inputs: list[troubles.Inputs], request_ids: list[str]) -> None:
        self._count(CALLS, len(inputs))
        with session.pipeline() as pipe:
            waiting = [pipe.train_step(x, request_id=id) for x, id in zip(inputs, request_ids, strict=True)]  # noqa: A001
        for each in waiting:
            each.result()
        self._count(GOOD, len(inputs))

    def _settle(self, session: bw.Session, inputs: troubles.Inputs, request_id: str) -> None:
        with contextlib.suppress(bw.ResultNotRetainedError):  # it was applied, and that is what counts
            self._call(lambda: session.train_step(inputs, request_id=request_id))

    def _judge(self, note: Note) -> None:
        session = self._opened(note.session)
        found = self._call(lambda: (session.info().step, session.digest()))
        expected = twin(self._stage.quiet, self.story, note.done)
        self._count(STORIES)
        if found != expected:
            raise ViolationError(f"the session has step and digest {found}, its twin {expected}")

    def _delete(self, id: str) -> None:  # noqa: A002
        with contextlib.suppress(bw.NotFoundError):  # by somebody who was killed before the note
            self._call(lambda: self._stage.client.session(id).close())

    def _opened(self, id: str) -> bw.Session:  # noqa: A002
        if self._session is None:
            self._session = self._call(lambda: self._stage.client.session(id))
        return self._session

    def _call(self, call: Callable[[], Result]) -> Result:
        self._count(CALLS)
        try:
            result = call()
        except bw.BackwireError as error:
            self._count(reason_of(error))
            raise
        self._count(GOOD)
        return result

    def _count(self, name: str, number: int = 1) -> None:
        self._stage.board.count(self._slot[1], name, number)
