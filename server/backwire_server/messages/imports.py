"""Receives a session that travels as a file."""

from collections.abc import Iterable, Iterator

from backwire_api.file_stream import FileStreamError, decode_file
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.sessions.errors import InvalidExport, InvalidRequest, StorageFailed
from backwire_server.sessions.limits import Limits, MiB

COPIES = 8  # of all parameters, at most: values, gradients, the optimizer's memory and averages, with room to spare
HEAD_BYTES = 64 * MiB  # for all that is no parameter


def receive(
    head: pb.ImportSessionRequest, requests: Iterable[pb.ImportSessionRequest], path: str, limits: Limits
) -> pb.ImportSessionRequest:
    """Writes the file in a stream that begins with `head` to a path.

    Returns what the request says besides, with the file's size and checksum for its bytes. Raises InvalidExport for a
    file that did not come whole, and StorageFailed when it cannot be written.
    """
    most = COPIES * limits.max_parameter_bytes + HEAD_BYTES
    try:
        with open(path, "wb") as file:
            chunk = decode_file(_chunks(head, requests), file, most)
    except FileStreamError as error:
        raise InvalidExport(str(error), field="chunk") from None
    except OSError as error:
        raise StorageFailed(
            f"the file could not be received: {error.strerror}; make room on the server's disk, and send it again",
            retry_after=1.0,
        ) from error
    return pb.ImportSessionRequest(request_id=head.request_id, durability=head.durability, chunk=chunk)


def _chunks(head: pb.ImportSessionRequest, requests: Iterable[pb.ImportSessionRequest]) -> Iterator[pb.FileChunk]:
    for request in requests:
        if request.request_id not in ("", head.request_id) or request.durability not in (0, head.durability):
            raise InvalidRequest("request_id or durability changes within the stream; set them on the first message")
        yield request.chunk
