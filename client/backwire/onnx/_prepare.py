"""Reads a model and brings it into the form that graphs are made from: checked, inlined, typed, of a recent opset."""

import os
from dataclasses import dataclass

import onnx
from google.protobuf.message import DecodeError
from onnx import inliner, shape_inference, version_converter

from backwire._errors import GraphError
from backwire.onnx import _fold, _old, _sizes, _supported

COMMON_OPSET = 21
"""Older models are converted to this one: since then operators were added and took further types, but none changed."""

_TORCH_KIND = "pkg.torch.export.graph_signature.InputSpec.kind"
"""Where PyTorch writes what an initializer was in the module: PARAMETER, BUFFER, or CONSTANT_TENSOR."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model to make a graph from.

    `initializers` are the names of those that the model had when it was read, and `buffers` those of them that PyTorch
    does not train.
    """

    model: onnx.ModelProto
    opset: int
    initializers: frozenset[str]
    buffers: frozenset[str]


def read(model: str | os.PathLike[str] | onnx.ModelProto) -> onnx.ModelProto:
    """Returns the model in a file, or a copy of the one given."""
    if isinstance(model, onnx.ModelProto):
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        return copy
    try:
        return onnx.load(os.fspath(model))
    except DecodeError:
        raise GraphError(f"{os.fspath(model)!r} is no ONNX model; give the path of a .onnx file") from None
    except onnx.checker.ValidationError as error:
        raise GraphError(
            f"{os.fspath(model)!r}: {error}; keep the files of a model's external data in its folder"
        ) from None


def prepare(model: onnx.ModelProto) -> Prepared:
    """Returns the model ready for a graph; raises GraphError for one that cannot become one."""
    opset = _opset(model)
    initializers, buffers = frozenset(tensor.name for tensor in model.graph.initializer), _buffers(model.graph)
    if model.functions:
        model = inliner.inline_local_functions(model)
    model = folded(model, opset)
    _supported.check(model)
    _check(model)
    _old.spread_slopes(model.graph, opset)
    if opset < COMMON_OPSET:
        model, older, opset = _converted(model, opset), opset, COMMON_OPSET
        _old.name_resize_modes(model.graph, older)
    return Prepared(_inferred(model), opset, initializers, initializers & buffers)


def folded(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Returns the model with shapes inferred, and sequences and branches gone where sizes and constants decide them."""
    model = _inferred(model)
    while _fold.fold_sequences(model.graph, opset) or _sizes.fold_sizes(model.graph, opset):
        model = _inferred(model)
    return model


def _buffers(graph: onnx.GraphProto) -> frozenset[str]:
    kinds = {
        info.name: item.value for info in graph.value_info for item in info.metadata_props if item.key == _TORCH_KIND
    }
    return frozenset(name for name, kind in kinds.items() if kind != "PARAMETER")


def _opset(model: onnx.ModelProto) -> int:
    versions = [item.version for item in model.opset_import if item.domain in _supported.DEFAULT_DOMAINS]
    newest = int(onnx.defs.onnx_opset_version())
    if not versions and all(node.domain not in _supported.DEFAULT_DOMAINS for node in model.graph.node):
        return newest
    if not versions:
        raise GraphError("the model does not say which version of the ONNX operator set it uses; set opset_import")
    if versions[0] < _old.OLDEST_OPSET and (changed := _old.changed_operators(model.graph.node, versions[0])):
        raise GraphError(
            f"the model uses operator set {versions[0]}, and {', '.join(changed)} changed after that; export it again "
            f"with {_old.OLDEST_OPSET} or a newer one"
        )
    if versions[0] > newest:
        raise GraphError(
            f"the model uses operator set {versions[0]}, but onnx {onnx.__version__} knows no newer one than {newest}; "
            "upgrade the onnx package"
        )
    return int(versions[0])


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    try:
        return shape_inference.infer_shapes(model, data_prop=True)
    except shape_inference.InferenceError as error:
        raise GraphError(f"the shapes of the model do not fit together: {error}") from None


def _check(model: onnx.ModelProto) -> None:
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise GraphError(f"the model is not valid: {error}") from None


def _converted(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    try:
        return version_converter.convert_version(model, COMMON_OPSET)
    except (RuntimeError, version_converter.ConvertError) as error:
        raise GraphError(
            f"the model uses operator set {opset}, and could not be converted to {COMMON_OPSET} ({error}); export it "
            f"again with operator set {COMMON_OPSET} or a newer one"
        ) from None
