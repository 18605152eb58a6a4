"""What the page asks for, as documents for JSON."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from backwire._arrays import Array
from backwire._builder._graph import Graph
from backwire._cli import _drawing_text, _models
from backwire._cli._drawing import drawing
from backwire._cli._models import Sizes
from backwire._client import Client
from backwire._errors import InvalidRequestError
from backwire._inspection import GraphDescription
from backwire._session_description import SessionDescription
from backwire._status import SessionStatus, StepRecord

Query = Mapping[str, str]
Document = dict[str, Any]

_MOST_GRAPHS = 32
_MOST_DIGITS = 9


class Answers:
    """Asks a server, for several threads at once. Graphs are kept, since that of a session never changes."""

    def __init__(self, client: Client, target: str) -> None:
        """Asks by the client, and calls the server by the target."""
        self._client = client
        self._target = target
        self._graphs: dict[str, Graph] = {}
        self._lock = threading.Lock()
        self.by_path: Mapping[str, Callable[[Query], Document]] = {
            "/api/status": self._status,
            "/api/history": self._history,
            "/api/graph": self._graph,
        }
        """What makes the document of each path; raises BackwireError."""

    def _status(self, _: Query) -> Document:
        found = self._client.status()
        return {
            "target": self._target,
            "version": found.version,
            "workers": found.workers,
            "session_count": found.session_count,
            "awake_count": found.awake_count,
            "nbytes": found.nbytes,
            "time": found.time.timestamp(),
            "load": found.load and asdict(found.load),
            "sessions": [_session(each) for each in found.sessions],
        }

    def _history(self, query: Query) -> Document:
        found = self._client.history(_session_id(query), cursor=query.get("cursor", ""))
        return {
            "session": _session(found.session),
            "steps": [_step(each) for each in found.steps],
            "cursor": found.cursor,
            "time": found.time.timestamp(),
        }

    def _graph(self, query: Query) -> Document:
        session, passes = self._client.session(_session_id(query)), _number(query, "passes", 0)
        with self._lock:  # one at a time is enough, and leaves the figures of another alone
            if session.id not in self._graphs:
                while len(self._graphs) >= _MOST_GRAPHS:
                    del self._graphs[next(iter(self._graphs))]
                self._graphs[session.id] = session.describe().graph
            graph = self._graphs[session.id]
            sizes = _models.sizes_of(graph, {}, otherwise=_number(query, "size", 1))
            if passes:
                return _measured(graph, sizes, session.describe(_drawn_inputs(graph, sizes), passes=passes))
        try:
            found = session.describe(shapes=sizes.shapes)
        except InvalidRequestError as error:  # such as a window that is larger than what was assumed
            return {**_document(graph, None), "shapes_unknown": str(error)}
        return _told(graph, sizes, found)


def _drawn_inputs(graph: Graph, sizes: Sizes) -> dict[str, Array]:
    return _models.draw(graph, sizes, {}, seed=0)


def _measured(graph: Graph, sizes: Sizes, found: SessionDescription) -> Document:
    return {
        **_told(graph, sizes, found),
        **{name: getattr(found, name) for name in ("forward_seconds", "backward_seconds")},
    }


def _told(graph: Graph, sizes: Sizes, found: SessionDescription) -> Document:
    description = found.description
    assert description is not None  # since shapes were given, or there are no inputs
    figures = {name: getattr(description, name) for name in ("parameter_count", "forward_flops", "backward_flops")}
    return {**_document(graph, description), "assumed": sizes.assumed, **figures}


def _document(graph: Graph, found: GraphDescription | None) -> Document:
    values, costs = (found.values, found.nodes) if found else ({}, {})
    return _drawing_text.document(drawing(graph.proto, values, {}, backward=False, costs=costs))


def _number(query: Query, name: str, otherwise: int) -> int:
    """Returns a whole number of the query, which is at least as large as what it is without one."""
    text = query.get(name, "")
    if not text:
        return otherwise
    if not text.isdecimal() or len(text) > _MOST_DIGITS or int(text) < otherwise:
        raise InvalidRequestError(f"{name}={text} is no whole number from {otherwise} on; ask with one", field=name)
    return int(text)


def _session_id(query: Query) -> str:
    if not query.get("session"):
        raise InvalidRequestError("the query names no session; ask with ?session=ID", field="session")
    return query["session"]


def _session(status: SessionStatus) -> Document:
    return {**asdict(status), "last_used": status.last_used.timestamp()}


def _step(record: StepRecord) -> Document:
    return {**asdict(record), "time": record.time.timestamp()}
