"""Runs operators' JAX kernels compiled, and their numpy kernels, on the same inputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from backwire_server.engine.operators import takes_n_outputs
from backwire_server.engine.registry import OPS
from backwire_server.xla import ops as _ops  # noqa: F401  # fills the table of kernels
from backwire_server.xla.registry import kernel_of, numerics, static_places

Array = NDArray[Any]
ROUNDING = {"float64": 1e-12, "float32": 3e-6, "float16": 3e-3, "bfloat16": 3e-2}


@dataclass(frozen=True)
class Call:
    """A call of an operator: the inputs at the places that its kernel takes as they run are `free`."""

    name: str
    inputs: tuple[Array | None, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    n_outputs: int = 1

    @property
    def free(self) -> list[int]:
        fixed = static_places(self.name)
        return [place for place, each in enumerate(self.inputs) if each is not None and place not in fixed]

    def options(self) -> dict[str, Any]:
        kernel = OPS[self.name].kernel
        assert kernel is not None
        extra = {"n_outputs": self.n_outputs} if takes_n_outputs(kernel) else {}
        return {**OPS[self.name].bind(self.attributes), **extra}

    def by_numpy(self) -> list[Array]:
        kernel = OPS[self.name].kernel
        assert kernel is not None
        with np.errstate(all="ignore"):
            return _listed(kernel(*self.inputs, **self.options()))

    def by_jax(self, given: Sequence[Any]) -> list[Any]:
        arrays: list[Any] = list(self.inputs)
        for place, each in zip(self.free, given, strict=True):
            arrays[place] = each
        return _listed(kernel_of(self.name)(*arrays, **self.options()))


def call(name: str, *inputs: Any, n_outputs: int = 1, **attributes: Any) -> Call:
    """Returns the call of an operator."""
    return Call(name, tuple(None if each is None else np.asarray(each) for each in inputs), attributes, n_outputs)


def check(*calls: Call) -> None:
    """Raises AssertionError unless both kernels give the same types, integers and bools, and floats within rounding.

    The calls are compiled together, which takes less time than one by one, and as servers compile.
    """
    with numerics():
        given = [[each.inputs[place] for place in each.free] for each in calls]
        found = jax.jit(lambda given: [each.by_jax(own) for each, own in zip(calls, given, strict=True)])(given)
        for each, results in zip(calls, found, strict=True):
            for ours, theirs in zip(results, each.by_numpy(), strict=True):
                _compare(each, np.asarray(ours), np.asarray(theirs))


def _listed(results: Any) -> list[Any]:
    return list(results) if isinstance(results, tuple) else [results]


def _compare(by: Call, ours: Array, theirs: Array) -> None:
    context = f"{by}"
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype), context
    if ours.dtype.kind in "biu":
        np.testing.assert_array_equal(ours, theirs, context)
        return
    wide, reference = ours.astype(np.float64), theirs.astype(np.float64)
    largest = np.abs(reference[np.isfinite(reference)]).max(initial=0.0)
    rounding = ROUNDING[ours.dtype.name]
    np.testing.assert_allclose(wide, reference, rounding, rounding * largest, err_msg=context)
