"""How a server with several workers is doing is told as if it were one."""

from typing import Any

import backwire as bw
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.workers.overview import together

NOW = 100


def answer(*used: int, load: bool = True, **figures: Any) -> pb.GetStatusResponse:
    """Of a worker with sessions that were last used at these times."""
    message = pb.GetStatusResponse(workers=1, session_count=len(used), **figures)
    message.time.FromSeconds(NOW)
    for time in used:
        message.sessions.add(session_id=str(time)).last_use_time.FromSeconds(time)
    if load:
        message.load.calls.CopyFrom(pb.Usage(used=len(used), limit=64))
        message.load.recovering = 1
    return message


def test_figures_are_sums_and_sessions_those_used_last() -> None:
    parts = [answer(9, 4, 1, awake_count=2, session_bytes=5), answer(), answer(7, 5, awake_count=1, session_bytes=3)]
    whole = together(parts, 3)
    assert (whole.workers, whole.session_count, whole.awake_count, whole.session_bytes) == (3, 5, 3, 8)
    assert [each.session_id for each in whole.sessions] == ["9", "7", "5"]
    assert (whole.load.calls, whole.load.recovering) == (pb.Usage(used=5, limit=192), 3)


def test_sessions_of_before_the_clock_was_set_back_come_after_those_used_since_on_their_worker() -> None:
    parts = [answer(95, 4_000, 60, 3_990), answer(90, 80), answer(3_980, 70)]
    whole = together(parts, 9)
    assert [each.session_id for each in whole.sessions] == ["3980", "95", "4000", "90", "80", "70", "60", "3990"]


def test_load_is_told_only_where_all_told_it() -> None:
    assert not together([answer(1), answer(2, load=False)], 9).HasField("load")
    assert not together([], 9).HasField("load")


def test_a_server_tells_the_sessions_of_all_its_workers(client: bw.Client) -> None:
    w = bw.parameter("w", [1.0, 2.0])
    with client.create_session(bw.sum(w * w), bw.SGD(0.25)) as one:
        others = [client.create_session(bw.sum(w * w), bw.SGD(0.25))]
        while one.info().address == others[-1].info().address:
            others.append(client.create_session(bw.sum(w * w), bw.SGD(0.25)))
        before = client.status()
        for session in (one, others[-1]):
            session.train_step({})
        now = client.status()
        assert now.workers == 2
        assert now.version == bw.__version__
        assert now.session_count == len(now.sessions) == 1 + len(others)
        assert [each.id for each in now.sessions[:2]] == [others[-1].id, one.id]
        assert [each.loss for each in now.sessions[:2]] == [5.0, 5.0]
        assert now.load is not None
        assert (now.load.calls.used, now.load.sessions.used) == (0, 1 + len(others))
        assert now.started == before.started < before.time < now.time
        rates = now.rates(before)
        assert [rates[session.id] > 0 for session in (one, *others)] == [True, *[False] * (len(others) - 1), True]
        assert len(client.history(one.id).steps) == len(client.history(others[-1].id).steps) == 1
        for session in others:
            session.close()
