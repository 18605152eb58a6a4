"""One answer of how a server is doing, of those of its workers."""

import heapq
from collections.abc import Sequence
from itertools import accumulate, islice

from backwire_api.v1 import gradient_service_pb2 as pb

_QUOTAS = ("calls", "streams", "pipelines", "sessions", "session_bytes")


def together(statuses: Sequence[pb.GetStatusResponse], size: int) -> pb.GetStatusResponse:
    """Returns the sum of what workers said, with the sessions that were used last, at most so many.

    The load is unset unless all told it. The version and the times are for the caller to set.
    """
    sessions = heapq.merge(*map(_by_use, statuses), key=lambda each: each[0], reverse=True)
    whole = pb.GetStatusResponse(
        workers=sum(status.workers for status in statuses),
        session_count=sum(status.session_count for status in statuses),
        awake_count=sum(status.awake_count for status in statuses),
        session_bytes=sum(status.session_bytes for status in statuses),
        sessions=(session for _, session in islice(sessions, size)),
    )
    if statuses and all(status.HasField("load") for status in statuses):
        whole.load.CopyFrom(_load([status.load for status in statuses]))
    return whole


def _by_use(status: pb.GetStatusResponse) -> list[tuple[int, pb.SessionStatus]]:
    """Returns the sessions of one worker and when they were used last, in its order, which is that of their use.

    Before the clock was set back it told later times: such a session was used before the one that precedes it.
    """
    used = (session.last_use_time.ToNanoseconds() for session in status.sessions)
    bounded = islice(accumulate(used, min, initial=status.time.ToNanoseconds()), 1, None)
    return list(zip(bounded, status.sessions, strict=True))


def _load(loads: Sequence[pb.ServerLoad]) -> pb.ServerLoad:
    sums = {name: _sum([getattr(load, name) for load in loads]) for name in _QUOTAS}
    return pb.ServerLoad(**sums, recovering=sum(load.recovering for load in loads))


def _sum(parts: Sequence[pb.Usage]) -> pb.Usage:
    return pb.Usage(used=sum(part.used for part in parts), limit=sum(part.limit for part in parts))
