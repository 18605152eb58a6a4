"""Draws what storage writes, of all dtypes and with all names, and tells what came back in a form that compares."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from backwire_api.tensors import Array, dtype_of
from backwire_api.v1 import tensor_pb2
from backwire_server.sessions.calls import (
    BackwardCall,
    BackwardResult,
    BranchCall,
    CheckpointInfo,
    CountResult,
    ForwardCall,
    ForwardResult,
    LeaseCall,
    LeaseResult,
    NonFinitePolicy,
    SetCall,
    StepOptions,
    StepResult,
    TrainCall,
    TrainResult,
    ZeroCall,
)
from backwire_server.sessions.requests import RequestKey
from backwire_server.sessions.training.accumulator import Normalization
from backwire_server.sessions.training.state import Image, PassImage, RequestImage, State

DTYPES = [dtype_of(number) for number in tensor_pb2.DataType.values() if number]
SECONDS = st.integers(1, 10**15).map(lambda nanoseconds: nanoseconds / 1e9)  # what a Duration can tell
TIMES = st.floats(1e9, 4e9)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=4) | st.sampled_from(["w", "a/b", "", 'ü"\\\n', "_"])
ids = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
counts = st.integers(0, 2**63 - 1)
reals = st.floats(allow_nan=False)


@st.composite
def arrays(draw: st.DrawFn) -> Array:
    """Arrays with any bits, of no, one or more dimensions, also strided, transposed and big-endian ones."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
    size = int(np.prod(shape, dtype=int)) * dtype.itemsize
    data = draw(st.binary(min_size=size, max_size=size))
    bits = np.frombuffer(data, np.uint8)
    array: Array = (bits & 1 if dtype.kind == "b" else bits).view(dtype).reshape(shape)
    form = draw(st.sampled_from(["plain", "transposed", "swapped", "strided"]))
    if form == "swapped" and dtype.kind in "fiu":
        return array.astype(dtype.newbyteorder(">"))
    if form == "strided" and array.ndim:
        return np.repeat(array, 2, axis=0)[::2]
    return array.T if form == "transposed" else array


named = st.dictionaries(texts, arrays(), max_size=3)
keys = st.builds(RequestKey, ids.filter(bool), st.binary(min_size=1, max_size=32))

options = st.builds(
    StepOptions,
    st.none() | reals,
    st.none() | counts,
    st.sampled_from(NonFinitePolicy),
    st.sampled_from(Normalization),
    st.integers(0, 5),
    st.booleans(),
)
outputs = st.lists(texts, max_size=3).map(tuple)
forward_calls = st.builds(
    ForwardCall, named, outputs.map(lambda names: names or None), ids, st.just(True), st.integers(1, 256)
)
lease_calls = st.builds(LeaseCall, counts, ids, SECONDS)
mutating_calls = st.one_of(
    forward_calls,
    st.builds(BackwardCall, ids, named, outputs, st.booleans(), reals, st.just(True)),
    options,
    st.builds(TrainCall, named, outputs, reals, options, st.just(True), st.integers(0, 256)),
    st.builds(SetCall, named),
    st.just(ZeroCall()),
    lease_calls,
    st.just(BranchCall()),
)

step_results = st.builds(StepResult, counts, reals, reals, counts, st.booleans(), texts, texts)
answers = st.one_of(
    st.builds(ForwardResult, ids, named, st.none() | reals, counts),
    st.builds(BackwardResult, named, counts),
    step_results,
    st.builds(TrainResult, step_results, reals, named),
    st.builds(CountResult, counts),
    st.builds(CheckpointInfo, ids, counts, ids, TIMES, counts),
    st.builds(LeaseResult, counts, ids, SECONDS),
)

states = st.builds(
    State,
    counts,
    counts,
    counts,
    reals,
    named,
    named,
    st.dictionaries(st.sampled_from(["mean", "square", "average"]), st.dictionaries(texts, arrays(), min_size=1)),
)


@st.composite
def images(draw: st.DrawFn) -> Image:
    """Images with passes of the current parameters, of others, and of others in common."""
    state = draw(states)
    versions = [state.parameters, {name: array.copy() for name, array in state.parameters.items()}]
    versions.append({**state.parameters, **{name: versions[1][name] for name in list(versions[1])[:1]}})
    passes = st.builds(PassImage, ids, forward_calls, counts, counts, st.sampled_from(versions))
    requests = st.builds(RequestImage, keys, st.none() | answers)
    few = st.lists(requests, max_size=3)
    return Image(state, draw(st.lists(passes, max_size=4)), draw(few), draw(st.none() | lease_calls))


def told(value: Any, *, ordered: bool = True) -> Any:
    """Everything in a value, with arrays as their dtype, shape and bits; maps sorted unless their order counts."""
    if isinstance(value, np.ndarray):
        little = value.astype(value.dtype.newbyteorder("<")) if value.dtype.byteorder == ">" else value
        return value.dtype.name, value.shape, little.tobytes()
    if isinstance(value, Mapping):
        return [(key, told(value[key], ordered=ordered)) for key in (value if ordered else sorted(value))]
    if isinstance(value, list | tuple):
        return [told(each, ordered=ordered) for each in value]
    if is_dataclass(value):
        return type(value), [told(getattr(value, field.name), ordered=ordered) for field in fields(value)]
    return value


def joined(parts: Any) -> bytes:
    """The bytes of pieces that follow one another."""
    return b"".join(bytes(part if isinstance(part, bytes) else part.data) for part in parts)


def damaged(path: Path) -> Iterator[str]:
    """Turns one bit of each byte of a file in turn, then cuts it shorter and shorter; yields what is wrong with it."""
    data = path.read_bytes()
    with open(path, "r+b", buffering=0) as file:
        for at, byte in enumerate(data):
            file.seek(at)
            file.write(bytes((byte ^ 1 << at % 8,)))
            yield f"bit {at % 8} of byte {at}"
            file.seek(at)
            file.write(bytes((byte,)))
        for size in reversed(range(len(data))):
            file.truncate(size)
            yield f"cut at {size}"
