"""The digest of a state is the same for the same bits, and another for any other."""

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from backwire_server.sessions.training.scaling import LossScale
from backwire_server.sessions.training.state import Arrays, State

W, C = np.array([[1.5, -2.0]], np.float32), np.array([7, 8], np.int32)
STATE = State(3, 5, 2, 2.5, {"w": W, "c": C}, {"w": W * 2}, {"mean": {"w": W * 3}, "square": {"w": W * 4}})


def test_the_digest_is_what_the_documentation_says() -> None:
    def framed(*parts: str | bytes) -> bytes:
        data = [part.encode() if isinstance(part, str) else part for part in parts]
        return b"".join(struct.pack("<q", len(part)) + part for part in data)

    said = b"backwire-state-1" + struct.pack("<qqqd", 3, 5, 2, 2.5)
    said += framed("parameters", "w", "float32[1, 2]", struct.pack("<2f", 1.5, -2.0))
    said += framed("c", "int32[2]", struct.pack("<2i", 7, 8))
    said += framed("gradients", "w", "float32[1, 2]", struct.pack("<2f", 3.0, -4.0))
    said += framed("optimizer/mean", "w", "float32[1, 2]", struct.pack("<2f", 4.5, -6.0))
    said += framed("optimizer/square", "w", "float32[1, 2]", struct.pack("<2f", 6.0, -8.0))
    assert STATE.digest() == hashlib.sha256(said).hexdigest()
    said += framed("scaling") + struct.pack("<dq", 65536.0, 7)
    assert replace(STATE, scaling=LossScale(65536.0, 7)).digest() == hashlib.sha256(said).hexdigest()


def test_the_digest_differs_for_every_number_name_type_shape_and_bit() -> None:
    digests = [STATE.digest(), *(state.digest() for state in changed(STATE))]
    assert len({*digests}) == len(digests) > 100


def test_the_digest_is_the_same_however_the_same_elements_lie_in_memory() -> None:
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    same = [matrix, np.asfortranarray(matrix), np.repeat(matrix, 2, axis=1)[:, ::2], matrix.astype(">f4")]
    assert len({replace(STATE, parameters={"w": each}).digest() for each in same}) == 1


def test_the_digest_does_not_depend_on_the_order_of_what_the_optimizer_remembers() -> None:
    assert replace(STATE, memory=dict(reversed([*STATE.memory.items()]))).digest() == STATE.digest()


def test_the_digest_tells_negative_zeros_and_kinds_of_nan_apart() -> None:
    bits = np.array([0, 1 << 31, 0x7FC00000, 0x7FC00001], np.uint32).view(np.float32)
    assert len({replace(STATE, parameters={"w": bits[at : at + 1]}).digest() for at in range(4)}) == 4


def changed(state: State) -> Iterator[State]:
    """The state with one thing after another changed."""
    for number in ("step", "forwards", "contributions"):
        yield replace(state, **{number: getattr(state, number) + 1})
    yield replace(state, total_weight=np.nextafter(state.total_weight, 9.0))
    yield from (replace(state, scaling=each) for each in (LossScale(), LossScale(2.0), LossScale(2.0, 1)))
    yield replace(state, memory={})
    yield replace(state, memory={"mean": state.memory["square"], "square": state.memory["mean"]})
    yield replace(state, memory={**state.memory, "none": {}})
    yield replace(state, parameters=dict(reversed([*state.parameters.items()])))
    yield replace(state, parameters={"w": W}, gradients={"c": C, **state.gradients})
    for arrays in changed_arrays(state.parameters):
        yield replace(state, parameters=arrays)
    for arrays in changed_arrays(state.gradients):
        yield replace(state, gradients=arrays)
    for name in state.memory:
        yield replace(state, memory={("x" if each == name else each): state.memory[each] for each in state.memory})
        for arrays in changed_arrays(state.memory[name]):
            yield replace(state, memory={**state.memory, name: arrays})


def changed_arrays(arrays: Arrays) -> Iterator[Arrays]:
    for name, array in arrays.items():
        yield {("x" if each == name else each): arrays[each] for each in arrays}
        yield {each: arrays[each] for each in arrays if each != name}
        yield {**arrays, name: array.view("<u4")}
        yield {**arrays, name: array.reshape(2, 1)}
        for bit in range(8 * array.nbytes):
            data = bytearray(array.tobytes())
            data[bit // 8] ^= 1 << bit % 8
            yield {**arrays, name: np.frombuffer(bytes(data), array.dtype).reshape(array.shape)}
