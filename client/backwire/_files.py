"""Files of whole sessions: received so that a file is there wholly or not at all, and sent."""

import contextlib
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import BinaryIO

from backwire._errors import Code, InvalidRequestError
from backwire._errors_service import ServerError
from backwire_api.file_stream import CHUNK_BYTES, FileStreamError, decode_file, encode_file
from backwire_api.v1 import gradient_service_pb2 as service_pb2

File = str | os.PathLike[str] | BinaryIO
"""A path, or a file that was opened in binary mode and can seek."""


def receive(responses: Iterable[service_pb2.ExportSessionResponse], file: BinaryIO) -> None:
    """Writes the file that comes in the responses; raises ServerError when it does not come whole."""
    try:
        decode_file((response.chunk for response in responses), file)
    except FileStreamError as error:
        raise ServerError(f"the server sent a file that cannot be used: {error}", code=Code.DATA_LOSS) from None


def send(
    source: BinaryIO, start: int, head: service_pb2.ImportSessionRequest
) -> Iterator[service_pb2.ImportSessionRequest]:
    """Yields the requests that carry the file from byte `start` on; the first says what `head` does."""
    source.seek(start)
    for chunk in encode_file(iter(lambda: source.read(CHUNK_BYTES), b"")):
        request = service_pb2.ImportSessionRequest(chunk=chunk)
        if not chunk.offset:
            request.MergeFrom(head)
        yield request


def reading(source: File) -> AbstractContextManager[BinaryIO]:
    """Returns the file to read, as a context; raises InvalidRequestError for one that cannot seek."""
    if isinstance(source, str | os.PathLike):
        return open(source, "rb")
    _check(source)
    return contextlib.nullcontext(source)


@contextlib.contextmanager
def writing(target: File) -> Iterator[Callable[[], BinaryIO]]:
    """Gives what returns the file to write, each time as it was before anything was written to it.

    A path has the new file at the end of the context, or what it had before when the context fails. An open file is
    written from where it stands; raises InvalidRequestError for one that cannot seek.
    """
    if not isinstance(target, str | os.PathLike):
        _check(target)
        yield partial(_back_to, target, target.tell())
        return
    path = os.fspath(target)
    unfinished = f"{path}.{secrets.token_hex(4)}.partial"
    try:
        with open(unfinished, "xb") as file:
            yield partial(_back_to, file, 0)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(unfinished)
        raise


def _back_to(file: BinaryIO, start: int) -> BinaryIO:
    file.seek(start)
    file.truncate()
    return file


def _check(file: BinaryIO) -> None:
    if not file.seekable():
        raise InvalidRequestError(
            "the file cannot seek, so a transfer that broke off could not be repeated; use a path"
        )
