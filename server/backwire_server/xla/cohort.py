"""States of many models of one kind, stacked on the device, so that a step of several is one computation."""

import threading
import weakref
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from backwire_server.engine.plan_cache import PlanCache
from backwire_server.optim import Optimizer
from backwire_server.xla.optimizing import TracedOptimizer
from backwire_server.xla.registry import numerics
from backwire_server.xla.state import Arrays, DeviceState

SMALL_BYTES = 512 << 10
"""The bytes of a state up to which groups pay on a processor: there a group saves each step about 0.3 ms of calls, and
costs it about as much per MiB of state, which is copied out of the stack and back."""

SPARSE = 4  # the stack is halved when it has this many times as many slots as are in use

GONE = -1


class StateLost(Exception):
    """The device has the state of a slot no more."""


class Slot:
    """A place in a cohort, which is free again once nothing refers to the slot.

    Attributes:
        cohort: Whose place it is.
        index: Where it is, as long as the cohort does not move it; GONE once it is lost.
    """

    __slots__ = ("__weakref__", "cohort", "index")

    def __init__(self, cohort: "Cohort", index: int) -> None:
        self.cohort = cohort
        self.index = index

    @property
    def lost(self) -> bool:
        """Whether its state was lost, and reading it raises StateLost."""
        return self.index == GONE

    def write(self, parameters: Arrays, memory: Arrays) -> None:
        """Replaces the state, by copies of arrays of numpy."""
        self.cohort.write(self, DeviceState(parameters, memory))

    def parameters(self) -> Arrays:
        """Returns copies of the parameters of this moment."""
        return self.cohort.read(self).parameters

    def memory(self) -> Arrays:
        """Returns copies of what the optimizer remembers at this moment."""
        return self.cohort.read(self).memory


