"""How sessions are doing, as the contract tells it."""

from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.sessions.caller import tenant_of
from backwire_server.sessions.history import StepRecord
from backwire_server.sessions.status import SessionState, SessionStatus

_STATES = {
    SessionState.AWAKE: pb.SESSION_STATE_AWAKE,
    SessionState.ASLEEP: pb.SESSION_STATE_ASLEEP,
    SessionState.RECOVERING: pb.SESSION_STATE_RECOVERING,
    SessionState.QUARANTINED: pb.SESSION_STATE_QUARANTINED,
}


def status_to_proto(status: SessionStatus) -> pb.SessionStatus:
    """Returns how a session is doing."""
    message = pb.SessionStatus(
        session_id=status.session_id,
        tenant=tenant_of(status.session_id),
        state=_STATES[status.state],
        step=status.step,
        steps=status.steps,
        loss=status.loss,
        gradient_norm=status.gradient_norm,
        learning_rate=status.learning_rate,
        contributions=status.contributions,
        passes=status.passes,
        memory_bytes=status.nbytes,
    )
    message.last_use_time.FromNanoseconds(int(status.last_used * 1e9))
    return message


def record_to_proto(record: StepRecord) -> pb.StepRecord:
    """Returns what a step gave."""
    message = pb.StepRecord(
        step=record.step,
        loss=record.loss,
        gradient_norm=record.gradient_norm,
        learning_rate=record.learning_rate,
    )
    message.time.FromNanoseconds(int(record.time * 1e9))
    return message
