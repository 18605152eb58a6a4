"""What is replayed of a journal: parts of its segments, one after another."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from backwire_server.sessions.keeping.durable import Mutation
from backwire_server.storage.damage import Damaged
from backwire_server.storage.disk import damaged
from backwire_server.storage.journal.mutations import decode_mutation
from backwire_server.storage.journal.segment_scan import Scan, bodies


@dataclass(frozen=True, slots=True)
class Part:
    """What a segment has of what is replayed.

    Attributes:
        path: Where the segment is.
        first: The number of its first record.
        scan: All that is in it.
        known: How many of its records come before.
    """

    path: Path
    first: int
    scan: Scan
    known: int = 0

    @property
    def boot(self) -> str:
        """The boot under which the segment was begun; empty where that is not known."""
        return self.scan.header.boot if self.scan.header else ""

    @property
    def spans(self) -> Sequence[tuple[int, int]]:
        """Where the bodies of the others begin and end."""
        return self.scan.spans[self.known :]


@dataclass(frozen=True, slots=True)
class Replay:
    """The mutations after some record."""

    parts: Sequence[Part]

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(len(part.spans) for part in self.parts)

    @property
    def mutations(self) -> Iterator[Mutation]:
        """What reads them; raises SessionQuarantined."""
        for part in self.parts:
            records = zip(bodies(part.path, part.spans), part.spans, strict=True)
            for expected, (data, span) in enumerate(records, part.first + part.known):
                try:
                    number, mutation = decode_mutation(data)
                except Damaged as error:
                    raise damaged(part.path, str(error), span[0]) from None
                if number != expected:
                    raise damaged(part.path, f"it has record {number} where {expected} should be", span[0])
                yield mutation
