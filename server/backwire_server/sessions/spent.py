"""Where the time of a call goes."""


class Spent:
    """The seconds that a call has spent: waiting for its turn, computing, and writing to the journal.

    Attributes:
        queue: Waiting until the session was free, and a processor.
        compute: At the session, the journal apart.
        journal: Writing and flushing the journal.
        began: When it first wanted its session, by `perf_counter`; 0 for a call that did not yet.
    """

    __slots__ = ("began", "compute", "journal", "queue")

    def __init__(self) -> None:
        self.began = 0.0
        self.queue = 0.0
        self.compute = 0.0
        self.journal = 0.0

    def header(self) -> str:
        """Returns this as the value of a Server-Timing header (W3C), in milliseconds."""
        parts = (("queue", self.queue), ("compute", self.compute), ("journal", self.journal))
        return ", ".join(f"{name};dur={seconds * 1e3:.3f}" for name, seconds in parts)
