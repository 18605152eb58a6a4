"""ONNX's backend test suites as cases: a model, what it is given, and what it must return."""

import contextlib
import os
import pickle
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx.backend.test import loader
from onnx.backend.test.runner import Runner

NODE, REAL = "node", "real"
SUITES = (NODE, "simple", "pytorch-operator", "pytorch-converted", REAL)

KEPT = Path(__file__).parents[2] / "out"

Data = Sequence[tuple[Sequence[Any], Sequence[Any]]]


@dataclass(frozen=True)
class Case:
    """A case of a suite; `data` reads pairs of inputs and expected outputs, each in the order that the model says."""

    suite: str
    name: str
    about: str
    model: onnx.ModelProto
    rtol: float
    atol: float
    data: Callable[[], Data]

    @property
    def operators(self) -> set[str]:
        return {node.op_type for node in self.model.graph.node}


def told(suite: str) -> list[Any]:
    """Returns the cases as ONNX has them; those of nodes are kept, since what they expect takes seconds to compute."""
    if suite != NODE:
        return list(loader.load_model_tests(kind=suite))
    file = KEPT / f"onnx-{onnx.__version__}-numpy-{np.__version__}.pickle"
    with contextlib.suppress(OSError, EOFError, pickle.UnpicklingError):
        return list(pickle.loads(file.read_bytes()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some divide by zero
        found = list(loader.load_model_tests(kind=suite))
    with contextlib.suppress(OSError):
        _write(file, pickle.dumps(found))
    return found


def _write(file: Path, content: bytes) -> None:
    """Has the whole file or none be there for other processes, of which some may write it at the same time."""
    file.parent.mkdir(exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=file.parent)
    with os.fdopen(descriptor, "wb") as written:
        written.write(content)
    os.replace(name, file)


def cases(suite: str) -> Iterator[Case]:
    found = told(suite)
    own = {each.name: each.model.graph.node[-1].op_type for each in found if each.model}
    for each in sorted(found, key=lambda case: str(case.name)):
        about = own.get(each.name.split("_expanded")[0], own.get(each.name, ""))
        model, data = _content(each)
        yield Case(suite, each.name, about, model, each.rtol, each.atol, data)


@cache
def all_cases() -> tuple[Case, ...]:
    return tuple(case for suite in SUITES for case in cases(suite))


def _content(case: Any) -> tuple[Any, Callable[[], Data]]:
    """Returns the model of a case and what reads its data, which differ by the kind of suite."""
    if case.kind == NODE:
        return case.model, lambda: [(_arrays(given), _arrays(expected)) for given, expected in case.data_sets]
    if case.kind == REAL:
        light = Path(onnx.__file__).parents[1] / case.url
        model = onnx.load(light)
        return model, lambda: [(_made_up(model, case.model_name), [_tensor(f"{light.with_suffix('')}_output_0.pb")])]
    folder = Path(case.model_dir)
    return onnx.load(folder / "model.onnx"), lambda: [_read(each) for each in sorted(folder.glob("test_data_set_*"))]


def _read(folder: Path) -> tuple[Sequence[Any], Sequence[Any]]:
    given, expected = ([*folder.glob(f"{kind}_*.pb")] for kind in ("input", "output"))
    return (
        [_tensor(folder / f"input_{index}.pb") for index in range(len(given))],
        [_tensor(folder / f"output_{index}.pb") for index in range(len(expected))],
    )


def _tensor(path: Path | str) -> Any:
    return onnx.numpy_helper.to_array(onnx.load_tensor(path))


def _made_up(model: Any, name: str) -> list[Any]:
    """Returns the inputs of a real network: the rule is that of ONNX's own runner."""
    known = {tensor.name for tensor in model.graph.initializer}
    return [Runner.generate_dummy_data(info, name=name) for info in model.graph.input if info.name not in known]


def _arrays(values: Sequence[Any]) -> list[Any]:
    return [_array(value) for value in values]


def _array(value: Any) -> Any:
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.generic) else value


def feeds_of(case: Case, given: Sequence[Any]) -> Mapping[str, Any]:
    """Returns what is given by the names of the model's inputs, which may or may not include its initializers."""
    names = [info.name for info in case.model.graph.input]
    if len(given) < len(names):
        known = {tensor.name for tensor in case.model.graph.initializer}
        names = [name for name in names if name not in known]
    return dict(zip(names, given, strict=True))
