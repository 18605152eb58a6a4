"""Where sessions go, how many workers there are, and what moves: each move makes matters better, and they end."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backwire_server.cluster.load import Load, SessionLoad
from backwire_server.cluster.placing import FULL, Policy, Scaler, for_new, free_name, places, to_drain, to_move

POLICY = Policy()
ROOM = 1_000
MOST_MOVES = 200

PARTS = st.lists(st.tuples(st.floats(0, 0.5), st.integers(0, 300)), max_size=6)


def load(name: str, *sessions: tuple[float, int]) -> Load:
    """A worker with sessions that take so much of its processors and of its 1,000 bytes."""
    told = tuple(SessionLoad(f"{name}-{number}", nbytes, busy) for number, (busy, nbytes) in enumerate(sessions))
    return whole(name, told)


def whole(name: str, sessions: tuple[SessionLoad, ...]) -> Load:
    busy, nbytes = sum(each.busy for each in sessions), sum(each.nbytes for each in sessions)
    return Load(name, f"{name}:1", busy, nbytes, ROOM, len(sessions), sessions)


@st.composite
def clusters(draw: st.DrawFn) -> list[Load]:
    return [load(f"w{number}", *draw(PARTS)) for number in range(draw(st.integers(1, 4)))]


def test_a_new_session_goes_to_the_least_busy_worker_and_of_several_to_that_with_fewest_sessions() -> None:
    loads = [load("a", (0.6, 1)), load("b", (0.1, 1)), load("c", (0.1, 1), (0.0, 1))]
    assert for_new(loads, {}) == "b"
    assert for_new(loads, {"b": 1}) == "b"
    assert for_new(loads, {"b": 2}) == "c"
    assert for_new([], {}) is None


@given(clusters())
def test_a_new_session_goes_to_no_worker_that_is_full_while_another_is_not(loads: list[Load]) -> None:
    chosen = next(each for each in loads if each.worker == for_new(loads, {}))
    assert chosen.memory < FULL or all(each.memory >= FULL for each in loads)


def test_the_session_moves_that_evens_out_best() -> None:
    move = to_move([load("a", (0.5, 1), (0.25, 1), (0.05, 1)), load("b"), load("c", (0.4, 1))], POLICY)
    assert move is not None
    assert (move.session_id, move.source, move.target) == ("a-0", "a", "b")


def test_sessions_that_do_nothing_move_for_the_memory_that_they_hold() -> None:
    move = to_move([load("a", (0.0, 500), (0.0, 300)), load("b", (0.1, 50))], POLICY)
    assert move is not None
    assert move.session_id == "a-1"


def test_nothing_moves_that_would_only_change_places() -> None:
    assert to_move([load("a", (0.9, 0)), load("b")], POLICY) is None
    assert to_move([load("a", (0.6, 1)), load("b", (0.1, 1))], POLICY) is None
    assert to_move([load("a", (0.9, 1), (0.1, 1))], POLICY) is None


def test_nothing_moves_to_where_it_has_no_room() -> None:
    assert to_move([load("a", (0.9, 500), (0.4, 200)), load("b", (0.0, 800))], POLICY) is None


@given(clusters())
def test_a_move_makes_no_worker_as_full_as_the_fullest_was_and_moves_come_to_an_end(loads: list[Load]) -> None:
    for _ in range(MOST_MOVES):
        move = to_move(loads, POLICY)
        if move is None:
            return
        fullest = max(each.pressure for each in loads)
        loads = moved(loads, move.session_id, move.source, move.target)
        target = next(each for each in loads if each.worker == move.target)
        assert target.pressure < fullest + 1e-9
    pytest.fail("sessions move for ever")


def moved(loads: list[Load], session_id: str, source: str, target: str) -> list[Load]:
    (session,) = [each for load in loads for each in load.sessions if each.session_id == session_id]
    after = []
    for each in loads:
        rest = tuple(kept for kept in each.sessions if kept != session)
        assert (rest != each.sessions) == (each.worker == source)
        after.append(whole(each.worker, (*rest, session) if each.worker == target else rest))
    return after


def test_another_worker_comes_when_all_have_been_busy_for_some_time_and_not_before() -> None:
    scaler, busy = Scaler(POLICY), [load("a", (0.8, 1)), load("b", (0.9, 1))]
    assert [scaler.wanted(busy, 2, 1, 4, now) for now in (0.0, 3.0, 4.9, 5.0)] == [2, 2, 2, 3]
    assert scaler.wanted(busy, 3, 1, 4, 20.0) == 3, "the new one has not told its load"


def test_a_pause_begins_the_time_anew() -> None:
    scaler, busy, idle = Scaler(POLICY), [load("a", (0.8, 1))], [load("a", (0.6, 1))]
    assert scaler.wanted(busy, 1, 1, 4, 0.0) == 1
    assert scaler.wanted(idle, 1, 1, 4, 4.0) == 1
    assert scaler.wanted(busy, 1, 1, 4, 6.0) == 1
    assert scaler.wanted(busy, 1, 1, 4, 11.0) == 2


def test_another_worker_comes_when_memory_is_short() -> None:
    scaler, full = Scaler(POLICY), [load("a", (0.0, 800))]
    assert [scaler.wanted(full, 1, 1, 4, now) for now in (0.0, 5.0)] == [1, 2]


def test_a_worker_goes_when_the_others_would_have_room_for_a_long_time() -> None:
    scaler, idle = Scaler(POLICY), [load("a", (0.3, 1)), load("b", (0.1, 1))]
    assert [scaler.wanted(idle, 2, 1, 4, now) for now in (0.0, 60.0, 119.0, 120.0)] == [2, 2, 2, 1]
    assert to_drain(idle) == "b"


@given(clusters(), st.integers(0, 6), st.integers(1, 4), st.integers(0, 4), st.lists(st.floats(0, 300), max_size=20))
def test_the_number_of_workers_stays_within_its_bounds_and_changes_by_one(
    loads: list[Load], missing: int, least: int, more: int, times: list[float]
) -> None:
    scaler, most, workers = Scaler(POLICY), least + more, len(loads) + missing
    for now in sorted(times):
        wanted = scaler.wanted(loads, workers, least, most, now)
        assert wanted >= least
        assert wanted <= max(most, workers)
        assert abs(wanted - workers) <= max(1, least - workers)


def test_the_spread_that_is_let_be_is_the_policys() -> None:
    loads = [load("a", (0.3, 1), (0.1, 1)), load("b", (0.2, 1))]
    assert to_move(loads, POLICY) is None
    assert to_move(loads, replace(POLICY, spread=0.1)) is not None


def test_a_new_worker_has_the_first_name_that_is_free() -> None:
    assert free_name("worker-", {"worker-0", "worker-2"}) == "worker-1"


def test_there_are_as_many_places_as_each_node_has_of_all_that_a_worker_asks_for() -> None:
    small, large = {"CPU": 3.0, "memory": 100.0}, {"CPU": 4.0, "GPU": 2.0, "memory": 350.0}
    assert places([small, large], {"CPU": 1}) == 7
    assert places([small, large], {"CPU": 2}) == 3, "two halves of nodes are none"
    assert places([small, large], {"CPU": 1, "memory": 100}) == 4
    assert places([small, large], {"CPU": 1, "GPU": 1}) == 2
    assert places([small, large], {"CPU": 5}) == 0
