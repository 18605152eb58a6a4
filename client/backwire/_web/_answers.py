"""What the page asks for, as documents for JSON."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from backwire import _cli_models, _drawing_text
from backwire._client import Client
from backwire._drawing import drawing
from backwire._errors import InvalidRequestError
from backwire._graph import Graph
from backwire._inspection import ValueInfo
from backwire._status import SessionStatus, StepRecord
from backwire._web._graphs import graph_of

Query = Mapping[str, str]
Document = dict[str, Any]

_MOST_GRAPHS = 32


class Answers:
    """Asks a server, for several threads at once. Graphs are kept, since that of a session never changes."""

    def __init__(self, client: Client, target: str) -> None:
        """Asks by the client, and calls the server by the target."""
        self._client = client
        self._target = target
        self._graphs: dict[str, Document] = {}
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
        session_id = _session_id(query)
        with self._lock:  # one export at a time is enough
            if session_id not in self._graphs:
                made = self._drawn(session_id)
                while len(self._graphs) >= _MOST_GRAPHS:
                    del self._graphs[next(iter(self._graphs))]
                self._graphs[session_id] = made
            return self._graphs[session_id]

    def _drawn(self, session_id: str) -> Document:
        graph = graph_of(self._client, session_id)
        sizes = _cli_models.sizes_of(graph, {}, otherwise=1)
        try:
            found = self._client.describe(graph, sizes.shapes)
        except InvalidRequestError as error:  # such as a window that is larger than what was assumed
            told: Document = {"shapes_unknown": str(error)}
            return {**_document(graph, {}), **told}
        figures = ("parameter_count", "forward_flops", "backward_flops")
        told = {"assumed": sizes.assumed, **{name: getattr(found, name) for name in figures}}
        return {**_document(graph, found.values), **told}


def _document(graph: Graph, values: Mapping[str, ValueInfo]) -> Document:
    return _drawing_text.document(drawing(graph.proto, values, {}, backward=False))


def _session_id(query: Query) -> str:
    if not query.get("session"):
        raise InvalidRequestError("the query names no session; ask with ?session=ID", field="session")
    return query["session"]


def _session(status: SessionStatus) -> Document:
    return {**asdict(status), "last_used": status.last_used.timestamp()}


def _step(record: StepRecord) -> Document:
    return {**asdict(record), "time": record.time.timestamp()}
