"""What hostile bytes are given to: each target takes bytes, and may raise nothing but errors that calls end with."""

import os
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import DecodeError, Message
from tests.fuzz import calling, drawing, draws
from tests.fuzz.draws import Draw
from tests.fuzz.scripts import SCRIPTS
from tests.graphs import dot_graph

from backwire_api import chunk_stream, file_stream, tensors, wire
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_api.v1 import tensor_pb2
from backwire_server.config_parts import Capacity
from backwire_server.engine.plan_cache import PlanCache
from backwire_server.messages import fields
from backwire_server.messages.graph import graph_from_proto
from backwire_server.messages.optimizer import optimizer_from_proto
from backwire_server.rpc.server import Server
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.spec import SessionSpec
from backwire_server.sessions.store.paging import PageTokens
from backwire_server.storage import carrier
from backwire_server.storage.checkpoints.tensorfile import tensor_parts
from backwire_server.storage.journal import segment, segment_scan

Target = Callable[[bytes], None]

LIMITS = Limits()
KINDS: list[type[Message]] = [
    getattr(pb, name) for name in sorted(pb.DESCRIPTOR.message_types_by_name) if name.endswith(("Request", "Response"))
]
UNARY = ("CreateSession", "GetSession", "ListSessions", "DeleteSession", "Forward", "Backward", "Step", "TrainStep")
SECONDS = 60.0
"""How long a request waits for its answer; that it is computed in time is measured by what it takes of a processor."""
UNFORESEEN = (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.DEADLINE_EXCEEDED)
_TOKENS = PageTokens()


def codec(data: bytes) -> None:
    """Reads a message of any kind as protobuf does, also when it is scanned, and writes it back."""
    draw = Draw(data)
    kind, rest = draw.one(KINDS), draw.rest()
    try:
        expected = kind.FromString(rest)
    except DecodeError:
        expected = None
    for least in (0, wire.SCANNED_FROM):
        before, wire.SCANNED_FROM = wire.SCANNED_FROM, least
        try:
            found = wire.decode(kind, rest)
        except DecodeError:
            assert expected is None, "protobuf reads it"
        else:
            assert expected is not None, "protobuf does not read it"
            again = kind.FromString(wire.encode(found))
            assert _plain(again) == _plain(expected), "it changed"
        finally:
            wire.SCANNED_FROM = before


def _plain(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)


def tensor(data: bytes) -> None:
    """Decodes a Tensor message; what is decoded is encoded as it was."""
    draw = Draw(data)
    shape = [draw.one(draws.SIZES) if draw.below(2) else draw.below(5) for _ in range(draw.below(36))]
    message = tensor_pb2.Tensor(dtype=draw.below(18), shape=shape, data=draw.rest())  # type: ignore[arg-type]
    assert tensors.encode(tensors.decode(message)) == message, "it changed"


def chunks(data: bytes) -> None:
    """Assembles chunks of tensors, each with something in it that may be wrong."""
    draw = Draw(data)
    sent = []
    for number in range(draw.below(4)):
        array = np.frombuffer(bytes(draw.below(256) for _ in range(draw.below(40))), np.uint8)
        for head, part in chunk_stream.encode_chunks(f"t{draw.below(2) * number}", array):
            match draw.below(8):
                case 0:
                    head.offset = draw.one(draws.SIZES[:5])
                case 1:
                    head.shape[:] = [draw.one(draws.SIZES) for _ in range(draw.below(5))]
                case 2:
                    head.crc32 = draw.below(65_536)
                case 3:
                    head.dtype = draw.below(18)  # type: ignore[assignment]
                case _:
                    pass
            sent.append((head, bytes(tensors.buffer(part))[: draw.below(256)]))
    dict(chunk_stream.decode_chunks(sent, 1 << 20))


def route(data: bytes) -> None:
    """Reads the id of a session from a message as protobuf does, where that is sure of it."""
    found = fields.text(data, 1)
    fields.text_within(data, range(2, 12), 1)
    fields.number(data)
    try:
        message = pb.GetSessionRequest.FromString(data)
    except DecodeError:
        return
    if _plain(message) == data:  # otherwise the field may come twice, of which protobuf takes the last
        assert found == message.session_id, "protobuf reads another id"


def graph(data: bytes) -> None:
    """Takes a graph as CreateSession does, up to where memory is taken."""
    message = drawing.graph(Draw(data))
    found, sources = graph_from_proto(message, LIMITS)
    spec = SessionSpec(found, sources)
    spec.check(LIMITS)
    assert spec.state_bytes >= 0, "it has negative bytes"
    PlanCache(found)


