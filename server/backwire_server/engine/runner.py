"""What a model needs of whatever runs its programs."""

from collections.abc import Mapping
from typing import Protocol

from backwire_server.engine.graph import Array
from backwire_server.engine.program import Program
from backwire_server.engine.stopping import Stop


class Runner(Protocol):
    """Runs a program, which it was made for, as often as it is asked to. One run at a time."""

    @property
    def kept_bytes(self) -> int:
        """The bytes that its last run left for a later program."""

    def run(self, values: Mapping[str, Array], into: Mapping[int, Array] = ..., stop: Stop = ...) -> list[Array]:
        """Returns the targets, in order; see `Frame.run`. Those that are kept only the runners of its lease can read.

        What is returned besides are numpy arrays.
        """


class Lease(Protocol):
    """The right to use the runners of a forward program and of those that differentiate it, for one pass."""

    @property
    def forward(self) -> Runner:
        """The runner of the forward program."""

    def backward(self, program: Program) -> Runner:
        """Returns the runner of a backward program."""


class Pool(Protocol):
    """Gives out the runners of one forward program."""

    def lease(self) -> Lease:
        """Returns runners that nobody else uses as long as the lease lives."""

    def clear(self) -> None:
        """Gives up the memory that is kept for the next lease."""
