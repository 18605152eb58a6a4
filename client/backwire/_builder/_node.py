"""What a graph that is being built consists of, besides its inputs and parameters: operations and constants."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from backwire._arrays import Array
from backwire._errors import GraphError
from backwire_api.v1 import graph_pb2

if TYPE_CHECKING:
    from backwire._builder._value import Value

AttributeValue = int | float | str | Sequence[int] | Sequence[float] | Sequence[str] | Array


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """An operation that a graph will contain; `scope` is the name of the layer it belongs to, or empty.

    `names` are attributes that name values, which the node depends on as on its inputs. `updates` pairs a frozen
    parameter with the index of the output that replaces its value after each pass in train mode.
    """

    op: str
    inputs: tuple["Value | None", ...]
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    scope: str = ""
    outputs: int = 1
    names: "Mapping[str, Value | tuple[Value, ...]]" = field(default_factory=dict)
    updates: "tuple[tuple[Value, int], ...]" = ()

    @property
    def sources(self) -> "list[Value]":
        """The values that the node depends on."""
        found = [value for value in self.inputs if value is not None]
        for named in self.names.values():
            found.extend(named if isinstance(named, tuple) else (named,))
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """An array that a graph will contain."""

    array: Array


Source = Node | Constant | graph_pb2.Input | graph_pb2.Parameter


def checked_name(name: object) -> str:
    """Returns the name; raises GraphError for one that no value can have."""
    if isinstance(name, str) and name:
        return name
    raise GraphError(f"{name!r} is no name; use a text that is not empty")