def optimizer(data: bytes) -> None:
    """Takes an optimizer."""
    optimizer_from_proto(drawing.optimizer(Draw(data)))


def imported(data: bytes) -> None:
    """Unpacks a file that came for an import: any bytes, or those of a true header with some changed."""
    with tempfile.NamedTemporaryFile(dir=_folder()) as file:
        file.write(data)
        file.flush()
        carrier.FileCarrier(LIMITS).unpack(file.name)


def page(data: bytes) -> None:
    """Reads a page token."""
    _TOKENS.read(data.decode(errors="replace"))


def journal(data: bytes) -> None:
    """Scans a segment of a journal, and reads the records that were found."""
    draw = Draw(data)
    last = bool(draw.below(2))
    path = Path(_folder(), segment.file_name(1))
    path.write_bytes((segment.MAGIC if draw.below(4) else b"") + draw.rest())
    found = segment_scan.scan(path, last=last)
    assert found.end + found.torn == path.stat().st_size, "bytes are missing"
    list(segment_scan.bodies(path, found.spans))


def service(data: bytes) -> None:
    """Does with a session what a client may do; the session of another is as before."""
    draw = Draw(data)
    draw.one(SCRIPTS)(calling.service(), draw)
    calling.service().check()
    calling.service().clean()


def socket(data: bytes) -> None:
    """Sends a request to a real server in this process."""
    draw = Draw(data)
    channel = _server()
    method = draw.one((*UNARY, "Pipeline"))
    if method == "CreateSession" and draw.below(2):
        payload = pb.CreateSessionRequest(graph=drawing.graph(draw)).SerializeToString()
    else:
        payload = draw.rest()
    path = f"/backwire_api.v1.GradientService/{method}"
    code = grpc.StatusCode.OK
    try:
        if method == "Pipeline":
            middle = len(payload) // 2
            list(channel.stream_stream(path)(iter((payload[:middle], payload[middle:])), timeout=SECONDS))
        else:
            channel.unary_unary(path)(payload, timeout=SECONDS)
    except grpc.RpcError as error:
        code = error.code()
    assert code not in UNFORESEEN, f"{method} ended with {code}"


def files(data: bytes) -> None:
    """Receives a file in chunks that may be wrong."""
    draw = Draw(data)
    sent = [
        pb.FileChunk(
            offset=draw.below(4), data=bytes(draw.below(4)), last=bool(draw.below(2)), crc32=draw.below(65_536)
        )
        for _ in range(draw.below(5))
    ]
    with open(os.devnull, "wb") as file:
        try:
            file_stream.decode_file(sent, file, 8)
        except file_stream.FileStreamError:
            return


@cache
def _folder() -> str:
    return tempfile.mkdtemp(prefix="backwire-fuzz-")


@cache
def _server() -> Any:
    server = Server(f"unix:{_folder()}/socket", Limits(max_sessions=64), Capacity())
    channel = grpc.insecure_channel(server.address)
    _KEPT.append(server)
    return channel


_KEPT: list[Any] = []

TARGETS: Mapping[str, Target] = {
    "codec": codec,
    "tensor": tensor,
    "chunks": chunks,
    "files": files,
    "route": route,
    "graph": graph,
    "optimizer": optimizer,
    "import": imported,
    "page": page,
    "journal": journal,
    "service": service,
    "socket": socket,
}


def seeds(name: str) -> list[bytes]:
    """Returns inputs for a target to begin with."""
    definition = np.frombuffer(pb.CreateSessionRequest(graph=dot_graph()).SerializeToString(), np.uint8)
    parts = tensor_parts({carrier.DEFINITION: definition}, {"format": carrier.FORMAT})
    whole = b"".join(bytes(tensors.buffer(part)) for part in parts)
    record = b"".join(map(tensors.buffer, segment.framed([b"\x08\x01\x10\x01"])))
    known = {
        "import": [whole],
        "journal": [b"\1\1" + record],
        "page": [_TOKENS.issue(7).encode()],
        "graph": [number.to_bytes(2, "big") + bytes(30) for number in range(len(drawing.SAMPLES))],
        "service": [
            bytes([script]) + bytes(range(start, start + 60)) for script in range(4) for start in range(0, 196, 28)
        ],
    }
    return known.get(name, [bytes(64), bytes(range(256))])
