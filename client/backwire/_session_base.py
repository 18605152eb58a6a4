"""SessionBase: where a session stands, who may write to it, and the states of it that are kept."""

import contextlib
import os
from types import TracebackType
from typing import Self

from backwire import _files
from backwire._builder._graph import Graph
from backwire._errors import BackwireError
from backwire._errors_session import SessionNotFoundError
from backwire._files import File
from backwire._info import CheckpointInfo, SessionInfo
from backwire._lease import Lease
from backwire._session_state import SessionState
from backwire._wire import _calls_state
from backwire._wire._transport import Transport
from backwire._wire._transport_base import SESSION_KEY


class SessionBase(SessionState):
    """What a session is besides its training; see `Session`."""

    def __init__(self, transport: Transport, info: SessionInfo, graph: Graph | None = None) -> None:
        """Speaks for the session that `info` describes, and that trains `graph` if that is known here."""
        super().__init__(info, graph)
        self._transport = transport.naming(SESSION_KEY, info.id)

    def info(self, *, timeout: float | None = None) -> SessionInfo:
        """Asks the server where the session stands."""
        return self._transport.send(_calls_state.info(self), timeout)

    def digest(self, *, timeout: float | None = None) -> str:
        """Asks for the digest of the state, which takes its turn among other calls and reads all of it.

        It is SHA-256 in hexadecimal over parameters, accumulated gradients, the optimizer's memory and step number:
        sessions with the same digest have the same bits.

        Example:
            >>> w = bw.parameter("w", [1.0, 2.0])
            >>> one, other = (client.create_session(bw.sum(w * w), bw.Adam(0.1)) for _ in range(2))
            >>> result = one.train_step({}, digest=True)
            >>> one.digest() == result.digest, one.digest() == other.digest()
            (True, False)
            >>> _ = other.train_step({})
            >>> one.digest() == other.digest()
            True
        """
        return self._transport.send(_calls_state.info(self, digest=True), timeout)

    def attach(
        self,
        *,
        holder: str | None = None,
        lease_timeout: float = 30.0,
        take_over: bool = False,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Lease:
        """Makes this object the only writer of the session, until the lease that it returns is given back.

        All mutations by this object carry the lease from now on, those of its pipelines too; those of others are
        refused with WriterFencedError, also when they were on their way. Everybody may still read.

        Args:
            holder: Who this is, for others to read; by default the host and the process.
            lease_timeout: How many seconds this client may be silent before another may have the lease. Every call
                that carries it counts.
            take_over: True takes the lease although another client holds it.
            request_id: See `Session`.
            timeout: See `Session`.

        Raises:
            LeaseHeldError: Another client holds the lease and was heard of lately.

        Example:
            >>> loss = bw.squared_error(bw.parameter("w", 0.0), 1.0)
            >>> session = client.create_session(loss, bw.SGD(0.25))
            >>> other = client.session(session.id)
            >>> with session.attach(holder="trainer-1"):
            ...     _ = session.train_step({})
            ...     try:
            ...         other.train_step({})
            ...     except bw.WriterFencedError as error:
            ...         print("trainer-1" in str(error))
            True
            >>> other.train_step({}).step
            2
        """
        call = _calls_state.attach(
            self, holder=holder, lease_timeout=lease_timeout, take_over=take_over, request_id=request_id
        )
        given = self._transport.send(call, timeout)
        self._lease = given.number
        return Lease(self, given)

    def save_checkpoint(
        self, name: str, *, request_id: str | None = None, timeout: float | None = None
    ) -> CheckpointInfo:
        """Writes the state to the server's disk under a name, in place of a checkpoint of the same name.

        It stays until it is deleted, or the session is.

        Args:
            name: 1 to 64 letters, digits, `-`, `_` and `.`, the first a letter or a digit.
            request_id: See `Session`.
            timeout: See `Session`.

        Raises:
            NotDurableError: The session is kept in memory alone.

        Example:
            >>> loss = bw.squared_error(bw.parameter("w", 0.0), 1.0)
            >>> session = client.create_session(loss, bw.SGD(0.25), durability="journal")
            >>> saved = session.save_checkpoint("start")
            >>> session.train_step({}).step
            1
            >>> session.restore_checkpoint("start").digest == saved.digest == session.digest()
            True
            >>> session.info().step
            0
        """
        return self._transport.send(_calls_state.save_checkpoint(self, name, request_id), timeout)

    def checkpoints(self, *, timeout: float | None = None) -> list[CheckpointInfo]:
        """Asks for the checkpoints on the server's disk, oldest first, also those that the server made by itself."""
        return self._transport.send(_calls_state.checkpoints(self), timeout)

    def restore_checkpoint(
        self, name: str, *, request_id: str | None = None, timeout: float | None = None
    ) -> CheckpointInfo:
        """Takes the session back to what it was at `save_checkpoint`, bit by bit, which the digest proves.

        Step number, accumulated gradients and the optimizer's memory go back, too. Passes that are alive expire.

        Raises:
            CheckpointNotFoundError: The session has none of this name.
        """
        return self._transport.send(_calls_state.restore(self, name, request_id), timeout)

    def rewind(self, step: int, *, request_id: str | None = None, timeout: float | None = None) -> CheckpointInfo:
        """Takes the session back to what it was right after a step, as `restore_checkpoint` does.

        Steps go back to the first after the oldest checkpoint in `checkpoints` that has no name, or to that of this
        checkpoint if it was made right after it.

        Raises:
            CheckpointNotFoundError: Nothing that is kept leads to this step.
        """
        return self._transport.send(_calls_state.restore(self, step, request_id), timeout)

    def delete_checkpoint(self, name: str, *, request_id: str | None = None, timeout: float | None = None) -> None:
        """Deletes what `save_checkpoint` wrote; raises CheckpointNotFoundError when there is none of this name."""
        self._transport.send(_calls_state.delete_checkpoint(self, name, request_id), timeout)

    def fork(self, *, request_id: str | None = None, timeout: float | None = None) -> Self:
        """Returns a new session with the state of this one, which goes its own way from now on.

        It is as durable, and has neither the lease nor the checkpoints by name. Takes no time that depends on the size.

        Example:
            >>> loss = bw.squared_error(bw.parameter("w", 0.0), 1.0)
            >>> session = client.create_session(loss, bw.SGD(0.25))
            >>> branch = session.fork()
            >>> branch.train_step({}).step, session.info().step
            (1, 0)
        """
        found = self._transport.send(_calls_state.fork(self, request_id), timeout)
        return type(self)(self._transport, found, self._graph)

    def move(self, replica: str, *, timeout: float | None = None) -> None:
        """Has another of the servers that share a data directory have the session, by the name of its `--replica`.

        Calls in progress, on other clients too, go on there, and none is lost. Raises InvalidRequestError when no such
        server lives, or the server shares its directory with none, UnavailableError when that server has given no sign
        of life of late, and NotDurableError for a session in memory alone.
        """
        self._transport.send(_calls_state.move(self, replica), timeout)

    def export(self, file: File, *, timeout: float | None = None) -> None:
        """Writes the whole session to a file: graph, parameters, gradients, optimizer's memory, step and seed.

        `Client.import_session` makes a session of it that goes on from the same bits, on any server. The file is in the
        safetensors format, which many tools read.

        Args:
            file: A path, which has the new file in the end or what it had before; or a file that was opened in binary
                mode, which is written from where it stands and must be able to seek.
            timeout: See `Session`.

        Example:
            >>> import io
            >>> loss = bw.squared_error(bw.parameter("w", 0.0), 1.0)
            >>> session = client.create_session(loss, bw.Adam(0.25))
            >>> _ = session.train_step({})
            >>> file = io.BytesIO()
            >>> session.export(file)
            >>> _ = file.seek(0)
            >>> client.import_session(file).digest() == session.digest()
            True
        """
        with _files.writing(file) as restart:
            self._transport.receive(_calls_state.export(self, restart), timeout)

    def save(self, path: str | os.PathLike[str], *, timeout: float | None = None) -> None:
        """Writes the whole session to a file, from which `Client.load` makes another: `export` to a path."""
        self.export(path, timeout=timeout)

    def close(self, *, request_id: str | None = None, timeout: float | None = None) -> None:
        """Deletes the session on the server, with all that it holds; does nothing when it is gone already."""
        if self._closed:
            return
        with contextlib.suppress(SessionNotFoundError):
            self._transport.send(_calls_state.delete(self, request_id), timeout)
        self._closed = True

    def _detach(self, lease: Lease, request_id: str | None, timeout: float | None) -> None:
        if self._closed or self._lease != lease.number:
            return
        self._transport.send(_calls_state.detach(self, lease.number, request_id), timeout)
        self._lease = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.close()
        except BackwireError:
            if error is None:
                raise
