"""SessionState: what an object that speaks for a session knows without asking the server."""

import math

from backwire import _html
from backwire._builder import _shapes
from backwire._builder._graph import Graph
from backwire._errors_session import SessionNotFoundError
from backwire._info import SessionInfo
from backwire._wire._info_reading import SessionReader


class SessionState:
    """A session as it was when this object was made, the lease that it holds, and whether it was closed here."""

    def __init__(self, info: SessionInfo, graph: Graph | None = None) -> None:
        """Speaks for the session that `info` describes, and that trains `graph` if that is known here."""
        self._created = info
        self._read_info = SessionReader()
        self._graph = graph
        self._closed = False
        self._lease = 0

    @property
    def id(self) -> str:
        """The id, by which other clients can attach with `Client.session`."""
        return self._created.id

    @property
    def graph(self) -> Graph | None:
        """The graph that it was created from, or None in a client that attached to it by its id."""
        return self._graph

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the graph's outputs, sorted."""
        return self._created.outputs

    def __repr__(self) -> str:
        return f"<Session {self.id}{' (closed)' if self._closed else ''}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: inputs, outputs and parameters, without asking the server."""
        created = self._created
        count = sum(math.prod(each.shape) for each in created.parameters)
        kind = created.optimizer.WhichOneof("algorithm") if created.optimizer is not None else None
        facts = (f"{count:,} elements in {len(created.parameters)} parameters", kind or "no optimizer")
        named = (("input", created.inputs), ("parameter", created.parameters))
        rows = [(what, each.name, each.dtype.name, _shapes.show(each.shape)) for what, infos in named for each in infos]
        outputs = f"outputs: {', '.join(self.outputs) or 'none'}{'; closed' if self._closed else ''}"
        table = _html.table(("", "name", "dtype", "shape"), rows)
        return _html.heading(f"Session {self.id}", *facts, outputs) + table

    def _check_open(self) -> None:
        if self._closed:
            raise SessionNotFoundError(f"session {self.id} was closed here; create another one")
