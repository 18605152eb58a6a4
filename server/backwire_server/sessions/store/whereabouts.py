"""How many sessions are in memory, and how many on disk alone."""

from collections.abc import Iterable
from dataclasses import dataclass

from backwire_server.sessions.keeping.residence import Residence


@dataclass(slots=True)
class Whereabouts:
    """Where sessions are.

    Attributes:
        awake: How many are in memory.
        hibernated: How many are on disk alone.
        quarantined: How many of these cannot be made from their files.
        replay_bytes: The bytes of journal that follow the last checkpoints of those in memory.
    """

    awake: int = 0
    hibernated: int = 0
    quarantined: int = 0
    replay_bytes: int = 0


def whereabouts(sessions: Iterable[Residence]) -> Whereabouts:
    """Counts sessions by where they are now; waits for none."""
    found = Whereabouts()
    for session in sessions:
        if session.awake:
            found.awake += 1
            found.replay_bytes += session.replay_bytes
        else:
            found.hibernated += 1
            found.quarantined += session.quarantined
    return found
