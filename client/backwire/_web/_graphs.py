"""The graph of a session that another client may have made, found in the file that the session exports."""

import json
import math
import tempfile
from typing import BinaryIO

from google.protobuf.message import DecodeError

from backwire._client import Client
from backwire._errors import Code, ServerError, TooLargeError
from backwire._graph import Graph
from backwire_api.v1 import gradient_service_pb2 as service_pb2

MOST_BYTES = 64 * 2**20
"""The most that the parameters of a session may have for it to be exported for its graph alone."""

_DEFINITION = "definition"
_LENGTH_BYTES = 8


def graph_of(client: Client, session_id: str, most_bytes: int = MOST_BYTES) -> Graph:
    """Returns the graph of a session, for which the session is exported: a use of it, which may wake it.

    Raises SessionNotFoundError; TooLargeError for a session with too many parameters; ServerError for a file that is
    not what docs/storage.md says.
    """
    session = client.session(session_id)
    nbytes = sum(math.prod(each.shape) * each.dtype.itemsize for each in session.info().parameters)
    if nbytes > most_bytes:
        raise TooLargeError(
            f"session {session_id} has {nbytes:,} bytes of parameters, and at most {most_bytes:,} are fetched for a "
            "graph; draw the model with `backwire graph`"
        )
    with tempfile.TemporaryFile() as file:
        session.export(file)
        file.seek(0)
        return Graph(_definition(file).graph)


def _definition(file: BinaryIO) -> service_pb2.CreateSessionRequest:
    try:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        begin, end = json.loads(file.read(length))[_DEFINITION]["data_offsets"]
        file.seek(_LENGTH_BYTES + length + begin)
        return service_pb2.CreateSessionRequest.FromString(file.read(end - begin))
    except (ValueError, KeyError, TypeError, DecodeError):
        raise ServerError(
            "the server exported a session without a definition that can be read; use a client of its version",
            code=Code.DATA_LOSS,
        ) from None
