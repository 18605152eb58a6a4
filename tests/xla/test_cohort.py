"""States that are stacked on the device: each slot keeps what is its own, whoever comes and goes."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("jax")

from tests.xla.failing import failing_device

from backwire_server.xla.cohort import Cohort, Slot, StateLost

Array = NDArray[Any]


def enter(cohort: Cohort, value: float) -> Slot:
    return cohort.enter(*state(value))


def state(value: float) -> tuple[tuple[Array], tuple[Array]]:
    return (np.full((2, 3), float(value)),), (np.full((2, 3), -float(value)),)


def value(slot: Slot) -> float:
    parameter, mean = np.asarray(slot.parameters()[0]), np.asarray(slot.memory()[0])
    assert (parameter.dtype.name, parameter.shape) == ("float64", (2, 3))
    np.testing.assert_array_equal(mean, -parameter)
    assert len(set(parameter.ravel())) == 1
    return float(parameter[0, 0])


def test_there_are_as_many_slots_as_the_next_power_of_two() -> None:
    cohort, slots, capacities = Cohort(), [], []
    for at in range(5):
        slots.append(enter(cohort, at))
        capacities.append(cohort.capacity)
    assert capacities == [1, 2, 4, 4, 8]
    assert [value(slot) for slot in slots] == [0, 1, 2, 3, 4]


def test_a_slot_that_nothing_refers_to_is_used_again() -> None:
    cohort = Cohort()
    slots = [enter(cohort, at) for at in range(4)]
    del slots[1]
    slots.append(enter(cohort, 9))
    assert cohort.capacity == 4
    assert [value(slot) for slot in slots] == [0, 2, 3, 9]


def test_the_stack_shrinks_when_most_slots_are_free() -> None:
    cohort = Cohort()
    slots = [enter(cohort, at) for at in range(16)]
    del slots[:13]
    rows = cohort.states(slots[:1])
    cohort.update(slots[:1], rows)
    assert cohort.capacity == 8
    assert [value(slot) for slot in slots] == [13, 14, 15]
    slots.append(enter(cohort, 7))
    assert [value(slot) for slot in slots] == [13, 14, 15, 7]


def test_an_update_changes_the_slots_that_are_named_alone() -> None:
    cohort = Cohort()
    slots = [enter(cohort, at) for at in range(4)]
    rows = cohort.states([slots[3], slots[1], slots[0]])
    cohort.update([slots[0], None, slots[2]], rows)
    assert [value(slot) for slot in slots] == [3, 1, 0, 3]
    slots[1].write(*state(5))
    assert [value(slot) for slot in slots] == [3, 5, 0, 3]


def test_what_fails_while_states_are_replaced_loses_them_and_not_those_who_enter_later() -> None:
    cohort = Cohort()
    slots = [enter(cohort, at) for at in range(3)]
    rows = cohort.states(slots[:1])
    with failing_device(), pytest.raises(RuntimeError, match="failed"):
        cohort.update(slots[:1], rows)
    assert all(slot.lost for slot in slots)
    for act in (slots[1].parameters, lambda: cohort.states(slots), lambda: cohort.update(slots[:1], rows)):
        with pytest.raises(StateLost):
            act()
    assert value(enter(cohort, 6)) == 6


def test_what_fails_before_the_device_begins_loses_nothing() -> None:
    cohort = Cohort()
    slots = [enter(cohort, at) for at in range(2)]
    with pytest.raises((TypeError, ValueError)):
        slots[0].write((np.ones(5),), (np.ones(5),))
    assert [value(slot) for slot in slots] == [0, 1]
