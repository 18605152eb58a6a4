"""Finds runs of steps that work row by row, so that they can be run block by block in the processor's cache.

A large elementwise operator is bound by memory: its inputs come from far away and its result goes there. In a chain,
all steps do a block of rows before any does the next, so that what one leaves is still near when another takes it up.
A row is a place along the axis that lies outermost in memory; each array in a chain is cut there, or not at all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from backwire_server.engine.graph import Array
from backwire_server.engine.schedule import Step

LARGE_BYTES = 512 * 1024  # smaller arrays stay in the cache as they are
BLOCK_BYTES = 128 * 1024  # of the largest array; a chain has several of them at hand

Outlines = Mapping[int, Array]


@dataclass(slots=True)
class Run:
    """Steps start to stop, views among them, that can become a chain.

    Attributes:
        count: The number of rows.
        cuts: The axis along which the array in each slot is cut, counted from its end; None for one that is not cut.
        made: The same for what is made in the run; None for a view that no axis of which has the rows.
        rows: The number of rows in a block.
    """

    start: int
    count: int
    stop: int = 0
    length: int = 0
    rows: int = 0
    cuts: dict[int, int | None] = field(default_factory=dict)
    made: dict[int, int | None] = field(default_factory=dict)

    def admit(self, index: int, step: Step, outlines: Outlines) -> bool:
        """Takes the step into the run, if it can be part of it."""
        if step.is_view:
            source = step.inputs[0]
            if source in self.made:
                for view in step.outputs:
                    self.made[view] = _same_rows(outlines[source], self.made[source], outlines[view])
            return True
        cuts = _cuts(step, outlines, self.made, self.count)
        if cuts is None or any(self.cuts.get(slot, cut) != cut for slot, cut in cuts.items()):
            return False
        self.cuts.update(cuts)
        self.made[step.outputs[0]] = cuts[step.outputs[0]]
        self.stop, self.length = index + 1, self.length + 1
        return True

    def block(self, shape: tuple[int, ...], cut: int | None) -> tuple[int, ...]:
        """Returns the shape of a block of an array that is cut along the axis."""
        return shape if cut is None else tuple(self.rows if at - len(shape) == cut else n for at, n in enumerate(shape))

    def is_worthwhile(self, outlines: Outlines) -> bool:
        """Settles the size of a block; tells whether there are several blocks, and several steps to each."""
        row = max(outlines[slot].nbytes // self.count for slot, cut in self.cuts.items() if cut is not None)
        self.rows = max(1, BLOCK_BYTES // max(row, 1))
        return self.length > 1 and self.rows < self.count


def find_runs(steps: Sequence[Step], outlines: Outlines) -> list[Run]:
    """Returns the runs that are worth making chains of, in order."""
    runs: list[Run] = []
    current: Run | None = None
    for index, step in enumerate(steps):
        if current is None or not current.admit(index, step, outlines):
            current = _begin(index, step, outlines)
            if current is not None:
                runs.append(current)
    return [run for run in runs if run.is_worthwhile(outlines)]


def _begin(index: int, step: Step, outlines: Outlines) -> Run | None:
    arrays = [outlines[slot] for slot in (*step.inputs, *step.outputs) if slot]
    if step.is_view or max((array.nbytes for array in arrays), default=0) < LARGE_BYTES:
        return None
    rows = outlines[step.inputs[0] if step.node.op.combines else step.outputs[0]]
    axis = _outermost(rows)
    if axis is None:
        return None
    run = Run(index, rows.shape[axis])
    return run if run.admit(index, step, outlines) else None


def _cuts(step: Step, outlines: Outlines, made: Mapping[int, int | None], count: int) -> dict[int, int | None] | None:
    """Returns how the arrays of a step are cut into rows, None when it does not work by rows."""
    axes = {made[slot] for slot in step.inputs if slot in made}
    if len(step.outputs) != 1 or len(axes) > 1 or None in axes:
        return None
    out = outlines[step.outputs[0]]
    if step.node.op.combines is not None and step.is_prepared:
        return _combining_cuts(step, outlines, axes, count)
    axis = axes.pop() if axes else _outermost(out)
    if not step.node.op.elementwise or not _has_rows(out, axis, count) or _outermost(out) != axis:
        return None
    arrays = ((slot, outlines[slot]) for slot in step.inputs if slot)
    return {step.outputs[0]: axis, **{slot: axis if _has_rows(array, axis, count) else None for slot, array in arrays}}


def _combining_cuts(step: Step, outlines: Outlines, axes: set[int | None], count: int) -> dict[int, int | None] | None:
    """As `_cuts`, for an operator that combines elements along some axes of its first input, but not across rows."""
    x, out = outlines[step.inputs[0]], outlines[step.outputs[0]]
    axis = axes.pop() if axes else _outermost(x)
    assert step.node.op.combines is not None
    combined, kept = step.node.op.combines(*(outlines.get(slot) for slot in step.inputs), **step.node.attributes)
    if axis is None or not _has_rows(x, axis, count) or axis + x.ndim in combined or _outermost(x) != axis:
        return None
    left = axis if kept else axis + sum(each > axis + x.ndim for each in combined)
    if not _has_rows(out, left, count):
        return None
    return {step.outputs[0]: left, **dict.fromkeys(filter(None, step.inputs[1:])), step.inputs[0]: axis}


def _has_rows(array: Array, axis: int | None, count: int) -> bool:
    return axis is not None and array.ndim >= -axis and array.shape[axis] == count


def _outermost(array: Array) -> int | None:
    """Returns the axis that lies outermost in memory, counted from the end; None when there is only one element."""
    axes = [axis for axis in range(array.ndim) if array.shape[axis] > 1 and array.strides[axis]]
    return max(axes, key=lambda axis: array.strides[axis]) - array.ndim if axes else None


def _same_rows(source: Array, axis: int | None, view: Array) -> int | None:
    """Returns the axis of a view along which it has the rows of its source, None when there is none."""
    if axis is None:
        return None
    count, step = source.shape[axis], source.strides[axis]
    found = [at for at in range(view.ndim) if view.shape[at] == count and view.strides[at] == step]
    return found[0] - view.ndim if len(found) == 1 else None
