"""load_into and save: between the parameters of a session and a file."""

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as encode

from backwire import _files
from backwire._arrays import Array
from backwire._errors import InvalidRequestError, ShapeError, UnknownNameError
from backwire._session import Session

Rename = Mapping[str, str] | Callable[[str], str]
"""From the name of a parameter to that of its tensor in the file."""

INDEX = ".index.json"


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a `load_into` did.

    Attributes:
        parameters: The parameters that were replaced.
        missing: The parameters that the file has no tensor for, and that stayed as they were.
        unused: The tensors of the file that no parameter took.
    """

    parameters: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]


def load_into(
    session: Session,
    path: str | os.PathLike[str],
    *,
    rename: Rename | None = None,
    transpose: str | Iterable[str] = (),
    strict: bool = True,
) -> Loaded:
    """Replaces the parameters of a session, frozen ones too, with the tensors of a file, all or nothing.

    Values are converted to the types of the parameters where that is safe. Optimizer state, step number and
    accumulated gradients stay.

    Args:
        session: The session.
        path: A file, or the index of a model in several files, `model.safetensors.index.json`.
        rename: From the names of parameters to those of tensors: a mapping, in which what keeps its name may be left
            out, or a function; None for the same names.
        transpose: Globs over names of parameters whose tensors have their axes in reverse order. PyTorch's Linear has
            [units, features] where `bw.dense` has [features, units].
        strict: Whether all parameters must be there; False leaves those as they are that the file has not.

    Raises:
        UnknownNameError: The file has no tensor for a parameter, or for none at all.
        ShapeError: A tensor has another shape than its parameter.
        InvalidRequestError: The file is no safetensors file, or damaged.

    Example:
        >>> import tempfile, backwire.safetensors
        >>> from safetensors.numpy import save_file
        >>> path = f"{tempfile.mkdtemp()}/linear.safetensors"
        >>> save_file({"fc.weight": np.ones((3, 2), "float32"), "fc.bias": np.zeros(3, "float32")}, path)
        >>> x = bw.input("x", ("batch", 2))
        >>> session = client.create_session(bw.graph(outputs={"y": bw.dense(x, 3, name="fc")}))
        >>> renamed = lambda name: name.replace("/", ".")
        >>> backwire.safetensors.load_into(session, path, rename=renamed, transpose="*/weight").parameters
        ('fc/weight', 'fc/bias')
    """
    places = _places(Path(path))
    infos = {each.name: each for each in session.info().parameters}
    names = _renamed(infos, rename)
    found = {name: tensor for name, tensor in names.items() if tensor in places}
    missing = tuple(name for name in infos if name not in found)
    if missing and (strict or not found):
        listed = ", ".join(repr(names[name]) for name in missing)
        remedy = "rename them, or pass strict=False" if found else f"rename them; it has {', '.join(sorted(places))}"
        raise UnknownNameError(f"{path} has no tensors {listed}; {remedy}", field=f"parameters[{missing[0]}]")
    values = _read(found, places, _globs(transpose))
    for name, value in values.items():
        _check_shape(name, value, infos[name].shape, names[name])
    session.set_parameters(values)
    return Loaded(tuple(found), missing, tuple(sorted(places.keys() - set(found.values()))))


def save(
    session: Session,
    path: str | os.PathLike[str],
    *,
    rename: Rename | None = None,
    transpose: str | Iterable[str] = (),
    averaged: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes the parameters of a session to a file, all of one and the same step; a file that was there is replaced.

    Args:
        session: The session.
        path: The file, which is there wholly or not at all.
        rename: As in `load_into`, from the names of parameters to those of tensors.
        transpose: As in `load_into`.
        averaged: True writes the exponential moving average of each trainable parameter in place of its value.
        metadata: Texts to keep in the file.

    Raises:
        InvalidRequestError: Two parameters would have one name; or `averaged`, but the session's optimizer has no
            `average_decay`.

    Example:
        >>> import tempfile, backwire.safetensors
        >>> from safetensors.numpy import load_file
        >>> path = f"{tempfile.mkdtemp()}/trained.safetensors"
        >>> session = client.create_session(bw.sum(bw.parameter("w", [1.0, 2.0])))
        >>> backwire.safetensors.save(session, path, rename={"w": "model.w"})
        >>> load_file(path)
        {'model.w': array([1., 2.], dtype=float32)}
    """
    values, globs = session.parameters(averaged=averaged), _globs(transpose)
    names = _renamed(values, rename)
    if len(set(names.values())) < len(names):
        raise InvalidRequestError("rename gives two parameters one name; give each its own", field="rename")
    tensors = {names[name]: np.ascontiguousarray(_turned(name, value, globs)) for name, value in values.items()}
    with _files.writing(path) as restart:
        # Transformers of Hugging Face refuses a file without a format.
        restart().write(encode(tensors, {"format": "pt", **(metadata or {})}))


def _places(path: Path) -> dict[str, Path]:
    """Returns in which file each tensor is."""
    if not path.name.endswith(INDEX):
        with _opened(path) as file:
            return dict.fromkeys(file.keys(), path)
    try:
        shards = json.loads(path.read_text())["weight_map"]
        return {name: path.parent / shard for name, shard in shards.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InvalidRequestError(f"{path} is no index of a model in several files; name one, or a file") from None


def _read(names: Mapping[str, str], places: Mapping[str, Path], globs: Sequence[str]) -> dict[str, Array]:
    """Returns the arrays of parameters, each file opened once."""
    found: dict[str, Array] = {}
    for path in dict.fromkeys(places[tensor] for tensor in names.values()):
        with _opened(path) as file:
            for name, tensor in names.items():
                if places[tensor] == path:
                    found[name] = _turned(name, file.get_tensor(tensor), globs)
    return found


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, "np") as file:
            yield file
    except SafetensorError as error:
        raise InvalidRequestError(f"{path} cannot be read as a safetensors file: {error}; write it again") from None


def _turned(name: str, value: Array, globs: Sequence[str]) -> Array:
    return value.T if any(fnmatchcase(name, glob) for glob in globs) else value


def _check_shape(name: str, value: Array, shape: tuple[int, ...], tensor: str) -> None:
    if value.shape != shape:
        remedy = f"pass transpose={name!r}" if value.shape[::-1] == shape else "change the graph, or rename"
        raise ShapeError(
            f"parameter {name!r} has shape {list(shape)}, and tensor {tensor!r} has {list(value.shape)}; {remedy}",
            field=f"parameters[{name}]",
        )


def _renamed(names: Iterable[str], rename: Rename | None) -> dict[str, str]:
    if rename is None or isinstance(rename, Mapping):
        return {name: (rename or {}).get(name, name) for name in names}
    return {name: rename(name) for name in names}


def _globs(transpose: str | Iterable[str]) -> list[str]:
    return [transpose] if isinstance(transpose, str) else list(transpose)
