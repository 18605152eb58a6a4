"""The calls that are about the state of a session: where it stands, who may write to it, and what is kept of it."""

import os
import socket
from collections.abc import Callable
from typing import BinaryIO, Literal, overload

from google.protobuf import duration_pb2

from backwire import _files
from backwire._errors import InvalidRequestError
from backwire._info import CheckpointInfo, SessionInfo
from backwire._session_state import SessionState
from backwire._wire import _message_fields
from backwire._wire._call import Call, Download
from backwire._wire._info_reading import checkpoint_info, session_info
from backwire_api.v1 import gradient_service_pb2 as service_pb2


@overload
def info(session: SessionState, *, digest: Literal[False] = False) -> Call[SessionInfo]: ...


@overload
def info(session: SessionState, *, digest: Literal[True]) -> Call[str]: ...


def info(session: SessionState, *, digest: bool = False) -> Call[SessionInfo] | Call[str]:
    """Returns the call of `Session.info`, or of `Session.digest`."""
    session._check_open()
    request = service_pb2.GetSessionRequest(session_id=session.id, digest=digest)
    if digest:
        return Call("GetSession", request, lambda response: str(response.digest))
    return Call("GetSession", request, lambda response: session._read_info(response.session))


def attach(
    session: SessionState,
    *,
    holder: str | None,
    lease_timeout: float,
    take_over: bool,
    request_id: str | None,
) -> Call[service_pb2.Lease]:
    """Returns the call of `Session.attach`, whose outcome is the lease that was given."""
    session._check_open()
    if not lease_timeout > 0:
        raise InvalidRequestError(
            f"a lease of {lease_timeout} s runs out at once; give seconds above 0", field="lease_timeout"
        )
    silence = duration_pb2.Duration()
    silence.FromNanoseconds(round(lease_timeout * 1e9))
    unique = _message_fields.new_request_id(request_id)
    request = service_pb2.AttachSessionRequest(
        session_id=session.id,
        holder=_this_process() if holder is None else holder,
        timeout=silence,
        take_over=take_over,
        request_id=unique,
    )
    return Call("AttachSession", request, lambda response: response.lease, unique)


def detach(session: SessionState, number: int, request_id: str | None) -> Call[None]:
    """Returns the call that gives back a lease."""
    unique = _message_fields.new_request_id(request_id)
    request = service_pb2.DetachSessionRequest(session_id=session.id, number=number, request_id=unique)
    return Call("DetachSession", request, lambda _: None, unique)


def save_checkpoint(session: SessionState, name: str, request_id: str | None) -> Call[CheckpointInfo]:
    """Returns the call of `Session.save_checkpoint`."""
    session._check_open()
    unique = _message_fields.new_request_id(request_id)
    request = service_pb2.SaveCheckpointRequest(session_id=session.id, name=name, request_id=unique)
    return Call("SaveCheckpoint", request, lambda response: checkpoint_info(response.checkpoint), unique)


def checkpoints(session: SessionState) -> Call[list[CheckpointInfo]]:
    """Returns the call of `Session.checkpoints`."""
    session._check_open()
    request = service_pb2.ListCheckpointsRequest(session_id=session.id)
    return Call("ListCheckpoints", request, lambda response: [checkpoint_info(each) for each in response.checkpoints])


def restore(session: SessionState, to: str | int, request_id: str | None) -> Call[CheckpointInfo]:
    """Returns the call of `Session.restore_checkpoint` for a name, or of `Session.rewind` for a step."""
    session._check_open()
    unique = _message_fields.new_request_id(request_id)
    request = service_pb2.RestoreCheckpointRequest(session_id=session.id, request_id=unique, lease=session._lease)
    if isinstance(to, str):
        request.name = to
    else:
        request.step = to
    return Call("RestoreCheckpoint", request, lambda response: checkpoint_info(response.checkpoint), unique)


def delete_checkpoint(session: SessionState, name: str, request_id: str | None) -> Call[None]:
    """Returns the call of `Session.delete_checkpoint`."""
    session._check_open()
    unique = _message_fields.new_request_id(request_id)
    request = service_pb2.DeleteCheckpointRequest(session_id=session.id, name=name, request_id=unique)
    return Call("DeleteCheckpoint", request, lambda _: None, unique)


def fork(session: SessionState, request_id: str | None) -> Call[SessionInfo]:
    """Returns the call of `Session.fork`, whose outcome is what the new session is."""
    session._check_open()
    unique = _message_fields.new_request_id(request_id)
    request = service_pb2.ForkSessionRequest(session_id=session.id, request_id=unique)
    return Call("ForkSession", request, lambda response: session_info(response.session), unique)


def move(session: SessionState, replica: str) -> Call[None]:
    """Returns the call of `Session.move`."""
    session._check_open()
    request = service_pb2.MoveSessionRequest(session_id=session.id, replica=replica)
    return Call("MoveSession", request, lambda _: None)


def export(session: SessionState, restart: Callable[[], BinaryIO]) -> Download[None]:
    """Returns the call of `Session.export`; `restart` returns the file, each time as it was at first."""
    session._check_open()
    request = service_pb2.ExportSessionRequest(session_id=session.id)
    return Download("ExportSession", request, lambda responses: _files.receive(responses, restart()))


def delete(session: SessionState, request_id: str | None) -> Call[None]:
    """Returns the call of `Session.close`."""
    unique = _message_fields.new_request_id(request_id)
    request = service_pb2.DeleteSessionRequest(session_id=session.id, request_id=unique)
    return Call("DeleteSession", request, lambda _: None, unique)


def _this_process() -> str:
    return f"{socket.gethostname()[:100]}:{os.getpid()}"
