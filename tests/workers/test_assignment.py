"""What workers are told: together they have what the server may have."""

from hypothesis import given
from hypothesis import strategies as st

from backwire_server.config import Config
from backwire_server.config_parts import Capacity
from backwire_server.machine import Tuning
from backwire_server.sessions.limits import GiB, Limits, TenantLimits
from backwire_server.workers.assignment import Assignment, Place, assign, of_all

HERE = Place("unix:/s", "unix:/s", "unix:/s")


@given(st.integers(1, 9), st.integers(1, 1_000), st.integers(9, 1 << 50))
def test_sessions_and_bytes_are_shared_out_and_all_else_holds_in_each(workers: int, sessions: int, nbytes: int) -> None:
    settings = Config(workers=workers, limits=Limits(max_sessions=sessions, max_total_bytes=nbytes, max_passes=5))
    each = [assign(settings, HERE, "tag", index) for index in range(settings.worker_count)]
    assert sum(one.limits.max_sessions for one in each) == sessions
    assert sum(one.limits.max_total_bytes for one in each) == nbytes
    assert {one.limits.max_passes for one in each} == {5}
    assert of_all(settings).max_concurrent_calls == settings.worker_count * settings.capacity.max_concurrent_calls


def test_a_message_fits_whatever_the_share_of_bytes_in_progress() -> None:
    settings = Config(workers=64, capacity=Capacity(max_request_bytes=GiB))
    assert assign(settings, HERE, "tag", 63).capacity.max_request_bytes == settings.limits.max_message_bytes


def test_an_assignment_is_one_line_that_can_be_read_back() -> None:
    tuning, limits = Tuning(compute_threads=2, tune_blas=False), Limits(idle_ttl=None)
    settings = Config(replica="backwire-0", tuning=tuning, limits=limits)
    told = assign(settings, Place("127.0.0.1:5", "127.0.0.1:5", ":5"), "t\n", 0)
    assert "\n" not in told.to_json()
    assert Assignment.from_json(told.to_json()) == told
    assert told.replica == "backwire-0"


@given(st.integers(1, 9), st.integers(1, 1_000))
def test_what_tenants_may_have_is_shared_out_and_each_worker_has_some(workers: int, rate: int) -> None:
    tenants = TenantLimits(tenant_max_sessions=rate, tenant_flops_per_second=None)
    settings = Config(workers=workers, tenants=tenants, capacity=Capacity(max_calls_per_second=rate))
    each = [assign(settings, HERE, "tag", index) for index in range(settings.worker_count)]
    shares = [one.tenants.tenant_max_sessions or 0 for one in each]
    assert min(shares) >= 1
    assert sum(shares) == max(rate, len(each))
    assert [one.capacity.max_calls_per_second for one in each] == shares
    assert {one.tenants.tenant_flops_per_second for one in each} == {None}


def test_workers_share_the_processors() -> None:
    settings = Config(workers=2, capacity=Capacity(max_concurrent_computations=5))
    each = [assign(settings, HERE, "tag", index) for index in range(2)]
    assert [one.capacity.computations for one in each] == [3, 2]
