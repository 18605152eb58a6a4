"""Whatever people train on becomes batches of a graph's inputs, in an order that can be repeated."""

from collections.abc import AsyncIterator, Iterator
from itertools import chain
from typing import Any

import numpy as np
import pytest

import backwire as bw
from backwire._arrays import FLOAT32, INT64
from backwire._info import InputInfo
from backwire._training._data import Columns, Stream, as_array, examples, source

INPUTS = (InputInfo("x", FLOAT32, ("batch", 2)), InputInfo("y", INT64, ("batch",)))
X, Y = np.arange(10.0).reshape(5, 2), np.arange(5)


class Table:
    """What tables of all libraries have in common: named columns that become arrays."""

    def __init__(self, columns: dict[str, Any]) -> None:
        self.columns = list(columns)
        self._columns = columns

    def __getitem__(self, name: str) -> Any:
        return self._columns[name]


class Column:
    def __init__(self, values: Any) -> None:
        self._values = values

    def to_numpy(self) -> Any:
        return self._values


def rows_of_objects() -> Any:
    rows = np.empty(5, object)
    rows[:] = list(X)
    return rows


def batches(data: Any, *, size: int = 2, shuffle: bool | None = False, epoch: int = 1, skip: int = 0) -> list[Any]:
    found = source(data, INPUTS, size=size, shuffle=shuffle, seed=3).epoch(epoch, skip)
    assert isinstance(found, Iterator)
    return [{name: np.asarray(value).tolist() for name, value in batch.items()} for batch in found]


EXPECTED = [
    {"x": [[0.0, 1.0], [2.0, 3.0]], "y": [0, 1]},
    {"x": [[4.0, 5.0], [6.0, 7.0]], "y": [2, 3]},
    {"x": [[8.0, 9.0]], "y": [4]},
]
SERIES = [{"x": X[:2], "y": Y[:2]}, {"x": X[2:4], "y": Y[2:4]}, {"x": X[4:], "y": Y[4:]}]


@pytest.mark.parametrize(
    "data",
    [
        {"x": X, "y": Y},
        {"x": X.tolist(), "y": Y.tolist()},
        (X, Y),
        (X.tolist(), Column(Y)),
        Table({"y": Column(Y), "name": Column(np.array(list("abcde"))), "x": Column(rows_of_objects())}),
        SERIES,
        tuple(SERIES),
        [tuple(batch.values()) for batch in SERIES],
        [list(batch.values()) for batch in SERIES],
        [Table(batch) for batch in SERIES],
        lambda: iter(SERIES),
    ],
    ids=lambda data: type(data).__name__,
)
def test_data_of_every_kind_gives_the_same_batches_in_every_epoch(data: Any) -> None:
    assert batches(data) == EXPECTED
    assert batches(data, epoch=2, skip=1) == EXPECTED[1:]


def test_a_generator_can_be_read_once() -> None:
    made = source((batch for batch in SERIES), INPUTS, size=2, shuffle=None, seed=0)
    assert len(list(made.epoch(1))) == 3  # type: ignore[arg-type]
    with pytest.raises(bw.InvalidRequestError, match=r"read once.*function that returns"):
        made.epoch(2)


def test_tensors_that_need_gradients_are_data_too() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is an extra; .ci/run installs it")
    assert as_array(torch.ones(2, 2, requires_grad=True), "x").tolist() == [[1, 1], [1, 1]]


def test_a_data_loader_gives_its_batches_anew_for_every_epoch() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is an extra; .ci/run installs it")
    data = torch.utils.data
    loader = data.DataLoader(data.TensorDataset(torch.tensor(X), torch.tensor(Y)), batch_size=2)
    made = source(loader, INPUTS, size=32, shuffle=None, seed=0)
    assert made.batches == 3
    assert batches(loader) == batches(loader, epoch=2) == EXPECTED


