"""Every durable session is owned by one process, however many there are, and so are repetitions and branches."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backwire_server.sessions.info import SLOTS, Home, request_slot, slot_of

FEW = 64

counts = st.integers(1, FEW) | st.sampled_from([SLOTS - 1, SLOTS])
request_ids = st.text(max_size=128)


@st.composite
def homes(draw: st.DrawFn) -> Home:
    """One of several processes."""
    count = draw(counts)
    replica = draw(st.sampled_from(["", "a", "backwire-0", "a" * 24]))
    return Home("s_12345678", index=draw(st.integers(0, count - 1)), count=count, replica=replica)


def owner(session_id: str, count: int) -> int:
    """The number of the process that owns a session, which must be one."""
    found = [index for index in range(count) if Home(index=index, count=count).owns(session_id)]
    assert len(found) == 1, f"{session_id} is owned by {found} of {count}"
    return found[0]


def of_request(request_id: str, count: int) -> Home:
    """The process that a request is sent to."""
    return Home(index=request_slot(request_id) % count, count=count)


@given(home=homes(), request_id=request_ids, later=st.integers(1, FEW))
def test_every_durable_session_has_one_owner_now_and_with_any_other_number_of_processes(
    home: Home, request_id: str, later: int
) -> None:
    session_id = home.new_id(durable=True, request_id=request_id)
    assert home.owns(session_id)
    if home.count <= FEW:
        assert owner(session_id, home.count) == home.index
    slot = slot_of(session_id)
    assert slot is not None
    assert owner(session_id, later) == slot % later


@given(request_id=request_ids.filter(bool), count=counts, later=st.integers(1, FEW))
def test_a_repeated_request_finds_its_session_also_when_the_number_of_processes_has_changed(
    request_id: str, count: int, later: int
) -> None:
    session_id = of_request(request_id, count).new_id(durable=True, request_id=request_id)
    assert slot_of(session_id) == request_slot(request_id)
    assert of_request(request_id, later).owns(session_id)
    assert owner(session_id, later) == of_request(request_id, later).index


@given(request_id=request_ids, count=st.integers(2, FEW))
def test_a_process_that_a_request_does_not_belong_to_owns_what_it_makes_all_the_same(
    request_id: str, count: int
) -> None:
    other = Home(index=(request_slot(request_id) + 1) % count, count=count)
    assert owner(other.new_id(durable=True, request_id=request_id), count) == other.index


@given(home=homes(), request_id=request_ids, later=st.integers(1, FEW))
def test_a_branch_stays_with_its_parent(home: Home, request_id: str, later: int) -> None:
    parent = home.new_id(durable=True)
    branch = home.new_id(durable=True, request_id=request_id, parent=parent)
    second = home.new_id(durable=True, parent=branch)
    assert slot_of(second) == slot_of(branch) == slot_of(parent)
    assert owner(second, later) == owner(parent, later)
    assert len({parent, branch, second}) == 3


@given(home=homes(), request_id=request_ids)
def test_a_session_that_is_not_durable_has_no_slot_and_no_owner(home: Home, request_id: str) -> None:
    parent = home.new_id(durable=True)
    session_id = home.new_id(durable=False, request_id=request_id, parent=parent)
    assert session_id.startswith("s_12345678")
    assert slot_of(session_id) is None
    assert not home.owns(session_id)


@given(homes())
def test_ids_are_long_to_guess_short_to_send_and_fit_for_names_of_directories(home: Home) -> None:
    made = {home.new_id(durable=durable) for durable in (True, False) for _ in range(20)}
    assert len(made) == 40
    assert all(re.fullmatch(r"[ds]_[A-Za-z0-9_-]{24,62}(~[a-z0-9-]{1,24})?", each) for each in made)


def test_sessions_without_a_request_are_spread_over_the_slots_of_their_process() -> None:
    home = Home(index=1, count=3)
    slots = {slot_of(home.new_id(durable=True)) for _ in range(200)}
    assert len(slots) > 100
    assert {slot % 3 for slot in slots if slot is not None} == {1}


@given(st.text() | st.from_regex(r"d_[0-9A-Fa-f]{0,4}", fullmatch=True))
def test_any_text_has_one_slot_or_none(text: str) -> None:
    slot = slot_of(text)
    assert slot is None or (0 <= slot < SLOTS and text.startswith(f"d_{slot:03x}"))
    assert sum(Home(index=index, count=5).owns(text) for index in range(5)) == (slot is not None)


@pytest.mark.parametrize("text", ["", "d_", "d_00", "d_0G0", "d_ABC0", "s_0ab", "D_0ab", "d-0ab", "d_٠٠٠", "d_ab\n"])
def test_what_is_no_id_of_a_durable_session_has_no_slot(text: str) -> None:
    assert slot_of(text) is None


def test_slots_stay_what_they_are_on_disk() -> None:
    assert [slot_of(each) for each in ("d_000", "d_0abXYZ", "d_fff" + "x" * 40)] == [0, 171, SLOTS - 1]
    assert [request_slot(each) for each in ("", "request", "ü")] == [0, 3999, 2517]
