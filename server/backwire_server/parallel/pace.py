"""How long parts of batches take, here and on other nodes, and so which are worth sending there."""

LEAST_SECONDS = 0.01
"""What takes less than this is never sent to another node."""

PATIENCE_SECONDS = 0.1
"""How much longer than twice what is expected a part may be on its way, before it is computed here."""

FORGETTING = 0.99
"""What is left of what is known of other nodes each time that a part is not sent there, so that they are tried anew."""


class Pace:
    """The times of parts of one graph of which the same is asked. For one thread at a time.

    Attributes:
        here: The seconds that a part takes in this process: the lesser of the last two, 0 as long as it is not known.
        there: The seconds until another node has answered, on average; 0 as long as it is not known.
        nbytes: The bytes that the largest part of a batch takes to compute in.
    """

    __slots__ = ("_last", "here", "nbytes", "there")

    def __init__(self) -> None:
        self.here = self.there = self._last = 0.0
        self.nbytes = 0

    @property
    def is_long(self) -> bool:
        """Whether a part is worth sending at all."""
        return self.here >= LEAST_SECONDS

    @property
    def patience(self) -> float:
        """The seconds after which nobody waits any more for another node."""
        return 2.0 * max(self.here, self.there) + PATIENCE_SECONDS

    def computed(self, seconds: float) -> None:
        """Notes how long a part took in this process."""
        self.here, self._last = min(seconds, self._last), seconds

    def answered(self, seconds: float) -> None:
        """Notes how long a part took on another node, with the way there and back, or that it took longer than this."""
        self.there = (self.there + seconds) / 2.0 if self.there else seconds

    def pays(self, waiting: int, hands: int) -> bool:
        """Tells whether another node gives one of so many parts sooner than they are all done by so many here.

        One of them is always left for this process.
        """
        if waiting > 1 and waiting * self.here >= (self.there or self.here) * hands:
            return True
        self.there *= FORGETTING
        return False
