"""How a server and its sessions are doing, as plain immutable data."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from backwire_api.v1 import gradient_service_pb2 as service_pb2

SessionState = Literal["awake", "asleep", "recovering", "quarantined", "unknown"]

_STATES: dict[int, SessionState] = {
    service_pb2.SESSION_STATE_AWAKE: "awake",
    service_pb2.SESSION_STATE_ASLEEP: "asleep",
    service_pb2.SESSION_STATE_RECOVERING: "recovering",
    service_pb2.SESSION_STATE_QUARANTINED: "quarantined",
}


@dataclass(frozen=True, slots=True)
class Usage:
    """How much of something is in use, and the most that may be."""

    used: int
    limit: int


@dataclass(frozen=True, slots=True)
class ServerLoad:
    """How much a server has to do, all of its processes together.

    Attributes:
        calls: The calls in progress that neither stream nor merely look something up.
        streams: Those that stream in one direction.
        pipelines: The pipelines in progress.
        sessions: The sessions.
        session_bytes: The bytes that sessions hold in memory.
        recovering: How many sessions are still to be recovered since the start.
    """

    calls: Usage
    streams: Usage
    pipelines: Usage
    sessions: Usage
    session_bytes: Usage
    recovering: int


@dataclass(frozen=True, slots=True)
class SessionStatus:
    """How a session is doing. What its steps gave is known of those since the start of the process that keeps it.

    Attributes:
        id: The id, for `Client.session`.
        tenant: Whose it is.
        state: `"awake"` in memory; `"asleep"` on disk alone, until its next call; `"recovering"` while it is made from
            its journal; `"quarantined"` when its files cannot be used; `"unknown"` for what this client cannot know.
        step: How many steps were applied; 0 while it is recovered.
        steps: How many steps were done since the start of the process, those that were skipped too.
        loss: The loss of the last pass in training; None for none.
        gradient_norm: That of the last step; None for none.
        learning_rate: That of the last step; None for none.
        contributions: How many Backward contributions wait for the next Step.
        passes: How many passes are alive.
        nbytes: The bytes that it holds in memory.
        last_used: When it was last used, in UTC.
    """

    id: str
    tenant: str
    state: SessionState
    step: int
    steps: int
    loss: float | None
    gradient_norm: float | None
    learning_rate: float | None
    contributions: int
    passes: int
    nbytes: int
    last_used: datetime


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """How a server was doing when it was asked, and the sessions of the token's tenant.

    Attributes:
        version: The version of the server.
        started: When it was started, in UTC.
        time: When it told this, in UTC, by its own clock.
        workers: How many processes keep sessions.
        session_count: How many sessions there are.
        awake_count: How many of them are in memory.
        nbytes: The bytes that they hold there.
        load: How much the whole server has to do; None for a token without the scope admin.
        sessions: Those of the sessions that were used last, the very last first.
    """

    version: str
    started: datetime
    time: datetime
    workers: int
    session_count: int
    awake_count: int
    nbytes: int
    load: ServerLoad | None
    sessions: tuple[SessionStatus, ...]

    def rates(self, before: "ServerStatus") -> Mapping[str, float]:
        """Returns the steps per second since an earlier status, by session id.

        Only of sessions in both, and whose process was not started anew in between; empty when no time passed.
        """
        seconds = (self.time - before.time).total_seconds()
        steps = {each.id: each.steps for each in before.sessions}
        done = {each.id: each.steps - steps[each.id] for each in self.sessions if each.id in steps}
        return {name: count / seconds for name, count in done.items() if count >= 0} if seconds > 0 else {}


@dataclass(frozen=True, slots=True)
class StepRecord:
    """A step that was done.

    Attributes:
        step: The step number after it.
        loss: The loss of the last pass in training before it; None for none since the start of the server's process.
        gradient_norm: The global L2 norm of the gradients, before clipping.
        learning_rate: The learning rate that was used.
        time: When it was done, in UTC, by the server's clock.
    """

    step: int
    loss: float | None
    gradient_norm: float
    learning_rate: float
    time: datetime


@dataclass(frozen=True, slots=True)
class SessionHistory:
    """What the last steps of a session gave.

    Attributes:
        steps: The steps, oldest first.
        cursor: What to ask with the next time, to get only what came after.
        session: How the session is doing.
        time: When the server told this, in UTC, by its own clock.
    """

    steps: tuple[StepRecord, ...]
    cursor: str
    session: SessionStatus
    time: datetime


def server_status(message: service_pb2.GetStatusResponse) -> ServerStatus:
    """Returns the message as data."""
    return ServerStatus(
        version=message.version,
        started=_moment(message.start_time),
        time=_moment(message.time),
        workers=message.workers,
        session_count=message.session_count,
        awake_count=message.awake_count,
        nbytes=message.session_bytes,
        load=_load(message.load) if message.HasField("load") else None,
        sessions=tuple(map(session_status, message.sessions)),
    )


def session_history(message: service_pb2.GetSessionHistoryResponse) -> SessionHistory:
    """Returns the message as data."""
    steps = tuple(map(_record, message.steps))
    return SessionHistory(steps, message.next_cursor, session_status(message.session), _moment(message.time))


def session_status(message: service_pb2.SessionStatus) -> SessionStatus:
    """Returns the message as data."""
    return SessionStatus(
        id=message.session_id,
        tenant=message.tenant,
        state=_STATES.get(message.state, "unknown"),
        step=message.step,
        steps=message.steps,
        loss=_optional(message, "loss"),
        gradient_norm=_optional(message, "gradient_norm"),
        learning_rate=_optional(message, "learning_rate"),
        contributions=message.contributions,
        passes=message.passes,
        nbytes=message.memory_bytes,
        last_used=_moment(message.last_use_time),
    )


def _record(message: service_pb2.StepRecord) -> StepRecord:
    loss = _optional(message, "loss")
    return StepRecord(message.step, loss, message.gradient_norm, message.learning_rate, _moment(message.time))


def _load(message: service_pb2.ServerLoad) -> ServerLoad:
    return ServerLoad(
        calls=_usage(message.calls),
        streams=_usage(message.streams),
        pipelines=_usage(message.pipelines),
        sessions=_usage(message.sessions),
        session_bytes=_usage(message.session_bytes),
        recovering=message.recovering,
    )


def _usage(message: service_pb2.Usage) -> Usage:
    return Usage(message.used, message.limit)


def _optional(message: Any, name: str) -> float | None:
    return getattr(message, name) if message.HasField(name) else None


def _moment(message: Any) -> datetime:
    return message.ToDatetime(tzinfo=UTC)  # type: ignore[no-any-return]
