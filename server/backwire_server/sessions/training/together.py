"""What is computed together with the calls of other sessions, instead of in a turn of its own."""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager

from backwire_server.sessions.scope import CallStop
from backwire_server.sessions.training.trainer import Mutating, Trainer
from backwire_server.sessions.training.training_state import Ready
from backwire_server.sessions.turns.processor_turn import Turn


class Joining(ABC):
    """A Trainer some of whose calls others may compute."""

    @abstractmethod
    def joining(self, call: Mutating, ready: Ready, turn: Turn) -> AbstractContextManager[CallStop]:
        """Returns the context in which the call is to be performed, with what stops it.

        Entering it takes the turn, or has the call computed by another which has one; what a Trainer does before it
        asks `ready` may be done, and raise, there.
        """


def turn_of(trainer: Trainer, call: Mutating, ready: Ready, turn: Turn) -> AbstractContextManager[CallStop]:
    """Returns the context in which a trainer is to perform a call: the turn itself, unless others may compute it."""
    return trainer.joining(call, ready, turn) if isinstance(trainer, Joining) else turn
