"""Rules for operators that move elements without computing any: where the examples of a batch lie afterwards."""

from collections.abc import Mapping

from backwire_server.engine.batch_setting import UNKNOWN, Meeting, Rule, Setting, quotient, spread
from backwire_server.engine.batch_states import Rows, State
from backwire_server.engine.dims import Dim, Symbolic, UnknownDimension, product


def _relaid(at: Setting) -> Rows:
    """For another shape of the same elements in C order."""
    state, before, after = at.only(), at.shapes[0], at.results[0]
    left = product(before[: state.axis]) * state.outer
    right = state.inner * product(before[state.axis + 1 :])
    for axis, dim in enumerate(after):
        outer = quotient(left, product(after[:axis]))
        inner = quotient(right, product(after[axis + 1 :]))
        if outer is not None and inner is not None and outer * at.batch * inner == dim:
            return Rows(axis, outer, inner)
    if any(isinstance(dim, Symbolic) and "(" in str(dim) for dim in (*before, *after)):
        raise UnknownDimension("a quotient of sizes")
    raise at.meets(state.axis)


def _squeezed(at: Setting) -> Rows:
    if at.elements(1) is None:
        raise Meeting("has no axes, and so would drop that of the batch where a part has one example")
    return _relaid(at)


def _transposed(at: Setting) -> Rows:
    state, perm = at.only(), at.node.attributes["perm"]
    order = list(perm) if isinstance(perm, tuple) else list(reversed(range(len(at.shapes[0]))))
    return Rows(order.index(state.axis), state.outer, state.inner)


def _expanded(at: Setting) -> State:
    if not any(at.states):
        return spread(at.results[0], at.batch)
    state = at.only()
    return Rows(state.axis + len(at.results[0]) - len(at.shapes[0]), state.outer, state.inner)


def _joint(at: Setting) -> Rows:
    """For Concat: of batches along their axis there are several times all examples, one after another."""
    ranges = [range(len(shape)) for shape in at.shapes]
    axis = at.axis
    rows = [state for state in at.states if isinstance(state, Rows)]
    if all(state.axis != axis for state in rows):
        return at.joined(ranges, ranges[0], whole=True)
    if len(rows) != len(at.states) or len({(state.axis, state.inner) for state in rows}) != 1:
        raise at.meets(axis)
    outer: Dim = 0
    for state in rows:
        outer = state.outer + outer
    return Rows(axis, outer, rows[0].inner)


def _split(at: Setting) -> tuple[State, ...]:
    state, axis = at.only(), at.axis
    if state.axis != axis:
        return (state,) * len(at.node.outputs)
    counts = [quotient(shape[axis], at.batch * state.inner) for shape in at.results]
    if any(count is None for count in counts):
        raise at.meets(axis)
    return tuple(Rows(axis, count or 0, state.inner) for count in counts)


def _slice(at: Setting) -> Rows:
    state, starts = at.only(), at.elements(1) or []
    rank = len(at.shapes[0])
    axes = [axis % rank for axis in at.elements(3) or range(len(starts))]
    steps = at.elements(4) or [1] * len(starts)
    if state.axis in axes:
        same = at.shapes[0][state.axis] == at.results[0][state.axis]
        if not same or steps[axes.index(state.axis)] < 0:
            raise at.meets(state.axis)
    return state


def _padded(at: Setting) -> Rows:
    pads = at.node.attributes["pads"]
    assert isinstance(pads, tuple)
    return at.apart_from([axis for axis in range(len(pads) // 2) if pads[axis] or pads[axis - len(pads) // 2]])


def _gathered(at: Setting) -> Rows:
    axis, (x, indices) = at.axis, at.states
    rank = len(at.shapes[1])
    if isinstance(x, Rows):
        if indices or x.axis == axis:
            raise at.meets(x.axis)
        return Rows(x.axis + (rank - 1 if x.axis > axis else 0), x.outer, x.inner)
    assert isinstance(indices, Rows)
    return Rows(axis + indices.axis, indices.outer, indices.inner)


def _gathered_gradient(at: Setting) -> Rows:
    state, rank = at.only(), len(at.shapes[1])
    size, axis = len(at.results[0]), at.node.attributes["axis"]
    assert isinstance(axis, int)
    if axis % size <= state.axis < axis % size + rank:
        raise at.collapses()
    return Rows(state.axis - (rank - 1 if state.axis > axis % size else 0), state.outer, state.inner)


def _gathered_nd(at: Setting) -> Rows:
    common, (x, indices) = at.node.attributes["batch_dims"], at.states
    assert isinstance(common, int)
    if isinstance(indices, Rows) and x == indices and indices.axis < common:
        return indices
    if isinstance(indices, Rows) and not x and common <= indices.axis < len(at.shapes[1]) - 1:
        return indices
    raise Meeting(UNKNOWN)


MOVING: Mapping[str, Rule] = {
    **dict.fromkeys(("Reshape", "Flatten", "Unsqueeze"), _relaid),
    **dict.fromkeys(("Slice", "SliceGradient"), _slice),
    "Squeeze": _squeezed,
    "Transpose": _transposed,
    "Expand": _expanded,
    "Concat": _joint,
    "Split": _split,
    "ConstantPad": _padded,
    "Gather": _gathered,
    "GatherGradient": _gathered_gradient,
    "GatherND": _gathered_nd,
}