def test_shuffled_orders_differ_between_epochs_and_agree_between_runs() -> None:
    orders = [[batch["y"] for batch in batches({"x": X, "y": Y}, shuffle=None, epoch=epoch)] for epoch in (1, 2, 1)]
    assert orders[0] == orders[2] != orders[1]
    assert sorted(chain.from_iterable(orders[1])) == list(range(5))


def test_rows_of_inputs_stay_together_when_they_are_shuffled() -> None:
    for batch in batches({"x": X, "y": Y}, shuffle=True):
        assert [row[0] for row in batch["x"]] == [2.0 * label for label in batch["y"]]


def test_an_array_without_a_dimension_is_in_every_batch() -> None:
    assert [each["y"] for each in batches({"x": X, "y": 7})] == [7, 7, 7]


@pytest.mark.parametrize("share", [0.2, 0.4])
def test_a_share_is_held_out_that_training_never_sees(share: float) -> None:
    whole = source({"x": X, "y": Y}, INPUTS, size=5, shuffle=None, seed=3)
    assert isinstance(whole, Columns)
    rest, held = whole.split(share)
    seen, kept = (next(part.epoch(1))["y"].tolist() for part in (rest, held))
    assert len(kept) == round(5 * share)
    assert sorted(seen + kept) == list(range(5))
    assert kept == next(held.epoch(2))["y"].tolist()


@pytest.mark.parametrize("share", [0.0, 0.01, 1.0, -1.0])
def test_a_share_that_leaves_a_side_empty_is_refused(share: float) -> None:
    whole = source((X, Y), INPUTS, size=5, shuffle=None, seed=3)
    assert isinstance(whole, Columns)
    with pytest.raises(bw.InvalidRequestError, match="between 0 and 1"):
        whole.split(share)


@pytest.mark.parametrize(
    ("data", "error", "told"),
    [
        ({"x": X, "y": Y[:3]}, bw.ShapeError, "x: 5, y: 3"),
        ((X, Y, Y), bw.InvalidRequestError, "3 arrays were given for 2 inputs"),
        (Table({"z": Column(Y)}), bw.UnknownNameError, "no column that is an input; inputs are x, y"),
        ({"x": [[1, 2], [3]]}, bw.DTypeError, "rows of different shapes"),
        ({"x": np.array(["a", None])}, bw.DTypeError, "no number"),
        (5, bw.InvalidRequestError, "int is no data"),
        (None, bw.InvalidRequestError, "NoneType is no data"),
    ],
)
def test_what_is_no_data_is_refused_with_a_remedy(data: Any, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        batches(data)


def test_a_function_that_returns_no_batches_is_refused() -> None:
    with pytest.raises(bw.InvalidRequestError, match="int is no data"):
        batches(lambda: 5)


@pytest.mark.parametrize("size", [0, -3])
def test_a_batch_holds_an_example(size: int) -> None:
    with pytest.raises(bw.InvalidRequestError, match="1 or more"):
        batches({"x": X}, size=size)


def test_batches_that_come_are_not_shuffled() -> None:
    with pytest.raises(bw.InvalidRequestError, match="shuffle there"):
        batches(SERIES, shuffle=True)


def test_examples_are_counted_along_the_dimension_that_a_forward_chooses() -> None:
    fixed = InputInfo("table", FLOAT32, (7, 2))
    assert examples({"table": np.ones((7, 2)), **SERIES[0]}, (fixed, *INPUTS)) == 2
    assert examples({"table": np.ones((7, 2))}, (fixed,)) == 1


async def _arriving() -> AsyncIterator[Any]:
    for batch in SERIES:
        yield batch


def test_batches_that_arrive_are_read_as_they_come() -> None:
    import asyncio

    async def read() -> list[Any]:
        found = Stream(_arriving, ["x", "y"]).epoch(2, 1)
        assert isinstance(found, AsyncIterator)
        return [batch["y"].tolist() async for batch in found]

    assert asyncio.run(read()) == [[2, 3], [4]]
