"""The calls of a client: to make sessions, to find them, and to ask about graphs and the server."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO

from backwire import _files
from backwire._builder._graph import Graph, as_graph
from backwire._builder._value import Value
from backwire._info import Durability, Executor, Precision, SessionInfo
from backwire._inspection import GraphDescription, OpInfo
from backwire._status import ServerStatus, SessionHistory, server_status, session_history
from backwire._training._optimizers import Optimizer
from backwire._wire import _inspection_messages, _message_fields, _messages
from backwire._wire._call import Call, Upload
from backwire._wire._info_reading import session_info
from backwire_api.v1 import gradient_service_pb2 as service_pb2

Page = tuple[list[SessionInfo], str]
"""Sessions, and the token of the next page, empty for none."""


def create_session(
    graph: Graph,
    optimizer: Optimizer | None,
    seed: int,
    durability: Durability | None,
    request_id: str | None,
    *,
    max_staleness: int | None,
    executor: Executor | None,
    data_parallel: int,
    precision: Precision | None,
) -> Call[SessionInfo]:
    """Returns the call of `Client.create_session`."""
    unique = _message_fields.new_request_id(request_id)
    request = _messages.create_session(
        graph,
        optimizer,
        seed,
        durability,
        unique,
        max_staleness=max_staleness,
        executor=executor,
        data_parallel=data_parallel,
        precision=precision,
    )
    return Call("CreateSession", request, _session, unique)


def describe(
    graph: Graph | Value,
    input_shapes: Mapping[str, Sequence[int]] | None,
    optimizer: Optimizer | None = None,
    precision: Precision | None = None,
) -> Call[GraphDescription]:
    """Returns the call of `Client.describe`."""
    number = _message_fields.precision_number(precision)
    request = _inspection_messages.describe_request(as_graph(graph), input_shapes or {}, optimizer, number)
    return Call("DescribeGraph", request, _inspection_messages.graph_description)


def ops() -> Call[dict[str, OpInfo]]:
    """Returns the call of `Client.ops`."""
    return Call("ListOps", service_pb2.ListOpsRequest(), _inspection_messages.op_infos)


def session(session_id: str) -> Call[SessionInfo]:
    """Returns the call of `Client.session`."""
    return Call("GetSession", service_pb2.GetSessionRequest(session_id=session_id), _session)


def sessions(page_size: int, token: str) -> Call[Page]:
    """Returns the call for a page of `Client.sessions`."""
    request = service_pb2.ListSessionsRequest(page_size=page_size, page_token=token)
    return Call("ListSessions", request, _page)


def status(max_sessions: int) -> Call[ServerStatus]:
    """Returns the call of `Client.status`."""
    return Call("GetStatus", service_pb2.GetStatusRequest(max_sessions=max_sessions), server_status)


def history(session_id: str, cursor: str) -> Call[SessionHistory]:
    """Returns the call of `Client.history`."""
    request = service_pb2.GetSessionHistoryRequest(session_id=session_id, cursor=cursor)
    return Call("GetSessionHistory", request, session_history)


def import_session(durability: Durability | None, request_id: str | None) -> Callable[[BinaryIO], Upload[SessionInfo]]:
    """Returns what makes the call of `Client.import_session` of a file, which is read from where it stands."""
    unique = _message_fields.new_request_id(request_id)
    head = service_pb2.ImportSessionRequest(request_id=unique, durability=_message_fields.durability_number(durability))

    def of(file: BinaryIO) -> Upload[SessionInfo]:
        start = file.tell()
        return Upload("ImportSession", lambda: _files.send(file, start, head), _session, unique)

    return of


def _session(response: Any) -> SessionInfo:
    return session_info(response.session)


def _page(response: Any) -> Page:
    return [session_info(each) for each in response.sessions], response.next_page_token
