"""Batches in parts: what is asked of each part, and what the whole batch gives."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from backwire_server.engine.graph import Array
from backwire_server.engine.model import Pass
from backwire_server.engine.narrow import wide
from backwire_server.parallel.kept import Residue
from backwire_server.parallel.split import joined, weighted_mean
from backwire_server.parallel.task import Part, Result


@dataclass(frozen=True, slots=True)
class Whole:
    """What a batch gave: loss and outputs, gradients of parameters and inputs, updates of frozen parameters.

    `norm` is the global norm of the gradients of parameters, where it is known. `passes` is how many it took; `kept` is
    the only one, for Backward, and None where there were several, of which `residue` is what may be there for it.
    """

    loss: float | None
    outputs: Mapping[str, Array]
    gradients: Mapping[str, Array] = field(default_factory=dict)
    updates: Mapping[str, Array] = field(default_factory=dict)
    inputs: Mapping[str, Array] = field(default_factory=dict)
    passes: int = 1
    kept: Pass | None = None
    residue: Residue | None = None
    norm: float | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """The parts of a batch, of `sizes` examples: their inputs, the outputs to compute, and the first pass's key.

    Attributes:
        joints: How outputs of the parts become those of the batch; see `joined`.
        outputs: Their names, None for all.
        scale: What the loss is multiplied by on the way to gradients.
        seeds: The gradients of outputs for each part; none for the loss.
        wrt: Along which axis the gradients of inputs are put together, None where they are added up.
        tells: Whether outputs are wanted.
        differentiates: Whether gradients are.
        summed: Whether gradients of the parts are added up as they are, rather than as those of means.
        residue: What is kept of the parts' passes from Forward to Backward.
    """

    parts: Sequence[Mapping[str, Array]]
    sizes: Sequence[int]
    joints: Mapping[str, int | None]
    outputs: tuple[str, ...] | None
    key: tuple[int, int]
    scale: float = 1.0
    seeds: Sequence[Mapping[str, Array]] = ()
    wrt: Mapping[str, int | None] = field(default_factory=dict)
    tells: bool = True
    differentiates: bool = True
    summed: bool = False
    residue: Residue | None = None

    @property
    def repeats(self) -> bool:
        """Whether its passes have been made before."""
        return self.differentiates and not self.tells

    @property
    def purpose(self) -> tuple[bool, bool]:
        """What tells the parts of a Forward, a Backward and a TrainStep from each other, which take different times."""
        return self.tells, self.differentiates

    @property
    def weights(self) -> list[float]:
        """What the gradients of each part are multiplied by before they are added up."""
        return [1.0 if self.summed else float(size) for size in self.sizes]

    @property
    def divisor(self) -> float:
        """What the sum of the weighted gradients is divided by."""
        return 1.0 if self.summed else float(sum(self.sizes))

    def part(self, place: int) -> Part:
        """Returns what is asked of a part."""
        seed, number = self.key
        return Part(
            _kinds(self.parts[place]),
            self.outputs,
            (seed, number + place),
            self.scale,
            _kinds(self.seeds[place]) if self.seeds else {},
            tuple(self.wrt),
            self.tells,
            self.differentiates,
        )

    def differentiating(
        self, seeds: Mapping[str, Array], joints: Mapping[str, int | None], wrt: Mapping[str, int | None]
    ) -> "Batch":
        """Returns the batch with gradients of outputs, which go to the parts as `joints` says, and no outputs.

        Of one that is put together from the parts, each gets its own examples'. The loss, and other outputs that are
        means of the parts', are differentiated in each part as in the whole, and the gradients are averaged; where both
        kinds are given, those of means are weighted before, and the gradients added up.
        """
        summed = any(joints[name] is not None for name in seeds)
        cut = [
            {name: self._seed(seed, joints[name], place, rows, summed=summed) for name, seed in seeds.items()}
            for place, rows in enumerate(self._rows())
        ]
        return replace(self, seeds=cut if seeds else (), wrt=wrt, summed=summed, tells=False)

    def whole(self, results: Sequence[Result], gradients: Mapping[str, Array], norm: float | None) -> Whole:
        """Returns what the batch gives, of what its parts gave, and their gradients of parameters put together."""
        losses = [np.array(result.loss) for result in results if result.loss is not None]
        outputs = {
            name: joined(self.joints[name], [result.outputs[name] for result in results], self.sizes)
            for name in results[0].outputs
        }
        inputs = {
            name: self._of_input(axis, [each.inputs[name] for each in results]) for name, axis in self.wrt.items()
        }
        loss = float(weighted_mean(losses, self.sizes)) if losses else None
        return Whole(loss, outputs, gradients, inputs=inputs, passes=len(results), residue=self.residue, norm=norm)

    def _rows(self) -> Iterator[tuple[int, int]]:
        start = 0
        for size in self.sizes:
            yield start, start + size
            start += size

    def _seed(self, seed: Array, axis: int | None, place: int, rows: tuple[int, int], *, summed: bool) -> Array:
        total = sum(self.sizes)
        if axis is None:
            return seed * seed.dtype.type(self.sizes[place] / total) if summed else seed
        times = seed.shape[axis] // total
        return np.ascontiguousarray(seed[(slice(None),) * axis + (slice(rows[0] * times, rows[1] * times),)])

    def _of_input(self, axis: int | None, parts: Sequence[Array]) -> Array:
        dtype = parts[0].dtype
        with np.errstate(all="ignore"):
            each = [
                np.multiply(part, weight, dtype=wide(dtype)) for part, weight in zip(parts, self.weights, strict=True)
            ]
            whole = sum(each[1:], each[0]) if axis is None else np.concatenate(each, axis)
            return np.divide(whole, self.divisor, dtype=whole.dtype).astype(dtype, copy=False)


def _kinds(arrays: Mapping[str, Array]) -> dict[str, tuple[np.dtype[np.generic], tuple[int, ...]]]:
    return {name: (array.dtype, array.shape) for name, array in arrays.items()}
