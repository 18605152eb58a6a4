"""Turns what people train on (arrays, tables, loaders, generators, functions) into batches of a graph's inputs."""

import math
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, cast

import numpy as np

from backwire._arrays import Array
from backwire._errors import DTypeError, InvalidRequestError, ShapeError, UnknownNameError
from backwire._info import InputInfo

Data = Any
"""Arrays by input name, a tuple of arrays, a table, an iterable of batches or what returns one; see `Session.fit`."""

Batch = Mapping[str, Any]
Batches = Iterator[Batch] | AsyncIterator[Batch]


@dataclass(frozen=True, slots=True)
class Columns:
    """Arrays with an example in each row, cut into batches anew for every epoch.

    Attributes:
        arrays: The arrays by input; those without a dimension are the same in every batch.
        size: The most examples in a batch; only the last may have fewer.
        seed: What the order is drawn from, together with the number of the epoch; None keeps the order.
        rows: Which examples take part; None for all.
    """

    arrays: Mapping[str, Array]
    size: int
    seed: int | None
    rows: Array | None = None

    @property
    def examples(self) -> int:
        """How many examples take part."""
        return len(self._all_rows()) if self.rows is None else len(self.rows)

    @property
    def batches(self) -> int | None:
        """How many batches an epoch has."""
        return -(-self.examples // self.size)

    def epoch(self, number: int, skip: int = 0) -> Iterator[Batch]:
        """Yields the batches of an epoch but the first `skip`, in an order that depends on seed and number alone."""
        rows = self._all_rows() if self.rows is None else self.rows
        if self.seed is not None:
            rows = np.random.default_rng((self.seed, number)).permutation(rows)
        for start in range(skip * self.size, len(rows), self.size):
            chosen = rows[start : start + self.size]
            yield {name: array[chosen] if array.ndim else array for name, array in self.arrays.items()}

    def split(self, share: float) -> tuple["Columns", "Columns"]:
        """Returns what remains and a share of the examples, drawn once, that is kept in order."""
        held = round(self.examples * share)
        if not 0 < held < self.examples:
            raise InvalidRequestError(
                f"validation={share} of {self.examples} examples leaves none on one side; give a share between 0 and 1",
                field="validation",
            )
        drawn = np.random.default_rng((self.seed or 0, 0)).permutation(self._all_rows())
        kept, rest = np.sort(drawn[:held]), np.sort(drawn[held:])
        return Columns(self.arrays, self.size, self.seed, rest), Columns(self.arrays, self.size, None, kept)

    def _all_rows(self) -> Array:
        return np.arange(next((len(array) for array in self.arrays.values() if array.ndim), 1))


@dataclass(slots=True)
class Stream:
    """Batches that something else makes, read from its start for every epoch.

    Attributes:
        origin: An iterable, also an asynchronous one, or a function that returns one.
        names: The inputs, which batches that are no mappings give in this order.
    """

    origin: Any
    names: Sequence[str]
    _read: bool = field(default=False, init=False)

    @property
    def batches(self) -> int | None:
        """How many batches an epoch has; None when nobody knows beforehand."""
        return len(self.origin) if hasattr(self.origin, "__len__") else None

    def epoch(self, number: int, skip: int = 0) -> Batches:
        """Returns the batches of an epoch but the first `skip`; raises InvalidRequestError where they are used up."""
        origin = self.origin() if callable(self.origin) and not _iterable(self.origin) else self.origin
        if self._read and origin is self.origin and _once(origin):
            raise InvalidRequestError(
                f"the data is a {type(origin).__name__}, which can be read once, so there is none for epoch {number}; "
                "give a list of batches, or a function that returns an iterator",
                field="data",
            )
        self._read = True
        if isinstance(origin, AsyncIterable):
            return self._arriving(origin, skip)
        if not isinstance(origin, Iterable) and not hasattr(origin, "__getitem__"):
            raise _not_data(origin)
        return (self._named(batch) for batch in islice(cast("Iterable[Any]", origin), skip, None))

    async def _arriving(self, origin: AsyncIterable[Any], skip: int) -> AsyncIterator[Batch]:
        async for batch in origin:
            if skip:
                skip -= 1
            else:
                yield self._named(batch)

    def _named(self, batch: Any) -> Batch:
        if isinstance(batch, Mapping):
            return {name: as_array(value, name) for name, value in batch.items()}
        return columns(batch if not isinstance(batch, list) else tuple(batch), self.names)


Source = Columns | Stream


def source(data: Data, inputs: Sequence[InputInfo], *, size: int, shuffle: bool | None, seed: int) -> Source:
    """Returns the batches that the data is cut into, or that it has already.

    Raises InvalidRequestError for `shuffle` where there are only batches to read, and for what is no data at all.
    """
    if size < 1:
        raise InvalidRequestError(f"batch_size={size} holds no example; use 1 or more", field="batch_size")
    names = [each.name for each in inputs]
    if not _whole(data):
        if shuffle:
            raise InvalidRequestError(
                "batches come in the order in which the data gives them; shuffle there, or give arrays",
                field="shuffle",
            )
        if not (_iterable(data) or callable(data)):
            raise _not_data(data)
        return Stream(data, names)
    found = columns(data, names)
    lengths = {name: len(array) for name, array in found.items() if array.ndim}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise ShapeError(f"the arrays have different numbers of examples, {listed}; give one row to each example")
    return Columns(found, size, None if shuffle is False else seed)


def columns(data: Data, names: Sequence[str]) -> dict[str, Array]:
    """Returns arrays by input: those of a mapping, the columns of a table, or a tuple in the order of the inputs.

    Columns of a table that are no inputs are left out.
    """
    if isinstance(data, Mapping):
        return {name: as_array(value, name) for name, value in data.items()}
    labels = _labels(data)
    if labels is not None:
        found = {name: as_array(data[name], name) for name in names if name in labels}
        if not found:
            raise UnknownNameError(f"the table has no column that is an input; inputs are {', '.join(names)}")
        return found
    given = data if isinstance(data, tuple) else (data,)
    if len(given) > len(names):
        raise InvalidRequestError(
            f"{len(given)} arrays were given for {len(names)} inputs; give them by name, as {{{names[0]!r}: ...}}"
            if names
            else "the graph has no inputs; give batches that are empty mappings",
            field="data",
        )
    return {name: as_array(value, name) for name, value in zip(names, given, strict=False)}


def as_array(value: Any, name: str) -> Array:
    """Returns an array, tensor or column as numpy's; raises DTypeError for what cannot become numbers."""
    if isinstance(value, np.ndarray) and value.dtype.kind not in "OSU":
        return value
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    try:
        plain = value.to_numpy() if hasattr(value, "to_numpy") and not hasattr(value, "__array__") else value
        found = np.asarray(plain)
        if found.dtype == object:
            found = np.stack([np.asarray(each) for each in found])
        if found.dtype.kind in "OSU":
            raise TypeError(found.dtype)
    except (TypeError, ValueError):
        raise DTypeError(
            f"input {name!r} has rows of different shapes, or of what is no number; make one array of them",
            field=f"inputs[{name}]",
        ) from None
    return found


def examples(batch: Batch, inputs: Sequence[InputInfo]) -> int:
    """Returns how many examples a batch has: the size that its Forward chooses, 1 where all shapes are fixed."""
    for each in inputs:
        if each.shape and isinstance(each.shape[0], str) and each.name in batch:
            shape = np.shape(batch[each.name])
            return int(shape[0]) if shape else 1
    return 1


def share(validation: Any) -> float | None:
    """Returns the share of the examples to hold out, None where validation is data of its own."""
    is_share = isinstance(validation, float) and math.isfinite(validation)
    return validation if is_share else None


def _whole(data: Data) -> bool:
    """Tells whether this is all of the data at once, and no series of batches."""
    if isinstance(data, tuple):
        return not any(isinstance(each, Mapping | tuple) for each in data)
    return isinstance(data, Mapping) or hasattr(data, "__array__") or _labels(data) is not None


def _labels(data: Data) -> set[str] | None:
    """Returns the column names of a table, of whatever library; None for anything else."""
    for attribute in ("column_names", "columns"):
        found = getattr(data, attribute, None)
        if found is not None and not callable(found) and hasattr(data, "__getitem__"):
            return {each for each in found if isinstance(each, str)}
    return None


def _iterable(data: Data) -> bool:
    return isinstance(data, Iterable | AsyncIterable) or (hasattr(data, "__getitem__") and not isinstance(data, type))


def _once(origin: Any) -> bool:
    ways: Sequence[tuple[type, Callable[[Any], Any]]] = ((Iterator, iter), (AsyncIterator, aiter))
    return any(isinstance(origin, kind) and start(origin) is origin for kind, start in ways)


def _not_data(data: Data) -> InvalidRequestError:
    return InvalidRequestError(
        f"{type(data).__name__} is no data; give arrays by input name, a tuple of them, a table, an iterable of "
        "batches, or a function that returns one",
        field="data",
    )
