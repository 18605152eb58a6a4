"""Client: a connection to a server, on which sessions are made and found."""

import os
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self

from backwire import _files
from backwire._builder._graph import Graph, as_graph
from backwire._builder._value import Value
from backwire._embedded import EmbeddedServer
from backwire._files import File
from backwire._info import Durability, Executor, Precision, SessionInfo
from backwire._inspection import GraphDescription, OpInfo
from backwire._session import Session
from backwire._status import ServerStatus, SessionHistory
from backwire._training._optimizers import Optimizer
from backwire._wire import _calls_client
from backwire._wire._direct import Routes
from backwire._wire._transport import Transport
from backwire._wire._transport_base import REQUEST_KEY, SESSION_KEY


class Client:
    """A connection to a server. Made by `connect`; a context manager. May be used by several threads at once.

    Closing it leaves sessions on the server, except on an embedded server, which ends.

    Attributes:
        target: Where the server is; that of an embedded one is a socket, which others of this user may connect to.
    """

    def __init__(
        self,
        transport: Transport,
        server: EmbeddedServer | None = None,
        *,
        routes: Routes | None = None,
        target: str = "",
    ) -> None:
        """Takes over the transport, the embedded server when there is one, and the direct ways to sessions."""
        self.target = target
        self._transport = transport
        self._server = server
        self._routes = routes

    def create_session(
        self,
        graph: Graph | Value,
        optimizer: Optimizer | None = None,
        seed: int = 0,
        *,
        max_staleness: int | None = None,
        data_parallel: int = 1,
        precision: Precision | None = None,
        durability: Durability | None = None,
        executor: Executor | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Session:
        """Sends a graph and returns the session that trains it.

        Args:
            graph: The graph; a scalar value stands for the graph whose loss it is.
            optimizer: How steps update the parameters; None for a session that only computes gradients.
            seed: What parameters and Dropout masks are drawn from; the same graph, seed and calls give the same
                numbers.
            data_parallel: In how many parts batches are computed in training, on as many processors as far as the
                server has them. The loss must be a mean over the batch, whose name inputs have as their first axis, and
                examples must not meet on the way to it. The gradient is the weighted mean of the parts', so the bits
                depend on this number, but not on which part is done how fast.
            precision: What products of float32 values are computed in. With `"bfloat16"`, those of layers, convolutions
                and attention take operands of 8 bits of precision, and parameters stay float32. With `"float16"` they
                have 11, and the loss is scaled: a step whose gradients overflow is skipped, as its result says. None
                leaves it to the server's `--precision`.
            max_staleness: The most steps that may be applied between a pass and its Backward, which raises
                StalePassError past that; None for any number.
            durability: What an acknowledged mutation outlives: `"memory"` nothing, `"journal"` the server's process,
                `"fsync"` its machine; None for what the server was told with `--durability`.
            executor: What computes the session: `"numpy"`, or `"jax"` where the server has that; they agree within
                rounding. None for what the server was told with `--executor`.
            request_id: Give that of a call that failed to repeat it safely; by default drawn at random.
            timeout: The seconds until the call fails with DeadlineExceededError; None for the client's.

        Raises:
            GraphError: The graph is malformed, or its batches cannot be computed in parts; `field` names the node.
            ShapeError: The server found shapes that do not fit together.
            ResourceExhaustedError: The server has no room for it.
            NotDurableError: `durability` is above memory, and the server has no data directory.
            ExecutorUnavailableError: The server lacks what the executor needs.
        """
        sent = as_graph(graph)
        call = _calls_client.create_session(
            sent,
            optimizer,
            seed,
            durability,
            request_id,
            max_staleness=max_staleness,
            executor=executor,
            data_parallel=data_parallel,
            precision=precision,
        )
        return self._session(self._transport.naming(REQUEST_KEY, call.request_id or "").send(call, timeout), sent)

    def describe(
        self,
        graph: Graph | Value,
        input_shapes: Mapping[str, Sequence[int]] | None = None,
        optimizer: Optimizer | None = None,
        *,
        precision: Precision | None = None,
        timeout: float | None = None,
    ) -> GraphDescription:
        """Asks what a session of a graph would compute, hold and send, without making one.

        Args:
            graph: As in `create_session`.
            input_shapes: The shapes of inputs. An input may be left out whose shape is fixed, or whose symbols the
                other shapes give a size.
            optimizer: How steps would update the parameters; it decides `state_bytes`.
            precision: As in `create_session`; it decides what a pass takes.
            timeout: As in `create_session`.

        Raises:
            GraphError: The graph is malformed; `field` names the node.
            ShapeError: The shapes do not fit the graph.
            MissingInputError: The sizes of an input are not known.

        Example:
            >>> loss = bw.mean(bw.dense(bw.input("x", ("batch", 784)), 10, name="top"))
            >>> found = client.describe(loss, {"x": (32, 784)}, bw.Adam(1e-3))
            >>> found.parameter_count, found.forward.request
            (7850, 100352)
        """
        return self._transport.send(_calls_client.describe(graph, input_shapes, optimizer, precision), timeout)

    def ops(self, *, timeout: float | None = None) -> dict[str, OpInfo]:
        """Asks which operators the server has, by name and sorted by it; `bw.op` puts them into a graph."""
        return self._transport.send(_calls_client.ops(), timeout)

    def session(self, id: str, *, timeout: float | None = None) -> Session:  # noqa: A002
        """Returns a session that exists on the server, by its id; raises SessionNotFoundError when it does not."""
        return self._session(self._transport.naming(SESSION_KEY, id).send(_calls_client.session(id), timeout))

    def import_session(
        self,
        file: File,
        *,
        durability: Durability | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Session:
        """Makes a new session of a file that `Session.export` wrote, of this server or another, and returns it.

        It goes on from the same bits: graph, parameters, accumulated gradients, the optimizer's memory, step and seed.

        Args:
            file: A path, or a file that was opened in binary mode, which is read from where it stands and must be able
                to seek.
            durability: As in `create_session`.
            request_id: As in `create_session`.
            timeout: As in `create_session`.

        Raises:
            InvalidExportError: The file is something else, or damaged.
        """
        make = _calls_client.import_session(durability, request_id)
        with _files.reading(file) as source:
            call = make(source)
            return self._session(self._transport.naming(REQUEST_KEY, call.request_id).put(call, timeout))

    def load(self, path: str | os.PathLike[str], *, timeout: float | None = None) -> Session:
        """Makes a new session of a file that `Session.save` wrote: `import_session` with all defaults."""
        return self.import_session(path, timeout=timeout)

    def sessions(self, *, page_size: int = 0, timeout: float | None = None) -> Iterator[SessionInfo]:
        """Yields what all sessions on the server are, oldest first.

        Pages are fetched as they are needed; `page_size` is the most sessions in one, 0 for the server's choice, and
        `timeout` holds for each.
        """
        token = ""
        while True:
            found, token = self._transport.send(_calls_client.sessions(page_size, token), timeout)
            yield from found
            if not token:
                return

    def status(self, *, max_sessions: int = 0, timeout: float | None = None) -> ServerStatus:
        """Asks how the server is doing, and the sessions that were used last; see `ServerStatus.rates` for their speed.

        Looking on is no use of a session: it keeps none in memory, and waits for none.

        Args:
            max_sessions: The most sessions to tell of, up to 1,000; 0 for the server's choice.
            timeout: As in `create_session`.

        Example:
            >>> session = client.create_session(bw.sum(bw.parameter("w", [1.0, 2.0]) ** 2), bw.SGD(0.25))
            >>> _ = session.train_step({})
            >>> found = client.status(max_sessions=1).sessions[0]
            >>> found.state, found.step, found.loss
            ('awake', 1, 5.0)
        """
        return self._transport.send(_calls_client.status(max_sessions), timeout)

    def history(self, id: str, *, cursor: str = "", timeout: float | None = None) -> SessionHistory:  # noqa: A002
        """Asks what the last steps of a session gave, of whichever client; raises SessionNotFoundError.

        Looking on is no use of the session, as in `status`. The server keeps some hundred steps of each.

        Args:
            id: The session's id.
            cursor: That of an answer before, to get only what came after; empty for all that is kept.
            timeout: As in `create_session`.

        Example:
            >>> session = client.create_session(bw.sum(bw.parameter("w", [1.0, 2.0]) ** 2), bw.SGD(0.25))
            >>> losses = [session.train_step({}).loss for _ in range(3)]
            >>> losses == [each.loss for each in client.history(session.id).steps]
            True
        """
        return self._transport.naming(SESSION_KEY, id).send(_calls_client.history(id, cursor), timeout)

    def close(self) -> None:
        """Closes the connection, and ends the embedded server when there is one. Closing again does nothing."""
        if self._routes is not None:
            self._routes.close()
        self._transport.close()
        if self._server is not None:
            self._server.stop()

    def _session(self, info: SessionInfo, graph: Graph | None = None) -> Session:
        direct = None if self._routes is None else self._routes.to(info)
        return Session(direct or self._transport, info, graph)

    def __repr__(self) -> str:
        return f"<Client of {self.target}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
