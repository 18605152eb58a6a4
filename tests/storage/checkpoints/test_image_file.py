"""A checkpoint is the image to the bit, or it is refused."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given
from tests.storage.drawing import damaged, images, joined, told

from backwire_api.tensors import Bytes
from backwire_server.sessions.calls import CountResult, ForwardCall, ForwardResult, LeaseCall
from backwire_server.sessions.errors import SessionQuarantined
from backwire_server.sessions.requests import RequestKey
from backwire_server.sessions.training.state import Image, PassImage, RequestImage, State
from backwire_server.storage.checkpoints import image_file, state_file, tensorfile
from backwire_server.storage.checkpoints.image_file import FORMAT, image_content, read_image

DOCUMENTATION = Path(__file__).resolve().parents[3] / "docs/storage.md"
W, C = np.array([1.5, -2.0], np.float32), np.array([[True]])
STATE = State(3, 5, 1, 2.5, {"w": W, "c": C}, {"w": W * 2}, {"mean": {"w": W * 3}})
OLD = {"w": W * 4, "c": C}


def full() -> Image:
    call = ForwardCall({"x": np.arange(3, dtype=ml_dtypes.bfloat16)}, ("y",), "p", chunked=True, data_parallel=2)
    passes = [PassImage("p", call, 3, 1, OLD), PassImage("q", call, 4, 2, STATE.parameters)]
    passes += [PassImage("r", call, 4, 2, OLD)]
    answers = [RequestImage(RequestKey("a", b"1"), ForwardResult("p", {"y": W}, 0.5, 2))]
    answers += [RequestImage(RequestKey("b", b"2"), None), RequestImage(RequestKey("c", b"3"), CountResult(7))]
    return Image(STATE, passes, answers, LeaseCall(2, "me", 1.5))


def parts(image: Image, record: int, created: float) -> Iterator[Bytes]:
    return tensorfile.tensor_parts(*image_content(image, record, created))


def written(path: Path, image: Image, record: int = 9, created: float = 1.7e9) -> Path:
    path.write_bytes(joined(parts(image, record, created)))
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files") / "checkpoint"


@given(image=images())
def test_an_image_comes_back_with_the_same_bits(path: Path, image: Image) -> None:
    found, metadata = read_image(written(path, image, 12, 1.7e9 + 0.1))
    assert told(found) == told(image)
    assert found.state.digest() == metadata["digest"] == image.state.digest()
    assert (metadata["format"], metadata["record"], float(metadata["created"])) == (FORMAT, "12", 1.7e9 + 0.1)


def test_parameters_that_passes_share_are_shared_again(tmp_path: Path) -> None:
    found, _ = read_image(written(tmp_path / "file", full()))
    first, second, third = found.passes
    assert second.parameters is found.state.parameters
    assert first.parameters is third.parameters
    assert first.parameters["c"] is found.state.parameters["c"]


def test_parameters_are_stored_once_for_all_who_share_them() -> None:
    image = full()
    alone = len(joined(parts(Image(STATE), 1, 0.0)))
    big = {"w": np.zeros(50_000), "c": C}
    state = replace(STATE, parameters=big)
    passes = [replace(each, parameters={**big, "c": np.array([[each.number == 3]])}) for each in image.passes]
    assert len(joined(parts(Image(state, passes), 1, 0.0))) < alone + 400_000 + 4_000


def test_a_detached_image_comes_back_as_the_image(tmp_path: Path) -> None:
    assert told(read_image(written(tmp_path / "file", full().detached()))[0]) == told(full())


def test_a_public_library_reads_a_checkpoint(tmp_path: Path) -> None:
    path = written(tmp_path / "file", replace_inputs(full()))
    found = safetensors.numpy.load_file(path)
    assert told(found["parameters/w"]) == told(W)
    assert told(found["gradients/w"]) == told(W * 2)
    assert told(found["optimizer/mean/w"]) == told(W * 3)
    assert told(found["versions/1/w"]) == told(OLD["w"])
    with safetensors.safe_open(path, "np") as file:
        metadata = file.metadata()
    assert (metadata["step"], metadata["forwards"], metadata["contributions"]) == ("3", "5", "1")
    assert float.fromhex(metadata["total_weight"]) == 2.5


def test_the_example_in_the_documentation_reads_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "checkpoint-00000000000000000042.safetensors", replace_inputs(full()))
    section = DOCUMENTATION.read_text().split("## Checkpoints")[1].split("## ")[0]
    (example,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    exec(example, {})
    assert capsys.readouterr().out.splitlines() == ["step 3", "c bool (1, 1)", "w float32 (2,)"]


def replace_inputs(image: Image) -> Image:
    """The library knows bfloat16, but not its functions for numpy."""
    passes = [replace(each, call=replace(each.call, inputs={"x": W})) for each in image.passes]
    return replace(image, passes=passes)


def test_a_checkpoint_that_is_cut_anywhere_or_has_any_bit_turned_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "file", full())
    for what in damaged(path):
        with pytest.raises(SessionQuarantined) as caught:
            read_image(path)
        assert str(caught.value).startswith(f"{path}: "), what
        assert str(caught.value).endswith("or delete the session"), what


def rewritten(path: Path, change: Callable[[dict[str, Any]], object], *, indent: int | None = None) -> None:
    """Writes a file again with what was changed in its header."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    changed = change(header)
    text = json.dumps(header if changed is None else changed, indent=indent).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[end:])


