"""What each operator does with examples that lie along axes of its inputs: the rules that `batching` goes by."""

from collections.abc import Hashable, Mapping

from backwire_server.engine.batch_moving import MOVING
from backwire_server.engine.batch_setting import UNKNOWN, Meeting, Rule, Setting, spread
from backwire_server.engine.batch_states import MEAN, Rows, State
from backwire_server.engine.differentiate import is_float
from backwire_server.engine.ops.reduction import reduced_axes
from backwire_server.engine.values import Value

BENT = "makes no linear function of a mean of all examples, so that the mean over parts is another"


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
    return at.apart_from([at.axis], found)


def _along(at: Setting) -> Rows:
    return at.apart_from([at.axis])


def _transformed(at: Setting) -> Rows:
    return at.apart_from([at.axis, len(at.shapes[0]) - 1])


def _running(at: Setting) -> Rows:
    return at.apart_from([axis % len(at.shapes[0]) for axis in at.elements(1) or []])


def _reduction(at: Setting) -> State:
    state, options = at.only(), at.node.attributes
    if "axis" in options:
        axes: tuple[int, ...] = (at.axis,)
    else:
        given = at.value(1) if at.node.inputs[1:] and at.node.inputs[1] else None
        axes = reduced_axes(at.value(0), given, int(options["noop_with_empty_axes"]))  # type: ignore[arg-type]
    if state.axis in axes:
        if at.node.op.name == "ReduceMean" and is_float(at.value(0).dtype):
            return MEAN
        raise at.collapses()
    gone = 0 if options["keepdims"] else sum(axis < state.axis for axis in axes)
    return Rows(state.axis - gone, state.outer, state.inner)


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


def _matrices(at: Setting) -> Rows:
    rank = len(at.shapes[0])
    return at.apart_from([rank - 2, rank - 1])


def _grams(at: Setting) -> Rows:
    return at.apart_from([len(at.shapes[0]) - 1])


def _convolution(at: Setting) -> Rows:
    return at.apart_from(range(1, len(at.shapes[0])))


def _kernel_gradient(at: Setting) -> Rows:
    raise at.collapses()


def _pooling(at: Setting) -> Rows:
    ranges = [range(len(shape)) for shape in at.shapes]
    return at.apart_from(ranges[0][2:], at.joined(ranges, ranges[0], whole=True))


def _drawn(at: Setting) -> State:
    """For random numbers, of which each example has its own."""
    return spread(at.results[0], at.batch)


RULES: Mapping[str, Rule] = {
    **MOVING,
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
    **dict.fromkeys(("GatherElements", "GatherElementsGradient", "ScatterElements"), _aligned),
    **dict.fromkeys(("Convolution", "ConvolutionInputGradient"), _convolution),
    **dict.fromkeys(
        ("MaxPooling", "MaxPoolingGradient", "MaxPoolingSelect", "SumPooling", "SumPoolingGradient"), _pooling
    ),
    **dict.fromkeys(("Inverse", "Cofactor", "Det"), _matrices),
    "FourierTransform": _transformed,
    "CumSum": _running,
    "MatMul": _product,
    "Contraction": _contraction,
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
