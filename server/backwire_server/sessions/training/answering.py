"""How large an answer may be."""

from collections.abc import Mapping

from backwire_server.sessions.errors import MessageTooLarge
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.training.versions import Array

ENVELOPE_BYTES = 1_024  # what a tensor's name, shape and framing add to its bytes, at most, besides the name


def check_answer(arrays: Mapping[str, Array], limits: Limits, *, chunked: bool) -> None:
    """Raises MessageTooLarge when tensors do not fit into an answer, which is one message unless it is `chunked`."""
    nbytes = sum([len(name) * 4 + array.nbytes + ENVELOPE_BYTES for name, array in arrays.items()])
    if chunked and nbytes > limits.max_pass_bytes:
        raise MessageTooLarge(
            f"the tensors of the answer hold {nbytes:,} bytes, but the limit is "
            f"{limits.max_pass_bytes:,}; ask for fewer tensors, or use a smaller batch",
            quota="max_pass_bytes",
        )
    if not chunked and nbytes > limits.max_message_bytes - ENVELOPE_BYTES:
        raise MessageTooLarge(
            f"the tensors of the answer hold {nbytes:,} bytes, but a message may have "
            f"{limits.max_message_bytes:,}; use Pipeline, ask for fewer tensors, or use a smaller batch",
            quota="max_message_bytes",
        )
