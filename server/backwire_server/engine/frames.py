"""Frames that wait to be used again, so that a pass in steady state allocates nothing."""

from collections.abc import Container
from dataclasses import dataclass, field

from backwire_server.engine.frame import Frame
from backwire_server.engine.memory import Workspace
from backwire_server.engine.program import Program

IDLE_FRAMES = 2  # as many passes as a client has open at once without new memory for each
BACKWARD_FRAMES = 4  # ways to differentiate one pass; a client uses one or two


@dataclass(slots=True)
class Frames:
    """The frame of a forward program, and those of the backward programs that read what it keeps."""

    forward: Frame
    backward: dict[Program, Frame] = field(default_factory=dict)

    def let_go(self) -> None:
        """Forgets the inputs of the last pass."""
        for frame in (self.forward, *self.backward.values()):
            frame.let_go()


class FramePool:
    """The idle frames of one forward program, and of the backward programs that go with it.

    `passing` tells which feeds are other arrays in each pass.
    """

    def __init__(self, program: Program, workspace: Workspace, passing: Container[str]) -> None:
        self._program = program
        self._workspace = workspace
        self._passing = passing
        self._idle: list[Frames] = []

    def lease(self) -> "Lease":
        """Returns frames that nobody else uses."""
        return Lease(self._idle.pop() if self._idle else Frames(self.frame(self._program)), self)

    def frame(self, program: Program) -> Frame:
        """Returns a new frame of a program."""
        return program.frame(self._workspace, self._passing)

    def take_back(self, frames: Frames) -> None:
        """Keeps the frames for another pass."""
        if len(self._idle) < IDLE_FRAMES:
            frames.let_go()
            self._idle.append(frames)

    def clear(self) -> None:
        """Gives up the idle frames."""
        self._idle.clear()


class Lease:
    """The right to use frames. They go back to their pool with the last reference to the lease."""

    def __init__(self, frames: Frames, pool: FramePool) -> None:
        self._frames = frames
        self._pool = pool

    def __del__(self) -> None:
        self._pool.take_back(self._frames)

    @property
    def forward(self) -> Frame:
        """The frame of the forward program."""
        return self._frames.forward

    def backward(self, program: Program) -> Frame:
        """Returns the frame of a backward program."""
        if program not in self._frames.backward:
            if len(self._frames.backward) >= BACKWARD_FRAMES:
                self._frames.backward.clear()
            self._frames.backward[program] = self._pool.frame(program)
        return self._frames.backward[program]
