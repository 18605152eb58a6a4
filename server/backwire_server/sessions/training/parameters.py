"""The parameters of a session: those that steps change, and those that are frozen."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from backwire_server.engine.errors import DtypeMismatch, GraphError, ShapeMismatch
from backwire_server.engine.graph import Graph, Parameter
from backwire_server.optim import FlatLayout
from backwire_server.parallel.segment import Segment
from backwire_server.sessions.errors import InvalidRequest, UnknownParameter
from backwire_server.sessions.training.initializers import DTYPES
from backwire_server.sessions.training.versions import Array, SharedVersion, Version, Versioned


def trainable_layout(graph: Graph) -> FlatLayout:
    """Returns where the trainable parameters lie; raises GraphError for one whose type cannot be trained."""
    for index, parameter in enumerate(graph.parameters):
        if not parameter.frozen and parameter.type.dtype not in DTYPES:
            raise GraphError(
                f"parameter {parameter.name!r} is {parameter.type.dtype.name}, which cannot be trained; freeze it, or "
                "use float32 or float64",
                field=f"graph.parameters[{index}]",
            )
    return FlatLayout({p.name: (p.type.dtype, shape_of(p)) for p in graph.parameters if not p.frozen})


def shape_of(parameter: Parameter) -> tuple[int, ...]:
    """Returns the shape of a parameter, which is never symbolic."""
    return tuple(int(size) for size in parameter.type.shape)


def check_value(declared: Mapping[str, Parameter], name: str, dtype: np.dtype[Any], shape: Sequence[int]) -> None:
    """Raises UnknownParameter, DtypeMismatch or ShapeMismatch unless this may become the value of a parameter."""
    path = f"parameters[{name}]"
    if name not in declared:
        raise UnknownParameter(f"the graph has no parameter {name!r}; {known(declared)}", field=path)
    parameter = declared[name]
    if dtype != parameter.type.dtype:
        raise DtypeMismatch(
            f"parameter {name!r} is {parameter.type}, but was given {dtype.name}; convert it", field=path
        )
    if tuple(shape) != parameter.type.shape:
        raise ShapeMismatch(
            f"parameter {name!r} is {parameter.type}, but was given shape {list(shape)}; give it its own shape",
            field=path,
        )


class ParameterStore:
    """The current value of every parameter. For one thread at a time.

    Attributes:
        trainable: The values that steps change, copied on write.
    """

    def __init__(self, graph: Graph, values: Mapping[str, Array], shared: Version | None = None) -> None:
        """Takes over the frozen values; copies the others, unless they are those of a version of another store."""
        self._declared = {parameter.name: parameter for parameter in graph.parameters}
        self.layout = trainable_layout(graph)
        if shared is None:
            shared = Version(self.layout, self.layout.pack({name: values[name] for name in self.layout.slots}))
        else:
            shared.share()
        self.trainable = Versioned(shared)
        self._frozen = {name: values[name] for name, parameter in self._declared.items() if parameter.frozen}
        self._arrays: Mapping[str, Array] | None = None

    @property
    def arrays(self) -> Mapping[str, Array]:
        """All values by name, in the graph's order; a new mapping after every change."""
        if self._arrays is None:
            values = self.current.arrays
            self._arrays = {name: values[name] if name in values else self._frozen[name] for name in self._declared}
        return self._arrays

    @property
    def current(self) -> Version:
        """The current values of the trainable parameters."""
        return self.trainable.current

    @property
    def is_shared(self) -> bool:
        """Whether helper processes can read the current values of the trainable parameters."""
        return isinstance(self.current, SharedVersion)

    def share(self) -> Segment:
        """Returns where helper processes can read the trainable parameters, which lie there from now on."""
        current = self.current
        if not isinstance(current, SharedVersion):
            current = current.shared()
            self.trainable.replace(current)
            self.refresh()
        return current.segment

    @property
    def frozen(self) -> Mapping[str, Array]:
        """The frozen values by name; a new mapping after every change."""
        return self._frozen

    @property
    def buffers(self) -> Mapping[int, int]:
        """The bytes of each piece of memory that the current values lie in, by the identity of its owner."""
        return {id(self.current): self.current.nbytes, **{id(array): array.nbytes for array in self._frozen.values()}}

    def staying(self, changing: Collection[str]) -> set[int]:
        """The identities of the `buffers` that are still in use after these parameters have changed."""
        kept = {id(array) for name, array in self._frozen.items() if name not in changing}
        return kept if any(name in self.layout.slots for name in changing) else kept | {id(self.current)}

    def refresh(self) -> None:
        """Has `arrays` made anew, after a new version of the trainable parameters."""
        self._arrays = None

    def select(self, names: Sequence[str]) -> list[str]:
        """Returns the names, all in the graph's order for none; raises UnknownParameter, InvalidRequest for twice."""
        return checked_names(names, self._declared, "parameter")

    def replace(self, values: Mapping[str, Array], *, leaving: int) -> None:
        """Replaces values that passed `check_value`; see `Versioned.writing` for `leaving`."""
        frozen = {name: array for name, array in values.items() if self._declared[name].frozen}
        trainable = values.keys() - frozen.keys()
        if trainable:
            with self.trainable.writing(leaving=leaving) as version:
                for name in trainable:
                    np.copyto(version.arrays[name], values[name])
        self.replace_frozen(frozen)

    def replace_frozen(self, values: Mapping[str, Array]) -> None:
        """Replaces frozen values, of the right types; whoever holds the old ones keeps them."""
        self._frozen = {**self._frozen, **{name: array.copy() for name, array in values.items()}}
        self.refresh()


def checked_names(names: Sequence[str], allowed: Mapping[str, object], what: str) -> list[str]:
    """Returns the names, or all that are allowed when there are none.

    Raises UnknownParameter for a name that is not allowed, InvalidRequest for one that comes twice.
    """
    for index, name in enumerate(names):
        if name not in allowed:
            raise UnknownParameter(f"there is no {what} {name!r}; {known(allowed)}", field=f"names[{index}]")
    if len(set(names)) != len(names):
        raise InvalidRequest("a name comes twice; name each parameter once", field="names")
    return list(names or allowed)


def known(names: Mapping[str, object]) -> str:
    """Returns what a message says about the names that exist."""
    shown = list(names)[:20]
    return f"use one of: {', '.join(shown) or 'none'}" + (", ..." if len(names) > len(shown) else "")
