"""When there are too many sessions or bytes in memory, those go that nobody uses."""

import pytest
from tests.storage.durable import TOUR, Disk, create, do, forward, standing, train
from tests.storage.sleeping import awake, trained

from backwire_server.sessions import errors
from backwire_server.sessions.scope import UNBOUNDED


class TestTooManySessions:
    def test_send_the_one_away_that_was_not_used_for_the_longest_time(self, disk: Disk) -> None:
        made = [create(disk.open(max_awake_sessions=2)), *(create(disk.store) for _ in range(3))]
        a, b, c, d = made
        assert awake(a, b, c, d) == [False, False, True, True]
        train(1)(disk.store.get(a.session_id), None)
        assert awake(a, b, c, d) == [True, False, False, True]
        disk.store.get(d.session_id)
        train(1)(disk.store.get(b.session_id), None)
        assert awake(a, b, c, d) == [False, True, False, True]

    def test_come_back_as_they_were(self, disk: Disk) -> None:
        disk.open(max_awake_sessions=1)
        one, other, undisturbed = create(disk.store), create(disk.store), disk.undisturbed()
        for name in TOUR:
            expected = do(undisturbed, name)
            for session in (one, other):
                found = disk.store.get(session.session_id)
                assert do(found, name) == expected, name
            assert awake(one, other) == [False, True]
        assert standing(one) == standing(other) == standing(undisturbed)

    def test_pass_over_one_that_is_busy(self, disk: Disk) -> None:
        disk.open(max_awake_sessions=2, hibernate_after=0.0)
        busy, idle = create(disk.store), create(disk.store)
        with busy.my_turn(UNBOUNDED):
            create(disk.store)
            assert awake(busy, idle) == [True, False]
            disk.store.sweep()
            assert busy.awake
        disk.store.sweep()
        assert not busy.awake

    def test_leave_the_one_alone_that_is_about_to_be_used(self, disk: Disk) -> None:
        busy = create(disk.open(max_awake_sessions=1))
        with busy.my_turn(UNBOUNDED):
            session = create(disk.store)
            assert disk.store.get(session.session_id).awake
        disk.store.get(session.session_id)
        assert awake(busy, session) == [False, True]


class TestTheByteBudget:
    @pytest.fixture
    def cost(self, disk: Disk) -> int:
        """The bytes of a session of the network in memory."""
        create(disk.open())
        return disk.store.budget.used

    def test_has_idle_sessions_go_for_one_that_is_new(self, disk: Disk, cost: int) -> None:
        disk.open(max_total_bytes=3 * cost)
        made = [create(disk.store) for _ in range(5)]
        assert awake(*made) == [False, False, True, True, True]
        assert disk.store.budget.used == 3 * cost

    def test_has_idle_sessions_go_for_one_that_comes_back(self, disk: Disk, cost: int) -> None:
        disk.open(max_total_bytes=2 * cost)
        made = [create(disk.store) for _ in range(3)]
        digests = {disk.store.get(session.session_id).digest(UNBOUNDED) for session in made}
        assert len(digests) == 1
        assert awake(*made) == [False, True, True]
        assert disk.store.budget.used == 2 * cost

    def test_has_idle_sessions_go_for_a_pass(self, disk: Disk, cost: int) -> None:
        disk.open(max_total_bytes=2 * cost + 100)  # while it is computed it takes a little more than a session
        idle, session = create(disk.store), create(disk.store)
        forward(1, "p")(session, None)
        assert awake(idle, session) == [False, True]
        assert cost < disk.store.budget.used <= 2 * cost

    def test_has_idle_sessions_go_for_a_branch(self, disk: Disk, cost: int) -> None:
        disk.open(max_total_bytes=2 * cost)
        idle, session = create(disk.store), create(disk.store)
        disk.store.fork(UNBOUNDED, session.session_id)
        assert awake(idle, session) == [False, True]

    def test_refuses_when_all_are_busy_and_leaves_them_as_they_are(self, disk: Disk, cost: int) -> None:
        busy = create(disk.open(max_total_bytes=cost))
        do(busy, "attach")
        before, files = standing(busy), disk.files()
        used = disk.store.budget.used
        with busy.my_turn(UNBOUNDED), pytest.raises(errors.OutOfMemory):
            create(disk.store)
        assert (standing(busy), disk.files(), disk.store.budget.used) == (before, files, used)
        assert create(disk.store).awake
        assert not busy.awake

    def test_refuses_a_session_that_comes_back_as_long_as_there_is_no_room(self, disk: Disk, cost: int) -> None:
        away, busy = create(disk.open(max_total_bytes=cost)), create(disk.store)
        with busy.my_turn(UNBOUNDED), pytest.raises(errors.OutOfMemory):
            away.digest(UNBOUNDED)
        away.digest(UNBOUNDED)
        assert awake(away, busy) == [True, False]

    def test_is_whole_again_when_all_are_closed(self, disk: Disk, cost: int) -> None:
        disk.open(max_total_bytes=100 * cost, max_awake_sessions=3)
        made = [create(disk.store) for _ in range(3)]
        for session in made:
            do(session, *TOUR)
            branch = disk.store.fork(UNBOUNDED, session.session_id).session_id
            train(1)(disk.store.get(branch), None)
        made[1].hibernate()
        for info in disk.store.list().sessions:
            disk.store.delete(UNBOUNDED, info.session_id)
        assert disk.store.budget.used == 0
        assert disk.files() == {}

    def test_is_whole_again_when_all_hibernate(self, disk: Disk) -> None:
        disk.open(hibernate_after=0.0)
        session = trained(disk)
        disk.store.fork(UNBOUNDED, session.session_id)
        disk.store.sweep()
        assert disk.store.budget.used == 0