class Cohort:
    """A DeviceState each of whose arrays has an axis of slots in front. May be used by several threads at once.

    It has as many slots as the next power of two of those in use, and up to SPARSE times as many after some were freed.
    States are replaced where they are. If that fails once the device has begun, all of them are lost; those who enter
    later are not concerned.
    """

    def __init__(self) -> None:
        """Has no slots, and takes no memory, until the first enters."""
        self._mutex = threading.Lock()
        self._state: DeviceState | None = None
        self._slots: list[weakref.ref[Slot] | None] = []
        self._freed = False

    @property
    def capacity(self) -> int:
        """How many slots there are, in use or not."""
        return len(self._slots)

    def enter(self, parameters: Arrays, memory: Arrays) -> Slot:
        """Returns a slot with copies of this state, given as arrays of numpy."""
        row = DeviceState(parameters, memory)
        with self._mutex:
            self._tidy()
            slot = Slot(self, self._free_place(row))
            self._slots[slot.index] = weakref.ref(slot, self._note)
            self._put(slot.index, row)
        return slot

    def write(self, slot: Slot, row: DeviceState) -> None:
        """Replaces the state of a slot by a copy; raises StateLost."""
        with self._mutex:
            self._put(_place(slot), row)

    def read(self, slot: Slot) -> DeviceState:
        """Returns a copy of the state of a slot, on the device; raises StateLost."""
        with self._mutex, numerics():
            return DeviceState(*_READ(self._state, np.int32(_place(slot))))

    def states(self, slots: Sequence[Slot]) -> DeviceState:
        """Returns copies of the states of slots, stacked in their order, on the device; raises StateLost."""
        with self._mutex, numerics():
            return DeviceState(*_READ(self._state, np.array([_place(slot) for slot in slots], np.int32)))

    def update(self, slots: Sequence[Slot | None], rows: DeviceState) -> None:
        """Replaces the states of slots by stacked ones, each by that at its place, but for places with None.

        Raises StateLost.
        """
        with self._mutex:
            beyond = len(self._slots)
            places = [beyond if slot is None else _place(slot) for slot in slots]
            self._replace(rows, np.array(places, np.int32))
            self._tidy()

    def _put(self, index: int, row: DeviceState) -> None:
        self._replace(row, np.int32(index))

    def _replace(self, rows: DeviceState, places: Any) -> None:
        state = self._state
        try:
            with numerics():
                self._state = DeviceState(*_WRITTEN(state, rows, places))
        except BaseException:
            if any(each.is_deleted() for each in jax.tree.leaves(state)):
                self._lose()
            raise

    def _lose(self) -> None:
        """Notes that the memory of the stack was used up, and nothing came of it."""
        for each in self._slots:
            if each is not None and (slot := each()) is not None:
                slot.index = GONE
        self._state, self._slots = None, []

    def _free_place(self, row: DeviceState) -> int:
        """Returns a place that is not in use; the stack is doubled where there is none."""
        for index, slot in enumerate(self._slots):
            if slot is None:
                return index
        used = len(self._slots)
        if self._state is None:
            with numerics():
                self._state = DeviceState(*jax.tree.map(lambda each: jnp.zeros((1, *each.shape), each.dtype), row))
            self._slots = [None]
        else:
            self._move(list(range(used)), 2 * used)
        return used

    def _tidy(self) -> None:
        """Gives up slots when far fewer are in use; those that stay may move."""
        if not self._freed:
            return
        self._freed = False
        self._slots = [each if each is not None and each() is not None else None for each in self._slots]
        live = [index for index, each in enumerate(self._slots) if each is not None]
        capacity = len(self._slots)
        while capacity > SPARSE * max(len(live), 1):
            capacity //= 2
        if capacity < len(self._slots):
            self._move(live, capacity)

    def _move(self, places: Sequence[int], capacity: int) -> None:
        """Gives the stack another capacity, with the slots at these places in front."""
        beyond = len(self._slots)
        index = np.array([*places, *[beyond] * (capacity - len(places))], np.int32)
        with numerics():
            self._state = DeviceState(*_MOVED(self._state, index))
        kept = [self._slots[place] for place in places]
        self._slots = [*kept, *[None] * (capacity - len(kept))]
        for now, each in enumerate(kept):
            if each is not None and (slot := each()) is not None:
                slot.index = now

    def _note(self, _: "weakref.ref[Slot]") -> None:
        self._freed = True  # by any thread, also one that has the mutex


def _place(slot: Slot) -> int:
    if slot.lost:
        raise StateLost("the device failed while it replaced states")
    return slot.index


def pays(nbytes: int) -> bool:
    """Whether states of so many bytes are faster computed together than one by one, on the device that there is."""
    return nbytes <= SMALL_BYTES or jax.default_backend() != "cpu"


def _read(state: DeviceState, places: Any) -> Any:
    return jax.tree.map(lambda each: each.at[places].get(mode="clip"), state)


def _written(state: DeviceState, rows: DeviceState, places: Any) -> Any:
    return jax.tree.map(lambda each, row: each.at[places].set(row, mode="drop"), state, rows)


def _moved(state: DeviceState, places: Any) -> Any:
    return jax.tree.map(lambda each: each.at[places].get(mode="fill", fill_value=0), state)


def cohort_of(plans: PlanCache, optimizer: TracedOptimizer) -> Cohort:
    """Returns the cohort of the models that have these plans and this optimizer: the same one for all who ask.

    It lives as long as one of its slots, or somebody who asked, refers to it.
    """
    key = plans, optimizer.key
    with _MUTEX:
        found = _COHORTS.get(key)
        if found is None:
            found = _COHORTS[key] = Cohort()
        return found


_MUTEX = threading.Lock()
_COHORTS: weakref.WeakValueDictionary[tuple[PlanCache, Optimizer], Cohort] = weakref.WeakValueDictionary()
_READ = jax.jit(_read)
_WRITTEN = jax.jit(_written, donate_argnums=0)
_MOVED = jax.jit(_moved)