def swapped(header: dict[str, Any], one: str, other: str, key: str) -> None:
    header[one][key], header[other][key] = header[other][key], header[one][key]


def reordered(header: dict[str, Any], last: str) -> dict[str, Any]:
    return {**{name: entry for name, entry in header.items() if name != last}, last: header[last]}


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "parameters in another order": lambda header: reordered(header, "parameters/w"),
    "other tensors in another order": lambda header: reordered(header, "passes/1/x"),
    "a parameter of another dtype": lambda header: header["parameters/w"].update(dtype="I32"),
    "a parameter of another shape": lambda header: header["parameters/w"].update(shape=[2, 1]),
    "an answer of another dtype": lambda header: header["answers/1/y"].update(dtype="U32"),
    "an answer of another shape": lambda header: header["answers/1/y"].update(shape=[1, 2]),
    "the places of two tensors swapped": lambda header: swapped(header, "parameters/w", "gradients/w", "data_offsets"),
    "a parameter of another name": lambda header: header.update({"parameters/v": header.pop("parameters/w")}),
    "a gradient as what the optimizer remembers": lambda header: header.update(
        {"optimizer/mean/v": header.pop("gradients/w")}
    ),
    "a tensor that is not told": lambda header: header.pop("gradients/w") and None,
    "another text": lambda header: header["__metadata__"].update(created="3.0"),
    "one more text": lambda header: header["__metadata__"].update(more=""),
    "a text fewer": lambda header: header["__metadata__"].pop("record") and None,
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_header_that_tells_anything_else_is_refused(tmp_path: Path, what: str) -> None:
    path = written(tmp_path / "file", full())
    rewritten(path, CHANGES[what])
    with pytest.raises(SessionQuarantined):
        read_image(path)


def test_bytes_behind_the_last_tensor_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "file", full())
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(SessionQuarantined, match="follow the header"):
        read_image(path)


def test_the_same_header_in_other_words_tells_the_same(tmp_path: Path) -> None:
    path = written(tmp_path / "file", full())
    before = read_image(path)
    rewritten(path, lambda header: reordered(header, "__metadata__"), indent=3)
    assert told(read_image(path)) == told(before)


def resealed(changed: dict[str, str], without: str = "") -> bytes:
    """A file in which everything is in order but for these texts."""
    others = image_file._others(full())
    others.pop(without, None)
    metadata = {"format": FORMAT, **state_file.state_metadata(STATE), "record": "1", "created": "2.0", **changed}
    metadata["seal"] = state_file.seal(metadata, others)
    return joined(tensorfile.tensor_parts({**state_file.state_arrays(STATE), **others}, metadata))


@pytest.mark.parametrize(
    ("changed", "without", "reason"),
    [
        ({"format": "backwire-checkpoint-2"}, "", "its format is 'backwire-checkpoint-2'"),
        ({"step": "-1"}, "", "'-1' is no count"),
        ({"step": "1_0"}, "", "is no count"),
        ({"forwards": str(2**63)}, "", "is no count"),
        ({"contributions": "9" * 5_000}, "", "is no count"),
        ({"total_weight": "much"}, "", "do not tell the state"),
        ({"step": "4"}, "", "has the digest"),
        ({"total_weight": (2.25).hex()}, "", "has the digest"),
        ({"digest": "none"}, "", "not none"),
        ({}, "session", "does not tell of passes"),
    ],
)
def test_a_checkpoint_without_sense_is_refused(
    tmp_path: Path, changed: dict[str, str], without: str, reason: str
) -> None:
    (tmp_path / "file").write_bytes(resealed(changed, without))
    with pytest.raises(SessionQuarantined, match=reason):
        read_image(tmp_path / "file")


def test_a_checkpoint_that_is_missing_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "none")


def test_a_checkpoint_takes_no_copies_of_arrays() -> None:
    views: list[Any] = [part for part in parts(full(), 1, 2.0) if not isinstance(part, bytes)]
    assert sum(np.shares_memory(view, W) for view in views) == 2  # the parameter, and the output that shares its memory
