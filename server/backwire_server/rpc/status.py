"""What a process tells of itself, for those who look on."""

import time

from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.config import version
from backwire_server.messages.status import record_to_proto, status_to_proto
from backwire_server.rpc.admission import CALLS, PIPELINES, STREAMS, Admission
from backwire_server.sessions.caller import Caller, Scope
from backwire_server.sessions.store.store import SessionStore


class Observer:
    """Sees how the sessions of a store are doing, and how many calls are in progress; takes part in nothing."""

    def __init__(self, store: SessionStore, admission: Admission) -> None:
        self._store = store
        self._admission = admission
        self._version = version()
        self._started = time.time_ns()

    def status(self, request: pb.GetStatusRequest, caller: Caller) -> pb.GetStatusResponse:
        """Returns the answer to GetStatus; raises InvalidRequest."""
        found = self._store.overview(request.max_sessions, caller)
        message = pb.GetStatusResponse(
            version=self._version,
            workers=1,
            session_count=found.count,
            awake_count=found.awake,
            session_bytes=found.nbytes,
            load=self._load() if caller.scope is Scope.ADMIN else None,
            sessions=map(status_to_proto, found.sessions),
        )
        message.start_time.FromNanoseconds(self._started)
        message.time.FromNanoseconds(time.time_ns())
        return message

    def history(self, request: pb.GetSessionHistoryRequest, caller: Caller) -> pb.GetSessionHistoryResponse:
        """Returns the answer to GetSessionHistory; raises SessionNotFound."""
        session = self._store.look(request.session_id, caller)
        records, cursor = session.history.since(request.cursor)
        message = pb.GetSessionHistoryResponse(
            steps=map(record_to_proto, records), next_cursor=cursor, session=status_to_proto(session.status())
        )
        message.time.FromNanoseconds(time.time_ns())
        return message

    def _load(self) -> pb.ServerLoad:
        budget = self._store.budget
        return pb.ServerLoad(
            calls=self._calls(CALLS),
            streams=self._calls(STREAMS),
            pipelines=self._calls(PIPELINES),
            sessions=pb.Usage(used=self._store.census[0], limit=self._store.limits.max_sessions),
            session_bytes=pb.Usage(used=budget.used, limit=budget.limit),
            recovering=self._store.recovering,
        )

    def _calls(self, quota: str) -> pb.Usage:
        used, limit = self._admission.usage(quota)
        return pb.Usage(used=used, limit=limit)
