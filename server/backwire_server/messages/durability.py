"""What outlives a process, as the contract tells it: levels of durability, leases, checkpoints."""

import re

from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.messages.calls import known
from backwire_server.messages.request_keys import checked_id
from backwire_server.sessions.calls import CheckpointInfo, LeaseCall
from backwire_server.sessions.errors import InvalidRequest
from backwire_server.sessions.keeping.durable import Durability

LEASE_SECONDS = 30.0
"""How long the holder of a lease may be silent where the request does not say."""
LONGEST_LEASE = 365 * 86_400.0
"""How long it may ask to be silent, in seconds."""

_LEVELS = {
    pb.DURABILITY_UNSPECIFIED: None,
    pb.DURABILITY_MEMORY: Durability.MEMORY,
    pb.DURABILITY_JOURNAL: Durability.JOURNAL,
    pb.DURABILITY_FSYNC: Durability.FSYNC,
}
_NUMBERS = {level: number for number, level in _LEVELS.items()}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


def durability_of(number: pb.Durability.ValueType) -> Durability | None:
    """Returns the level, None for that of the server; raises InvalidRequest for one that does not exist."""
    return known(_LEVELS, number, "durability")


def durability_to_proto(level: Durability) -> pb.Durability.ValueType:
    """Returns the number of the level."""
    return _NUMBERS[level]


def lease_terms(request: pb.AttachSessionRequest) -> tuple[str, float]:
    """Returns who asks for a lease, and how many seconds they may be silent; raises InvalidRequest."""
    holder = checked_id(request.holder, "holder")
    if not holder:
        raise InvalidRequest("the holder of the lease has no name; give one, such as the host's", field="holder")
    seconds = request.timeout.ToNanoseconds() / 1e9 if request.HasField("timeout") else LEASE_SECONDS
    if not seconds > 0:
        raise InvalidRequest(f"a lease of {seconds:g} s runs out at once; give a timeout above 0", field="timeout")
    if seconds > LONGEST_LEASE:
        raise InvalidRequest(
            f"a lease of {seconds:g} s is longer than {LONGEST_LEASE:g} s, the most; give a shorter timeout",
            field="timeout",
        )
    return holder, seconds


def lease_to_proto(lease: LeaseCall) -> pb.Lease | None:
    """Returns the message; None for a lease that was given back."""
    if not lease.holder:
        return None
    message = pb.Lease(number=lease.number, holder=lease.holder)
    message.timeout.FromNanoseconds(round(lease.seconds * 1e9))
    return message


def checkpoint_name(name: str) -> str:
    """Returns a name that a checkpoint may have; raises InvalidRequest for another."""
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name[:64]!r} is no name for a checkpoint; use 1 to 64 letters, digits, '-', '_' and '.', the first a "
            "letter or a digit",
            field="name",
        )
    return name


def restore_target(request: pb.RestoreCheckpointRequest) -> tuple[str, int | None]:
    """Returns the name of the checkpoint to go back to and None, or an empty name and the step; or InvalidRequest."""
    target = request.WhichOneof("target")
    if target is None:
        raise InvalidRequest("the request does not say where to go back to; set name or step", field="target")
    if target == "name":
        return checkpoint_name(request.name), None
    if request.step < 0:
        raise InvalidRequest(f"there is no step {request.step}; give 0 or more", field="step")
    return "", request.step


def checkpoint_to_proto(info: CheckpointInfo) -> pb.Checkpoint:
    """Returns the message."""
    message = pb.Checkpoint(name=info.name, step=info.step, digest=info.digest, size_bytes=info.size)
    message.create_time.FromNanoseconds(int(info.created * 1e9))
    return message
