"""One answer of how a server is doing, of those of its workers."""

import heapq
from collections.abc import Sequence
from itertools import chain

from backwire_api.v1 import gradient_service_pb2 as pb

_QUOTAS = ("calls", "streams", "pipelines", "sessions", "session_bytes")


def together(statuses: Sequence[pb.GetStatusResponse], size: int) -> pb.GetStatusResponse:
    """Returns the sum of what workers said, with the sessions that were used last, at most so many.

    The load is unset unless all told it. The version and the times are for the caller to set.
    """
    sessions = chain.from_iterable(status.sessions for status in statuses)
    whole = pb.GetStatusResponse(
        workers=sum(status.workers for status in statuses),
        session_count=sum(status.session_count for status in statuses),
        awake_count=sum(status.awake_count for status in statuses),
        session_bytes=sum(status.session_bytes for status in statuses),
        sessions=heapq.nlargest(size, sessions, key=lambda each: each.last_use_time.ToNanoseconds()),
    )
    if statuses and all(status.HasField("load") for status in statuses):
        whole.load.CopyFrom(_load([status.load for status in statuses]))
    return whole


def _load(loads: Sequence[pb.ServerLoad]) -> pb.ServerLoad:
    sums = {name: _sum([getattr(load, name) for load in loads]) for name in _QUOTAS}
    return pb.ServerLoad(**sums, recovering=sum(load.recovering for load in loads))


def _sum(parts: Sequence[pb.Usage]) -> pb.Usage:
    return pb.Usage(used=sum(part.used for part in parts), limit=sum(part.limit for part in parts))
