"""What each operator does with examples that lie along axes of its inputs: the rules that `batching` goes by."""

from collections.abc import Callable, Hashable, Mapping, Sequence

from backwire_server.engine.batch_setting import UNKNOWN, Meeting, Setting, quotient, spread
from backwire_server.engine.batch_states import MEAN, Rows, State
from backwire_server.engine.differentiate import is_float
from backwire_server.engine.dims import Dim, Symbolic, UnknownDimension, product
from backwire_server.engine.ops.reduction import reduced_axes
from backwire_server.engine.values import Value

BENT = "makes no linear function of a mean of all examples, so that the mean over parts is another"

Rule = Callable[[Setting], State | tuple[State, ...]]


def rows_of(setting: Setting) -> tuple[State, ...]:
    """Returns the states of the outputs of a node some of whose inputs have examples; raises Meeting."""
    rule = _elementwise if setting.node.op.elementwise else RULES.get(setting.node.op.name)
    if rule is None:
        raise Meeting(UNKNOWN)
    found = rule(setting)
    return found if isinstance(found, tuple) else (found,) * len(setting.node.outputs)


def mean_of(setting: Setting) -> tuple[State, ...]:
    """Returns the states of the outputs of a node some of whose inputs are means; raises Meeting."""
    if any(isinstance(state, Rows) for state in setting.states):
        raise Meeting("combines examples with a mean of all")
    name, means = setting.node.op.name, [state is MEAN for state in setting.states]
    linear = name in LINEAR or (name in BILINEAR and sum(means) == 1) or (name in FIRST and means[0] + sum(means) == 2)
    if not linear or not is_float(Value(setting.builder, setting.node.outputs[0]).dtype):
        raise Meeting(BENT)
    return (MEAN,) * len(setting.node.outputs)


def _elementwise(at: Setting) -> Rows:
    rank = len(at.results[0])
    return at.joined([range(rank - len(shape), rank) for shape in at.shapes], range(rank))


def _aligned(at: Setting) -> Rows:
    """For inputs of one rank that are read at equal places of all axes but one."""
    found = at.joined([range(len(shape)) for shape in at.shapes], range(len(at.shapes[0])), whole=True)
    return _apart_from(at, found, [_axis(at)])


def _axis(at: Setting) -> int:
    axis = at.node.attributes["axis"]
    assert isinstance(axis, int)
    return axis % len(at.shapes[0])


def _apart_from(at: Setting, state: Rows, axes: Sequence[int]) -> Rows:
    """Returns the state, if its axis is none of these."""
    if state.axis in axes:
        raise at.meets(state.axis)
    return state


def _along(at: Setting) -> Rows:
    return _apart_from(at, at.only(), [_axis(at)])


def _transformed(at: Setting) -> Rows:
    return _apart_from(at, at.only(), [_axis(at), len(at.shapes[0]) - 1])


def _running(at: Setting) -> Rows:
    return _apart_from(at, at.only(), [axis % len(at.shapes[0]) for axis in at.elements(1) or []])


def _reduction(at: Setting) -> State:
    state, options = at.only(), at.node.attributes
    if "axis" in options:
        axes: tuple[int, ...] = (_axis(at),)
    else:
        given = at.value(1) if at.node.inputs[1:] and at.node.inputs[1] else None
        axes = reduced_axes(at.value(0), given, int(options["noop_with_empty_axes"]))  # type: ignore[arg-type]
    if state.axis in axes:
        if at.node.op.name == "ReduceMean" and is_float(at.value(0).dtype):
            return MEAN
        raise at.collapses()
    gone = 0 if options["keepdims"] else sum(axis < state.axis for axis in axes)
    return Rows(state.axis - gone, state.outer, state.inner)


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


def _product(at: Setting) -> Rows:
    a, b = (len(shape) for shape in at.shapes)
    first: list[Hashable] = [*range(-a, -2), *(["row"] if a > 1 else []), "sum"]
    second: list[Hashable] = [*range(-b, -2), "sum", *(["column"] if b > 1 else [])]
    lead = range(-max(a, b), -2)
    return at.joined([first, second], [*lead, *(["row"] if a > 1 else []), *(["column"] if b > 1 else [])])


