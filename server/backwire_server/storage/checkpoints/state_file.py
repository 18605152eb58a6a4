"""The state of a session as tensors and metadata of a file, with its digest, and a seal over all else in the file."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from backwire_api.tensors import buffer
from backwire_server.sessions.training.scaling import LossScale
from backwire_server.sessions.training.state import Arrays, State
from backwire_server.storage.checkpoints.tensorfile import TensorFile, raw_bytes
from backwire_server.storage.damage import Damaged

PARAMETERS, GRADIENTS, OPTIMIZER = "parameters/", "gradients/", "optimizer/"
SEAL = "seal"
SCALE, GOOD_STEPS = "loss_scale", "good_steps"

_GROUPS = (PARAMETERS, GRADIENTS, OPTIMIZER)
_MOST = 2**63 - 1


def state_arrays(state: State) -> dict[str, Any]:
    """Returns all arrays of the state by their names in a file."""
    found = {PARAMETERS + name: array for name, array in state.parameters.items()}
    found |= {GRADIENTS + name: array for name, array in state.gradients.items()}
    for memory, arrays in state.memory.items():
        found |= {f"{OPTIMIZER}{memory}/{name}": array for name, array in arrays.items()}
    return found


def state_metadata(state: State) -> dict[str, str]:
    """Returns all else of the state, with its digest, for which all of it is read."""
    scaling = state.scaling
    scaled = {} if scaling is None else {SCALE: scaling.value.hex(), GOOD_STEPS: str(scaling.good_steps)}
    return {
        **scaled,
        "step": str(state.step),
        "forwards": str(state.forwards),
        "contributions": str(state.contributions),
        "total_weight": state.total_weight.hex(),
        "digest": state.digest(),
    }


def is_state(name: str) -> bool:
    """Tells whether a tensor of this name is part of the state."""
    return name.startswith(_GROUPS)


def read_state(file: TensorFile, names: Iterable[str] | None = None) -> State:
    """Returns the state in a file, its arrays in the order of these names, None for that of the header.

    Raises Damaged when it is incomplete, or its digest is not the one it was written with.
    """
    metadata = file.metadata
    groups: dict[str, dict[str, Any]] = {PARAMETERS: {}, GRADIENTS: {}}
    memory: dict[str, dict[str, Any]] = {}
    for name in filter(is_state, file.places if names is None else names):
        group, _, rest = name.partition("/")
        arrays = groups.get(group + "/")
        if arrays is None:
            memory_name, _, rest = rest.partition("/")
            arrays = memory.setdefault(memory_name, {})
        arrays[rest] = file.read(name)
    try:
        step, forwards, contributions = (_count(metadata[key]) for key in ("step", "forwards", "contributions"))
        weight = float.fromhex(metadata["total_weight"])
        scaling = _scaling(metadata)
    except (KeyError, ValueError, OverflowError) as error:
        raise Damaged(f"its metadata do not tell the state: {error}") from None
    state = State(step, forwards, contributions, weight, groups[PARAMETERS], groups[GRADIENTS], memory, scaling)
    if (found := state.digest()) != metadata.get("digest"):
        raise Damaged(f"its state has the digest {found}, not {metadata.get('digest')}, which it was written with")
    return state


def seal(metadata: Mapping[str, str], others: Arrays) -> str:
    """Returns the SHA-256, in hexadecimal, of what the digest of the state does not cover.

    That is all metadata but the seal, sorted by name, and then the name, dtype, shape and bytes of the tensors that are
    no part of the state, in the order of the header. Texts and bytes are preceded by their length as 8 bytes.
    """
    found = hashlib.sha256()
    for key in sorted(metadata.keys() - {SEAL}):
        _add(found, key.encode(), metadata[key].encode())
    for name, array in others.items():
        _add(found, name.encode(), f"{array.dtype.name}{list(array.shape)}".encode(), buffer(raw_bytes(array)))
    return found.hexdigest()


def read_others(file: TensorFile) -> dict[str, Any]:
    """Returns the tensors that are no part of the state; raises Damaged when the seal is not theirs."""
    others = {name: file.read(name) for name in file.places if not is_state(name)}
    if seal(file.metadata, others) != file.metadata.get(SEAL):
        raise Damaged("its metadata, or tensors besides the state, are not those that it was written with")
    return others


def check_format(file: TensorFile, expected: str) -> None:
    """Raises Damaged for a file of another format."""
    if (found := file.metadata.get("format")) != expected:
        raise Damaged(f"its format is {found!r:.100}, not {expected!r}")


def _scaling(metadata: Mapping[str, str]) -> LossScale | None:
    if SCALE not in metadata:
        return None
    return LossScale(float.fromhex(metadata[SCALE]), _count(metadata[GOOD_STEPS]))


def _count(text: str) -> int:
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else -1
    if not 0 <= number <= _MOST:
        raise ValueError(f"{text!r:.40} is no count")
    return number


def _add(found: Any, *pieces: bytes | memoryview) -> None:
    for piece in pieces:
        found.update(len(piece).to_bytes(8, "little"))
        found.update(piece)
