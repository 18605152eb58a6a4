"""What `backwire train` lowers: a loss of the model's own, or one of its output and the labels in the data."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from backwire import _arrays
from backwire._arrays import FLOAT32, INT64, Array
from backwire._builder import _declare, _functions_math, _functions_reduction, _losses, _losses_classes, _op
from backwire._builder._graph import LOSS, Graph, graph
from backwire._builder._node import Node
from backwire._builder._shapes import Dim
from backwire._builder._value import Value
from backwire._errors import GraphError, InvalidRequestError, UnknownNameError

CLASSES, BINARY = "cross-entropy", "binary-cross-entropy"
_DISTANCES = {
    "squared-error": _losses.squared_error,
    "absolute-error": _losses.absolute_error,
    "huber": _losses.huber_loss,
}
LOSSES = (CLASSES, BINARY, *_DISTANCES)
"""The losses of an output and labels, by the names that the command takes."""

_ACCURACY = "accuracy"
_SCORES = {CLASSES: "Softmax", BINARY: "Sigmoid"}
"""The operator whose input, rather than its result, each of these losses takes: so it cannot overflow."""


@dataclass(frozen=True, slots=True)
class Aim:
    """What training lowers.

    Attributes:
        graph: The model with its loss, and with the share of right answers among its outputs where there is one.
        data: The arrays by input.
        words: The loss in words.
        metrics: The outputs whose means are figures.
    """

    graph: Graph
    data: Mapping[str, Array]
    words: str
    metrics: tuple[str, ...] = ()


def choose(
    model: Graph, arrays: Mapping[str, Array], *, loss: str | None, output: str | None, labels: str | None
) -> Aim:
    """Returns the aim that these names say, or where they are None the model and the data.

    Raises:
        GraphError: There is nothing to lower, or more than one thing.
        UnknownNameError: A name is none of the model or of the data.
        InvalidRequestError: The labels do not suit the loss.
    """
    inputs = {item.name for item in model.proto.inputs}
    further = [name for name in arrays if name not in inputs]
    if loss in LOSSES or (loss is None and (labels is not None or further)):
        return _of_labels(model, arrays, loss, output, _labels_name(labels, arrays, further))
    if further:
        raise UnknownNameError(
            f"the model has no input {further[0]!r}; its inputs are: {', '.join(sorted(inputs)) or 'none'}"
        )
    return _of_value(model, arrays, loss)


def _of_value(model: Graph, arrays: Mapping[str, Array], name: str | None) -> Aim:
    """Returns the aim to lower a value of the model, by default its own loss."""
    if name is None and not model.proto.loss:
        raise GraphError(
            "the model has no loss of its own, and the data no labels: add an array of them to the file, or name a "
            "value of the model with --loss"
        )
    found = model.value(LOSS if name is None else name)
    made = graph(loss=_functions_reduction.mean(found), outputs=_outputs(model))
    return Aim(made, arrays, name or "the model's own")


def _of_labels(model: Graph, arrays: Mapping[str, Array], loss: str | None, output: str | None, labels: str) -> Aim:
    name, value = _output(model, output)
    array = arrays[labels]
    kind = loss or _suitable(value, array)
    scores = _scores(value, kind)
    if kind == CLASSES and array.dtype.kind not in "iub":
        raise InvalidRequestError(
            f"{CLASSES} takes the numbers of classes, but {labels!r} is {array.dtype.name}; make it int64, or choose "
            "another --loss"
        )
    array = array.astype(INT64 if kind == CLASSES else value.dtype)
    if kind != CLASSES and value.shape is not None and len(value.shape) == array.ndim + 1 and value.shape[-1] == 1:
        array = array[..., np.newaxis]
    key = _free(model, labels)
    target = _declare.input(key, _target_shape(value, array, classes=kind == CLASSES), array.dtype)
    outputs, right = _outputs(model), _right(scores, target, kind)
    metrics = () if right is None or _ACCURACY in outputs else (_ACCURACY,)
    if right is not None and metrics:
        outputs[_ACCURACY] = right
    inputs = {item.name for item in model.proto.inputs}
    data = {**{each: arrays[each] for each in arrays if each != labels or each in inputs}, key: array}
    return Aim(graph(loss=_loss(scores, target, kind), outputs=outputs), data, f"{kind}({name}, {labels})", metrics)


def _labels_name(wanted: str | None, arrays: Mapping[str, Array], further: list[str]) -> str:
    if wanted is not None and wanted not in arrays:
        raise UnknownNameError(f"the data has no array {wanted!r}; its arrays are: {', '.join(arrays) or 'none'}")
    if wanted is None and len(further) != 1:
        which = f"several arrays that are no inputs, {', '.join(further)}" if further else "no array besides the inputs"
        raise GraphError(f"the data has {which}; name the array of labels with --labels")
    return further[0] if wanted is None else wanted


def _output(model: Graph, wanted: str | None) -> tuple[str, Value]:
    found = {name: value for name, value in _outputs(model).items() if _arrays.is_float(value.dtype)}
    if wanted is not None:
        return wanted, model.value(wanted)
    if len(found) != 1:
        raise GraphError(
            f"labels can be compared with one output, but the model has {len(found)} of a floating-point type "
            f"({', '.join(found) or 'none'}); name one with --output"
        )
    return next(iter(found.items()))


def _outputs(model: Graph) -> dict[str, Value]:
    return {name: model.value(name) for name in model.proto.outputs}


def _suitable(value: Value, labels: Array) -> str:
    """Returns the loss that labels of this type ask for: integers are classes, others quantities."""
    if labels.dtype.kind not in "iub":
        return "squared-error"
    single = value.shape is not None and (len(value.shape) < 2 or value.shape[1] == 1)
    return BINARY if single else CLASSES


def _scores(value: Value, kind: str) -> Value:
    """Returns what the loss takes: of a model that ends in the probabilities of it, what these are made from."""
    source = value.source
    if isinstance(source, Node) and source.op == _SCORES.get(kind) and source.inputs[0] is not None:
        return source.inputs[0]
    return value


def _target_shape(value: Value, labels: Array, *, classes: bool) -> list[Dim]:
    """Returns the shape of the labels: that of the output, as far as it is known, without the axis of classes."""
    known = list(value.shape or ())
    expected = known[:1] + known[2:] if classes else known
    if len(expected) != labels.ndim:
        return ["rows", *labels.shape[1:]] if labels.ndim else []
    return [
        ("rows" if axis == 0 else size) if dim is None else dim
        for axis, (dim, size) in enumerate(zip(expected, labels.shape, strict=True))
    ]


def _free(model: Graph, name: str) -> str:
    """Returns the name with as many underscores behind it as make it one that the model does not have."""
    proto = model.proto
    taken = {each.name for entries in (proto.inputs, proto.parameters, proto.constants) for each in entries}
    taken.update(output for node in proto.nodes for output in node.outputs)
    while name in taken:
        name += "_"
    return name


def _loss(scores: Value, target: Value, kind: str) -> Value:
    if kind == CLASSES:
        return _losses_classes.softmax_cross_entropy(scores, target)
    if kind == BINARY:
        return _losses_classes.sigmoid_cross_entropy(scores, target)
    return _DISTANCES[kind](scores, target)


def _right(scores: Value, target: Value, kind: str) -> Value | None:
    """Returns 1 for each right answer and 0 for each wrong one; None where answers are quantities."""
    if kind == CLASSES:
        attributes = {"axis": 1, "keepdims": 0}
        (answers,) = _op.op("ArgMax", scores, attributes=attributes, dtype=INT64, shape=target.shape)
    elif kind == BINARY:
        answers = scores > 0
        target = target > 0.5
    else:
        return None
    return _functions_math.cast(_functions_math.equal(answers, target), FLOAT32)
