"""Checkpoints: everything that a session is at one moment, as a file."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from backwire_api.v1 import storage_pb2
from backwire_server.sessions.training.state import Arrays, Image, PassImage, State
from backwire_server.storage.checkpoints import state_file
from backwire_server.storage.checkpoints.answers import decode_request, encode_request
from backwire_server.storage.checkpoints.tensorfile import TensorFile
from backwire_server.storage.damage import Damaged
from backwire_server.storage.disk import damaged
from backwire_server.storage.journal.mutations import (
    forward_from_proto,
    forward_to_proto,
    lease_from_proto,
    lease_to_proto,
)

FORMAT = "backwire-checkpoint-1"
SESSION = "session"


def image_content(image: Image, record: int, created: float) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns the tensors and the metadata of a checkpoint of the image, as `tensor_parts` takes them.

    Most tensors are the image's own arrays, which must stay as they are. `record` is the number of the last record of
    the journal that the image contains, and `created` is in seconds since 1970.
    """
    metadata = {"format": FORMAT, **state_file.state_metadata(image.state)}
    metadata |= {"record": str(record), "created": repr(created)}
    others = _others(image)
    metadata[state_file.SEAL] = state_file.seal(metadata, others)
    return {**state_file.state_arrays(image.state), **others}, metadata


def read_image(path: str | os.PathLike[str]) -> tuple[Image, dict[str, str]]:
    """Returns the image that a checkpoint holds, and the metadata of the file.

    Arrays have memory of their own; those of passes made with the same parameters are the same. Raises
    SessionQuarantined for a file that is not, to the bit, what was written; OSError when it cannot be read.
    """
    try:
        with TensorFile(path) as file:
            state_file.check_format(file, FORMAT)
            others = state_file.read_others(file)
            return _image(state_file.read_state(file), others), file.metadata
    except Damaged as damage:
        raise damaged(Path(path), str(damage)) from None


def _others(image: Image) -> dict[str, Any]:
    """Returns what a checkpoint has besides the state: a SessionRecord, and the tensors of the messages in it."""
    record = storage_pb2.SessionRecord()
    tensors: dict[str, Any] = {}
    versions: list[Arrays] = [image.state.parameters]
    for place, each in enumerate(image.passes, 1):
        version = _version(versions, each.parameters)
        own = record.passes.add(name=each.name, number=each.number, step=each.step, version=version)
        forward_to_proto(each.call, own.forward)
        tensors |= _named(f"passes/{place}/", each.call.inputs)
    for place, values in enumerate(versions[1:], 1):
        tensors |= _named(f"versions/{place}/", _differing(image.state.parameters, values))
    for place, request in enumerate(image.requests, 1):
        message, arrays = encode_request(request)
        record.requests.append(message)
        tensors |= _named(f"answers/{place}/", arrays)
    if image.lease is not None:
        lease_to_proto(image.lease, record.lease)
    return {SESSION: np.frombuffer(record.SerializeToString(), np.uint8), **tensors}


def _version(versions: list[Arrays], parameters: Arrays) -> int:
    """Returns which of the versions has these very arrays, and adds one where none has."""
    for place, known in enumerate(versions):
        if known is parameters or all(known.get(name) is array for name, array in parameters.items()):
            return place
    versions.append(parameters)
    return len(versions) - 1


def _differing(known: Arrays, values: Arrays) -> Arrays:
    """Returns those of the values that are not the very array that is known."""
    return {name: array for name, array in values.items() if array is not known.get(name)}


def _named(prefix: str, arrays: Arrays) -> dict[str, Any]:
    return {prefix + name: array for name, array in arrays.items()}


def _image(state: State, others: Mapping[str, Any]) -> Image:
    record = _session_record(others)
    groups = _grouped(others)
    versions: dict[int, Arrays] = {0: state.parameters}
    passes = []
    for place, each in enumerate(record.passes, 1):
        if each.version not in versions:
            versions[each.version] = {**state.parameters, **groups.get(f"versions/{each.version}", {})}
        call = forward_from_proto(each.forward, groups.get(f"passes/{place}", {}))
        passes.append(PassImage(each.name, call, each.number, each.step, versions[each.version]))
    requests = [
        decode_request(each, groups.get(f"answers/{place}", {})) for place, each in enumerate(record.requests, 1)
    ]
    return Image(state, passes, requests, lease_from_proto(record.lease) if record.HasField("lease") else None)


def _session_record(others: Mapping[str, Any]) -> storage_pb2.SessionRecord:
    try:
        return storage_pb2.SessionRecord.FromString(others[SESSION].tobytes())
    except (KeyError, DecodeError):
        raise Damaged(f"its tensor {SESSION!r} does not tell of passes and requests") from None


def _grouped(others: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the tensors by the first two parts of their names, and then by the rest."""
    groups: dict[str, dict[str, Any]] = {}
    for name, array in others.items():
        kind, _, rest = name.partition("/")
        place, _, rest = rest.partition("/")
        groups.setdefault(f"{kind}/{place}", {})[rest] = array
    return groups