def _contraction(at: Setting) -> Rows:
    terms, result = at.node.attributes["terms"], at.node.attributes["result"]
    assert isinstance(terms, tuple)
    return at.joined([str(term) for term in terms], str(result))


def _joint(at: Setting) -> Rows:
    """For Concat: of batches along their axis there are several times all examples, one after another."""
    ranges = [range(len(shape)) for shape in at.shapes]
    axis = _axis(at)
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
    state, axis = at.only(), _axis(at)
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
    state, pads = at.only(), at.node.attributes["pads"]
    assert isinstance(pads, tuple)
    return _apart_from(at, state, [axis for axis in range(len(pads) // 2) if pads[axis] or pads[axis - len(pads) // 2]])


def _gathered(at: Setting) -> Rows:
    axis, (x, indices) = _axis(at), at.states
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


def _matrices(at: Setting) -> Rows:
    rank = len(at.shapes[0])
    return _apart_from(at, at.only(), [rank - 2, rank - 1])


def _grams(at: Setting) -> Rows:
    return _apart_from(at, at.only(), [len(at.shapes[0]) - 1])


def _convolution(at: Setting) -> Rows:
    return _apart_from(at, at.only(), range(1, len(at.shapes[0])))


def _kernel_gradient(at: Setting) -> Rows:
    raise at.collapses()


def _pooling(at: Setting) -> Rows:
    ranges = [range(len(shape)) for shape in at.shapes]
    return _apart_from(at, at.joined(ranges, ranges[0], whole=True), ranges[0][2:])


def _drawn(at: Setting) -> State:
    """For random numbers, of which each example has its own."""
    return spread(at.results[0], at.batch)


RULES: Mapping[str, Rule] = {
    **dict.fromkeys(
        (
            "LeakyRelu",
            "Elu",
            "Softplus",
            "BitwiseNot",
            "BitShift",
            "BitCast",
            "Shrink",
            "Mod",
            "IsNaN",
            "IsInf",
            "Copy",
            "ClassLabels",
        ),
        _elementwise,
    ),
    **dict.fromkeys(("Softmax", "LogSoftmax", "TopIndices"), _along),
    **dict.fromkeys(
        ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceLogSumExp", "ArgMax", "ArgMin"),
        _reduction,
    ),
    **dict.fromkeys(("Reshape", "Flatten", "Unsqueeze"), _relaid),
    **dict.fromkeys(("GatherElements", "GatherElementsGradient", "ScatterElements"), _aligned),
    **dict.fromkeys(("Convolution", "ConvolutionInputGradient"), _convolution),
    **dict.fromkeys(
        ("MaxPooling", "MaxPoolingGradient", "MaxPoolingSelect", "SumPooling", "SumPoolingGradient"), _pooling
    ),
    **dict.fromkeys(("Inverse", "Cofactor", "Det"), _matrices),
    **dict.fromkeys(("Slice", "SliceGradient"), _slice),
    "FourierTransform": _transformed,
    "CumSum": _running,
    "Squeeze": _squeezed,
    "Transpose": _transposed,
    "Expand": _expanded,
    "MatMul": _product,
    "Contraction": _contraction,
    "Concat": _joint,
    "Split": _split,
    "ConstantPad": _padded,
    "Gather": _gathered,
    "GatherGradient": _gathered_gradient,
    "GatherND": _gathered_nd,
    "ConvolutionKernelGradient": _kernel_gradient,
    "TfIdfVectorizer": _grams,
    "RandomStream": _drawn,
}

MAKING = frozenset({"RandomStream", "Expand"})
"""Which may make something for each example of inputs that have nothing to do with them."""

SHAPING = frozenset({"Copy", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Expand", "Concat"})
LINEAR = SHAPING | {"Add", "Sub", "Neg", "Cast", "ReduceSum", "ReduceMean"}
"""Which give a mean of all examples where some inputs are such, and the others have nothing to do with them."""

BILINEAR = frozenset({"Mul", "MatMul", "Contraction"})
"""Which do where one input is."""

FIRST = frozenset({"Div", "Slice", "Split", "Gather"})
"""Which do where the first input is, and no other."""
