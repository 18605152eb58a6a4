"""What admission counts, without a server."""

import threading

import numpy as np
import pytest

from backwire_server.config_parts import Capacity
from backwire_server.rpc.admission import CALLS, LOOKUPS, STREAMS, Admission
from backwire_server.sessions.errors import Overloaded, ShuttingDown
from backwire_server.sessions.limits import TenantLimits


class TestAdmission:
    def test_counts_calls_and_streams_apart(self) -> None:
        admission = Admission(Capacity(max_concurrent_calls=1, max_concurrent_streams=1))
        with admission.enter(CALLS), admission.enter(STREAMS):
            for quota in (CALLS, STREAMS):
                with pytest.raises(Overloaded) as caught:
                    admission.enter(quota)
                assert caught.value.quota == quota
                assert caught.value.retry_after
        admission.enter(CALLS)

    def test_counts_the_bytes_of_requests(self) -> None:
        admission = Admission(Capacity(max_request_bytes=100))
        with admission.enter(CALLS) as first:
            first.take(60)
            with admission.enter(STREAMS) as second:
                second.take(40)
                with pytest.raises(Overloaded) as caught:
                    second.take(1)
                assert caught.value.quota == "max_request_bytes"
            first.take(40)
        assert admission._request_bytes == 0

    def test_what_threads_of_a_call_tell_after_its_end_does_not_count(self) -> None:
        admission = Admission(Capacity(max_request_bytes=100))
        with admission.enter(STREAMS) as ended:
            ended.take(60)
        ended.take(30)
        ended.give(60)
        ended.on_drain(lambda: pytest.fail("it has ended"))
        assert admission._request_bytes == 0
        assert admission.drain(0.0) is False, "it was not told that the client has the answer"

    def test_a_call_that_is_alone_may_have_what_it_wants(self) -> None:
        admission = Admission(Capacity(max_request_bytes=100))
        with admission.enter(STREAMS) as only:
            only.take(80)
            only.take(80)

    def test_a_tenant_among_others_leaves_places_for_who_comes(self) -> None:
        admission = Admission(Capacity(max_concurrent_calls=9), crowded=lambda: True)
        held = [admission.enter(CALLS, "flood") for _ in range(6)]
        with pytest.raises(Overloaded):
            admission.enter(CALLS, "flood")
        held += [admission.enter(CALLS, "other") for _ in range(2)]
        for ticket in held:
            ticket.leave()
        assert not admission._by_tenant

    def test_a_tenant_that_is_alone_may_have_all_places(self) -> None:
        admission = Admission(Capacity(max_concurrent_calls=9))
        for _ in range(9):
            admission.enter(CALLS, "only")

    def test_a_tenant_has_so_many_calls_of_all_kinds(self) -> None:
        admission = Admission(Capacity(), lambda _: TenantLimits(tenant_max_calls=2))
        admission.enter(CALLS, "a")
        admission.enter(STREAMS, "a")
        with pytest.raises(Overloaded) as caught:
            admission.enter(LOOKUPS, "a")
        assert caught.value.quota == "tenant_max_calls"
        admission.enter(CALLS, "b")

    def test_those_who_are_refused_come_again_one_after_another_as_fast_as_calls_are_done(self) -> None:
        now = [0.0]
        admission = Admission(Capacity(max_concurrent_calls=2), clock=lambda: now[0])
        held = [admission.enter() for _ in range(2)]
        for _ in range(200):  # a call is done every tenth of a second
            now[0] += 0.1
            held.pop(0).leave()
            held.append(admission.enter())
        told = []
        for _ in range(20):
            with pytest.raises(Overloaded) as caught:
                admission.enter()
            assert caught.value.retry_after is not None
            told.append(caught.value.retry_after)
        np.testing.assert_allclose(np.diff([0.0, *told]), 0.1, rtol=0.01)
        for _ in range(1_000):
            with pytest.raises(Overloaded) as caught:
                admission.enter()
        assert caught.value.retry_after == pytest.approx(10.0)

    def test_drains_when_the_last_call_has_ended(self) -> None:
        admission = Admission(Capacity())
        with admission.enter(CALLS) as ticket:
            assert not admission.drain(0.01)
        assert not admission.drain(0.01), "the answer is still to be sent"
        with pytest.raises(ShuttingDown):
            admission.enter(CALLS)
        threading.Timer(0.05, ticket.finish).start()
        assert admission.drain(10)
