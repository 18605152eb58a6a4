"""What commands about a model share: the graph of a file, a loss for it, the sizes of its inputs, and data."""

import os
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from backwire import _arrays
from backwire._arrays import Array
from backwire._builder import _functions_math
from backwire._builder._graph import Graph, graph
from backwire._builder._value import Value
from backwire._errors import GraphError, InvalidRequestError, UnknownNameError
from backwire_api import tensors

Shape = tuple[int, ...]
Reduce = Callable[[str, Value], Value]


@dataclass(frozen=True, slots=True)
class Sizes:
    """The shapes of a model's inputs by name, and the sizes that were assumed for symbols that nothing gave one."""

    shapes: dict[str, Shape]
    assumed: dict[str, int] = field(default_factory=dict)


def read_model(path: str) -> Graph:
    """Returns the graph of an ONNX file; raises InvalidRequestError when the file or the onnx package is missing."""
    try:
        from backwire.onnx import load
    except ImportError as error:
        raise InvalidRequestError(
            f"models need the onnx package ({error}); run: pip install 'backwire[onnx]'"
        ) from None
    try:
        return load(path)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise InvalidRequestError(f"cannot read {path}: {reason}; give the path of a .onnx file") from None


def read_arrays(path: str | None) -> dict[str, Array]:
    """Returns the arrays of an .npz file, or none without a path; refuses pickled objects."""
    if path is None:
        return {}
    try:
        with open(path, "rb") as file:
            arrays = np.load(file, allow_pickle=False)
            return {name: arrays[name] for name in arrays.files}
    except (OSError, EOFError, ValueError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "it is no .npz of arrays"
        raise InvalidRequestError(
            f"cannot read {path}: {reason}; write one with numpy.savez(path, input=array)"
        ) from None


def sizes_of(model: Graph, given: Mapping[str, Shape], *, otherwise: int) -> Sizes:
    """Returns a shape for every input: as given, or from the sizes that those give to symbols, or `otherwise`.

    Raises UnknownNameError for a shape that no input has the name of. Whether a shape fits, the server tells.
    """
    dims = {item.name: [dim.symbol or dim.size for dim in item.shape] for item in model.proto.inputs}
    for name in given:
        if name not in dims:
            raise UnknownNameError(f"the model has no input {name!r}; its inputs are: {', '.join(dims) or 'none'}")
    symbols = {
        dim: size
        for name, shape in given.items()
        for dim, size in zip(dims[name], shape, strict=False)
        if isinstance(dim, str)
    }
    found = Sizes(dict(given))
    for name in dims.keys() - given.keys():
        for dim in dims[name]:
            if isinstance(dim, str) and dim not in symbols:
                symbols[dim] = found.assumed[dim] = otherwise
        found.shapes[name] = tuple(dim if isinstance(dim, int) else symbols[dim] for dim in dims[name])
    return Sizes({name: found.shapes[name] for name in dims}, dict(sorted(found.assumed.items())))


def with_loss(model: Graph, wanted: str | None, reduce: Reduce, word: str) -> tuple[Graph, str]:
    """Returns the model with a loss, and what that is in words.

    The loss is the value named `wanted`, or the model's own, or else made of all floating-point outputs. `reduce` makes
    one number of a value that may have several elements, and `word` says how; neither is used for one that has one.
    """
    outputs = {name: model.value(name) for name in model.proto.outputs}
    if wanted is None and model.proto.loss:
        return model, "the model's own"
    chosen = {wanted: model.value(wanted)} if wanted is not None else outputs
    parts = {name: value for name, value in chosen.items() if _arrays.is_float(value.dtype)}
    if not parts:
        listed = ", ".join(f"{name} ({value.dtype})" for name, value in chosen.items())
        raise GraphError(f"no loss can be made of {listed}; name a floating-point value with --loss")
    terms = [value if _is_scalar(value) else reduce(name, value) for name, value in parts.items()]
    total = terms[0]
    for term in terms[1:]:
        total = total + _functions_math.cast(term, total.dtype)
    words = " + ".join(name if _is_scalar(value) else f"{word}({name})" for name, value in parts.items())
    return graph(loss=total, outputs=outputs), words


def draw(model: Graph, sizes: Sizes, arrays: Mapping[str, Array], seed: int) -> dict[str, Array]:
    """Returns data for every input: the arrays given, and for the rest normal numbers, or zeros and ones.

    Integers are 0 or 1, since they tend to be indices, whose range a model does not tell.
    """
    generator = np.random.default_rng(seed)
    data = dict(arrays)
    for item in model.proto.inputs:
        if item.name not in data:
            dtype, shape = tensors.dtype_of(item.dtype), sizes.shapes[item.name]
            drawn = generator.standard_normal(shape) if _arrays.is_float(dtype) else generator.integers(0, 2, shape)
            data[item.name] = np.asarray(drawn).astype(dtype)
    return data


def title(path: str) -> str:
    """Returns the file's name."""
    return Path(path).name


def _is_scalar(value: Value) -> bool:
    return value.shape is not None and all(dim == 1 for dim in value.shape)
