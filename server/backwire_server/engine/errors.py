"""What can be wrong with a graph or with the values given to it.

EngineError
├── GraphError            the graph itself is malformed
│   ├── CyclicGraph
│   ├── UnknownOp
│   ├── InvalidAttribute
│   ├── NotDifferentiable
│   ├── NotTraceable
│   └── NotSplittable
├── ShapeMismatch         shapes do not fit together
├── DtypeMismatch         element types do not fit together
├── MissingInput          an input that is needed was not given
├── UnknownInput          an input that the graph does not have was given
├── UnknownOutput         an output that the graph does not have was asked for
├── InvalidValue          an element is outside what the op accepts
└── TooCostly             what is asked for takes more than it may
"""

from typing import Self


class EngineError(ValueError):
    """The root: `field` is the path of what was wrong, such as `graph.nodes[3]` or `inputs[x]`, or empty."""

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.field = field

    def within(self, context: str, field: str) -> Self:
        """Returns the same error with the context before its message, for an error found deep inside a node."""
        return type(self)(f"{context}: {self}", field=self.field or field)


class GraphError(EngineError):
    """The graph is malformed: names undefined or defined twice, wrong arity, a loss that is not one element."""


class CyclicGraph(GraphError):
    """The nodes depend on one another in a circle."""


class UnknownOp(GraphError):
    """The graph names an operator that the engine does not have."""


class InvalidAttribute(GraphError):
    """An attribute is unknown to its operator, missing, or of the wrong kind."""


class NotDifferentiable(GraphError):
    """A gradient was asked for through an operator, or of a value, that has none."""


class NotTraceable(GraphError):
    """An operator cannot run on the executor that is asked to, or not with inputs that are known only when it runs."""


class NotSplittable(GraphError):
    """Batches of the graph cannot be cut into parts that are computed apart from one another."""


class ShapeMismatch(EngineError):
    """Shapes do not fit together."""


class DtypeMismatch(EngineError):
    """Element types do not fit together."""


class MissingInput(EngineError):
    """An input that the requested values depend on was not given."""


class UnknownInput(EngineError):
    """An input was given that the graph does not have."""


class UnknownOutput(EngineError):
    """An output was named that the graph does not have."""


class InvalidValue(EngineError):
    """An element is outside what the operator accepts, such as an index past the end of an axis."""


class TooCostly(EngineError):
    """What is asked for takes more time than it may: `quota` names the limit, if that is a setting."""

    def __init__(self, message: str, *, field: str = "", quota: str = "") -> None:
        super().__init__(message, field=field)
        self.quota = quota
