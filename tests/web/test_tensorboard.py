"""Event files of `bw.TensorBoard`, read back record by record."""

import gc
import math
import struct
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c

import backwire as bw

Series = dict[str, list[tuple[int, float]]]

X = {"x": [1.0, 1.0, 2.0, 2.0]}


@pytest.fixture(scope="module")
def client() -> Iterator[bw.Client]:
    with bw.connect("embedded") as client:
        yield client


@pytest.fixture
def session(client: bw.Client) -> bw.Session:
    x = bw.input("x", ("batch",))
    loss = bw.squared_error(bw.parameter("w", 0.0) * x, 3 * x)
    return client.create_session(bw.graph(loss=loss, outputs={"size": bw.mean(x)}), bw.SGD(0.05))


def events(path: Path) -> Iterator[Event]:
    """The events of a file, in which every length and every event has a checksum."""
    content = path.read_bytes()
    while content:
        head, checksum = content[:8], content[8:12]
        (length,) = struct.unpack("<Q", head)
        assert struct.pack("<I", masked_crc32c(head)) == checksum
        data, content = content[12 : 12 + length], content[12 + length :]
        assert struct.pack("<I", masked_crc32c(data)) == content[:4]
        content = content[4:]
        yield Event.FromString(data)


def series(directory: Path) -> Series:
    found: Series = defaultdict(list)
    for path in directory.glob("events.out.tfevents.*"):
        for event in events(path):
            for value in event.summary.value:
                found[value.tag].append((event.step, value.simple_value))
    return found


def rounded(values: list[Any]) -> Any:
    return pytest.approx(values, rel=1e-6)


def test_every_step_is_written_under_its_number(session: bw.Session, tmp_path: Path) -> None:
    session.fit({"x": [1.0]})
    history = session.fit(X, epochs=2, batch_size=2, shuffle=False, callbacks=[bw.TensorBoard(tmp_path)])
    found = series(tmp_path)
    for name in ("loss", "gradient_norm", "learning_rate"):
        steps, values = zip(*found[f"step/{name}"], strict=True)
        assert steps == (2, 3, 4, 5)
        assert list(values) == rounded([getattr(each, name) for each in history])


def test_every_epoch_is_written_with_its_validation_and_metrics(session: bw.Session, tmp_path: Path) -> None:
    history = session.fit(
        X, epochs=3, validation={"x": [5.0]}, metrics=["size"], callbacks=[bw.TensorBoard(tmp_path / "new" / "run")]
    )
    found = series(tmp_path / "new" / "run")
    for kind in ("epoch", "validation"):
        for name in ("loss", "size"):
            numbers, values = zip(*found[f"{kind}/{name}"], strict=True)
            assert numbers == (1, 2, 3)
            figures = [each.figures if kind == "epoch" else each.validation for each in history.epochs]
            assert list(values) == rounded([each[name] for each in figures])


def test_a_loss_that_is_no_number_is_written_as_it_is(client: bw.Client, tmp_path: Path) -> None:
    x = bw.input("x", ("batch",))
    session = client.create_session(bw.mean(bw.parameter("w", -1.0) * bw.log(x)), bw.SGD(0.05))
    session.fit({"x": [-1.0]}, non_finite="skip", callbacks=[bw.TensorBoard(tmp_path)])
    [(_, loss)] = series(tmp_path)["step/loss"]
    assert math.isnan(loss)


def test_each_fit_has_a_file_of_its_own(session: bw.Session, tmp_path: Path) -> None:
    callback = bw.TensorBoard(str(tmp_path))
    history = session.fit({"x": [1.0]}, epochs=1, callbacks=[callback])
    session.fit({"x": [1.0]}, epochs=2, callbacks=[callback], history=history)
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 2
    assert sorted(step for step, _ in series(tmp_path)["step/loss"]) == [1, 2]


class Fails(bw.Callback):
    def on_step(self, training: bw.Training, result: bw.TrainStepResult) -> None:  # noqa: ARG002
        if result.step == 3:
            raise RuntimeError("no more")


def test_an_error_leaves_the_steps_before_it_in_the_file(session: bw.Session, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        session.fit({"x": [1.0] * 5}, batch_size=1, callbacks=[bw.TensorBoard(tmp_path), Fails()])
    gc.collect()
    assert [step for step, _ in series(tmp_path)["step/loss"]] == [1, 2, 3]


def test_without_the_package_the_extra_is_named(
    session: bw.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(bw.MissingExtraError, match=r"pip install 'backwire\[tensorboard\]'"):
        session.fit({"x": [1.0]}, callbacks=[bw.TensorBoard(tmp_path)])
    assert session.info().step == 0
