"""What the test double of the service does about leases, checkpoints, branches and files."""

from collections.abc import Callable, Iterator
from typing import Any

import grpc

from backwire_api import file_stream
from backwire_api.v1 import gradient_service_pb2 as service_pb2

MUTATIONS = ("Forward", "Backward", "Step", "TrainStep", "SetParameters", "ZeroGradients", "RestoreCheckpoint")

Refuse = Callable[..., Callable[[Any], None]]


class FakeDurability:
    """A mixin of FakeService.

    `file` is what sessions export, and what was imported last; `cuts` are used once each to end an export after a
    chunk; `refuse` makes refusals.
    """

    refuse: Refuse
    _serve: Callable[..., Any]
    _session: Callable[..., service_pb2.Session]
    sessions: dict[str, service_pb2.Session]

    def __init__(self) -> None:
        self.file = b""
        self.cuts: list[Callable[[Any], None]] = []
        self.saved: dict[str, service_pb2.Checkpoint] = {}
        self._leases = 0

    def check_lease(self, rpc: str, request: Any, context: Any) -> None:
        """Refuses a mutation by another than the writer."""
        reads = getattr(request, "mode", 0) == service_pb2.MODE_EVAL
        if rpc in MUTATIONS and not reads and request.session_id in self.sessions:
            lease = self.sessions[request.session_id].lease
            if lease.number not in (0, request.lease):
                fenced = self.refuse(grpc.StatusCode.ABORTED, f"held by {lease.holder}", reason="WRITER_FENCED")
                fenced(context)

    def AttachSession(self, request: Any, context: Any) -> Any:
        def apply() -> Any:
            session = self._session(request.session_id, context)
            if session.lease.number and not request.take_over:
                held = self.refuse(grpc.StatusCode.ABORTED, "held", reason="LEASE_HELD", retry_after=12.5)
                held(context)
            self._leases += 1
            lease = service_pb2.Lease(number=self._leases, holder=request.holder, timeout=request.timeout)
            session.lease.CopyFrom(lease)
            return service_pb2.AttachSessionResponse(lease=lease)

        return self._serve("AttachSession", request, context, apply)

    def DetachSession(self, request: Any, context: Any) -> Any:
        def apply() -> Any:
            session = self._session(request.session_id, context)
            if session.lease.number != request.number:
                self.refuse(grpc.StatusCode.ABORTED, "not the lease", reason="WRITER_FENCED")(context)
            session.ClearField("lease")
            return service_pb2.DetachSessionResponse()

        return self._serve("DetachSession", request, context, apply)

    def SaveCheckpoint(self, request: Any, context: Any) -> Any:
        def apply() -> Any:
            session = self._session(request.session_id, context)
            saved = service_pb2.Checkpoint(name=request.name, step=session.step, digest="ab" * 32, size_bytes=1_000)
            saved.create_time.FromSeconds(1_700_000_000)
            self.saved[request.name] = saved
            return service_pb2.SaveCheckpointResponse(checkpoint=saved)

        return self._serve("SaveCheckpoint", request, context, apply)

    def ListCheckpoints(self, request: Any, context: Any) -> Any:
        response = service_pb2.ListCheckpointsResponse(checkpoints=self.saved.values())
        return self._serve("ListCheckpoints", request, context, lambda: response)

    def DeleteCheckpoint(self, request: Any, context: Any) -> Any:
        def apply() -> Any:
            if self.saved.pop(request.name, None) is None:
                self.refuse(grpc.StatusCode.NOT_FOUND, "no such checkpoint", reason="CHECKPOINT_NOT_FOUND")(context)
            return service_pb2.DeleteCheckpointResponse()

        return self._serve("DeleteCheckpoint", request, context, apply)

    def RestoreCheckpoint(self, request: Any, context: Any) -> Any:
        def apply() -> Any:
            session = self._session(request.session_id, context)
            named = request.WhichOneof("target") == "name"
            found = self.saved[request.name] if named else service_pb2.Checkpoint(step=request.step)
            session.step = found.step
            return service_pb2.RestoreCheckpointResponse(checkpoint=found)

        return self._serve("RestoreCheckpoint", request, context, apply)

    def ForkSession(self, request: Any, context: Any) -> Any:
        def apply() -> Any:
            branch = service_pb2.Session()
            branch.CopyFrom(self._session(request.session_id, context))
            branch.ClearField("lease")
            return service_pb2.ForkSessionResponse(session=self._added(branch))

        return self._serve("ForkSession", request, context, apply)

    def MoveSession(self, request: Any, context: Any) -> Any:
        def apply() -> Any:
            self._session(request.session_id, context)
            return service_pb2.MoveSessionResponse(address=f"{request.replica}.example:50051")

        return self._serve("MoveSession", request, context, apply)

    def ExportSession(self, request: Any, context: Any) -> Iterator[Any]:
        self._serve("ExportSession", request, context, lambda: None)
        for chunk in file_stream.encode_file([self.file]):
            yield service_pb2.ExportSessionResponse(chunk=chunk)
            if self.cuts:
                self.cuts.pop()(context)

    def ImportSession(self, requests: Any, context: Any) -> Any:
        messages = list(requests)

        def apply() -> Any:
            self.file = b"".join(each.chunk.data for each in messages)
            session = service_pb2.Session(durability=messages[0].durability)
            session.create_time.FromSeconds(1_700_000_000)
            return service_pb2.ImportSessionResponse(session=self._added(session))

        return self._serve("ImportSession", messages[0], context, apply)

    def _added(self, session: service_pb2.Session) -> service_pb2.Session:
        session.session_id = f"session-{len(self.sessions)}"
        self.sessions[session.session_id] = session
        return session
