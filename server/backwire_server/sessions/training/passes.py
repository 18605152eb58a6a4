"""The forward passes that a session keeps for Backward: bounded by count, bytes and age."""

import time
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from backwire_server.engine.model import Pass
from backwire_server.parallel.kept import Residue
from backwire_server.sessions.calls import ForwardCall
from backwire_server.sessions.errors import PassExists, PassExpired, PassNotFound, PassTooLarge, StalePass
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.training.parameters import ParameterStore
from backwire_server.sessions.training.versions import Array, Version

REMEMBERED = 1_024

USED = "its Backward used it up; set `retain` to differentiate a pass more than once"
TOO_OLD = "it was older than the limit of {ttl:g} s; run Backward sooner after Forward"
TOO_MANY = "newer passes took its place, since a session keeps {count:,}; run Backward before so many are open"
TOO_LARGE = (
    "newer passes or steps needed its place, since the passes of a session may hold {nbytes:,} bytes; run Backward "
    "before so many are open"
)


@dataclass(frozen=True, slots=True)
class Origin:
    """What a pass can be made from again: the call, its number, the step, and all parameters as they were."""

    call: ForwardCall
    number: int
    step: int
    parameters: Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class KeptPass:
    """A live pass: what the engine needs, what it came from, its own bytes, and when it was made.

    The value is None for one that was made in parts: its Backward makes those again of which `residue` has nothing.
    """

    value: Pass | None
    origin: Origin
    version: Version
    buffers: Mapping[int, int]
    nbytes: int
    born: float
    residue: Residue | None = None


class PassTable:
    """The live passes of a session, oldest first, and the names of some that were. For one thread at a time.

    Attributes:
        limits: What it is held to; may be replaced.
        dropped: The names of passes that went for their age or for limits, since somebody last emptied the list.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.dropped: list[str] = []
        self._live: OrderedDict[str, KeptPass] = OrderedDict()
        self._gone: OrderedDict[str, str] = OrderedDict()

    def __contains__(self, name: str) -> bool:
        return name in self._live

    def __len__(self) -> int:
        return len(self._live)

    @property
    def births(self) -> tuple[tuple[str, float], ...]:
        """The name of each live pass and when it was made, oldest first."""
        return tuple((name, kept.born) for name, kept in self._live.items())

    def expire(self) -> bool:
        """Drops the passes that are too old; tells whether there were any."""
        if not self._live:
            return False
        oldest = time.monotonic() - self.limits.pass_ttl
        old = [name for name, kept in self._live.items() if kept.born < oldest]
        self._drop(old, TOO_OLD.format(ttl=self.limits.pass_ttl))
        return bool(old)

    def find(self, name: str) -> KeptPass:
        """Returns a live pass; raises PassExpired for one that was, as far as is remembered, else PassNotFound."""
        if name in self._live:
            return self._live[name]
        if name in self._gone:
            raise PassExpired(f"pass {name!r} is gone: {self._gone[name]}", field="forward_id")
        raise PassNotFound(f"there is no pass {name!r}; run Forward in train mode first", field="forward_id")

    def check_name(self, name: str) -> None:
        """Raises PassExists when a live pass has this name."""
        if name in self._live:
            raise PassExists(
                f"there is a live pass {name!r}; run its Backward first, or choose another forward_id",
                field="forward_id",
            )

    def fresh_name(self, number: int) -> str:
        """Returns a name for the pass of this number that no live pass has."""
        name, suffix = f"pass-{number}", 0
        while name in self._live:
            suffix += 1
            name = f"pass-{number}-{suffix}"
        return name

    def check_size(self, nbytes: int) -> None:
        """Raises PassTooLarge when a pass of so many bytes cannot be kept even alone."""
        if nbytes > self.limits.max_pass_bytes:
            raise PassTooLarge(
                f"the pass holds {nbytes:,} bytes, but those of a session may hold {self.limits.max_pass_bytes:,}; "
                "use a smaller batch",
                quota="max_pass_bytes",
            )

    def add(
        self,
        name: str,
        value: Pass | None,
        origin: Origin,
        parameters: ParameterStore,
        nbytes: int,
        residue: Residue | None = None,
    ) -> None:
        """Keeps a pass that was made with these parameters, and drops the oldest as far as limits demand."""
        version, buffers = parameters.current, parameters.buffers
        version.hold()
        self._gone.pop(name, None)
        self._live[name] = KeptPass(value, origin, version, buffers, nbytes, time.monotonic(), residue)
        self.enforce(buffers)

    def enforce(self, current: Collection[int]) -> None:
        """Drops the oldest passes as far as limits demand; `current` is as in `surplus`."""
        excess = len(self._live) - self.limits.max_passes
        self._drop(list(self._live)[: max(excess, 0)], TOO_MANY.format(count=self.limits.max_passes))
        self.make_room(self.surplus(current))

    def live(self) -> Iterator[tuple[str, KeptPass]]:
        """Yields the name of each live pass and the pass, oldest first."""
        yield from self._live.items()

    def drop(self, names: Iterable[str]) -> None:
        """Drops those of these passes that are live, as the limits did when this was done for the first time."""
        self._drop([name for name in names if name in self._live], TOO_MANY.format(count=self.limits.max_passes))

    def use_up(self, name: str) -> None:
        """Drops a pass whose Backward was done."""
        self._drop([name], USED)

    def nbytes(self, current: Collection[int]) -> int:
        """The bytes that all passes hold, those of old parameter values included.

        `current` are the identities of the buffers that the parameters lie in now; see `ParameterStore.buffers`.
        """
        return _cost(self._live.values(), current)

    @property
    def residue_bytes(self) -> int:
        """The bytes that this process keeps of passes in parts for their Backward, and may drop at any time."""
        return sum(kept.residue.nbytes for kept in self._live.values() if kept.residue is not None)

    def surplus(self, current: Collection[int]) -> list[str]:
        """The names of the oldest passes that must go so that the others fit, once `current` are the buffers in use."""
        names, kept = list(self._live), list(self._live.values())
        count = 0
        while _cost(kept[count:], current) > self.limits.max_pass_bytes:
            count += 1
        return names[:count]

    def make_room(self, names: Collection[str]) -> None:
        """Drops passes because of their bytes."""
        if names:
            self._drop(names, TOO_LARGE.format(nbytes=self.limits.max_pass_bytes))

    def holders(self, names: Iterable[str], version: Version) -> int:
        """How many of the named passes hold this version."""
        return sum(self._live[name].version is version for name in names)

    def clear(self) -> None:
        """Forgets everything."""
        self._drop(list(self._live), "")
        self._gone.clear()
        self.dropped.clear()

    def _drop(self, names: Iterable[str], why: str) -> None:
        for name in names:
            self._live.pop(name).version.release()
            self._gone[name] = why
            if why != USED:
                self.dropped.append(name)
        while len(self._gone) > REMEMBERED:
            self._gone.popitem(last=False)


def check_age(name: str, steps: int, bound: int | None) -> None:
    """Raises StalePass when more steps than the bound were applied since a pass was made; None is no bound."""
    if bound is not None and steps > bound:
        raise StalePass(
            f"pass {name!r} was made {steps:,} steps ago, but the session takes gradients of passes from at most "
            f"{bound:,} steps ago; run Forward again, and its Backward sooner",
            field="forward_id",
        )


def _cost(passes: Iterable[KeptPass], current: Collection[int]) -> int:
    own = 0
    old: dict[int, int] = {}
    for kept in passes:
        own += kept.nbytes
        old.update(kept.buffers)
    return own + sum(nbytes for identity, nbytes in old.items() if identity not in current)
