"""What the server says of graphs, operators and gradients before anything is trained."""

from dataclasses import dataclass

from backwire._arrays import Array, DType

AttributeValue = int | float | str | Array | tuple[int, ...] | tuple[float, ...] | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ValueInfo:
    """The type of a value of a graph, for the shapes that were given."""

    name: str
    dtype: DType
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class WireBytes:
    """The bytes of tensor elements that a call sends; names and framing add some tens of bytes to each tensor."""

    request: int
    response: int


@dataclass(frozen=True, slots=True)
class NodeCost:
    """What a node of a graph takes; what several have in common is computed, and counts, at the first of them alone.

    Attributes:
        forward_flops: The floating-point operations of the node in a forward pass; see `GraphDescription`.
        backward_flops: Those that the backward pass takes for it.
        forward_seconds: The time that the node took, the median of all measured passes; 0 where none was, and with the
            executor JAX, which compiles a pass as a whole.
        backward_seconds: That of the backward pass for it.
    """

    forward_flops: int
    backward_flops: int
    forward_seconds: float
    backward_seconds: float


@dataclass(frozen=True, slots=True)
class GraphDescription:
    """What training a graph takes. Every value counts in full, also where the engine lets two share memory.

    Attributes:
        values: The graph's values by name; those computed by nodes come last, in the order in which they run.
        outputs: The outputs by name, sorted.
        parameter_count: How many elements all parameters have.
        trainable_count: How many of them steps change.
        parameter_bytes: The bytes of all parameters.
        state_bytes: What a session holds besides passes: parameters, constants, gradients, the optimizer's memory.
        forward_flops: The floating-point operations of a forward pass in train mode: two for each multiplication of
            matrix products and convolutions, one for each element that any other operator makes.
        backward_flops: Those of the backward pass.
        pass_bytes: What a pass keeps on the server for its backward.
        peak_bytes: The most that inputs, values and gradients hold at any moment, without parameters and without what
            an operator needs only while it runs.
        forward: What `Session.forward` sends when all outputs are asked for.
        train_step: What `Session.train_step` sends; None for a graph without loss.
        nodes: What each node takes, by its first output and in the order in which they run. What belongs to none, such
            as a sum of gradients, is not there.
    """

    values: dict[str, ValueInfo]
    outputs: dict[str, ValueInfo]
    parameter_count: int
    trainable_count: int
    parameter_bytes: int
    state_bytes: int
    forward_flops: int
    backward_flops: int
    pass_bytes: int
    peak_bytes: int
    forward: WireBytes
    train_step: WireBytes | None
    nodes: dict[str, NodeCost]


@dataclass(frozen=True, slots=True)
class OpInput:
    """An input of an operator; `optional` ones may be left out."""

    name: str
    optional: bool


@dataclass(frozen=True, slots=True)
class OpAttribute:
    """An attribute of an operator; `default` is None when it is required, and when its absence means something else."""

    name: str
    required: bool
    default: AttributeValue | None

    def __str__(self) -> str:
        return self.name if self.required else f"{self.name}={'...' if self.default is None else repr(self.default)}"


@dataclass(frozen=True, slots=True)
class OpInfo:
    """An operator of the server; its text is its signature and what it computes.

    Attributes:
        name: The ONNX name.
        doc: What it computes.
        inputs: The inputs, in order.
        variadic: Whether any number of further inputs may follow.
        attributes: The attributes, sorted by name.
        outputs: How many outputs it has at most; 0 means as many as are asked for.
        differentiable: Whether a gradient flows through it.
    """

    name: str
    doc: str
    inputs: tuple[OpInput, ...]
    variadic: bool
    attributes: tuple[OpAttribute, ...]
    outputs: int
    differentiable: bool

    def __str__(self) -> str:
        inputs = [f"{each.name}=None" if each.optional else each.name for each in self.inputs]
        further = ["*inputs"] if self.variadic else ["*"] if self.attributes else []
        signature = ", ".join([*inputs, *further, *map(str, self.attributes)])
        flow = "differentiable" if self.differentiable else "not differentiable"
        outputs = f"up to {self.outputs} outputs" if self.outputs > 1 else "one output"
        return f"{self.name}({signature})\n{self.doc}\n[{outputs if self.outputs else 'any number of outputs'}, {flow}]"


@dataclass(frozen=True, slots=True)
class ParameterCheck:
    """How well the gradient of a parameter and finite differences agree.

    Attributes:
        name: The parameter.
        checked: How many of its elements were checked.
        worst_error: The largest relative error, infinite where gradient or difference is.
        worst_index: The index of the element that has it.
        gradient: The gradient there.
        difference: The finite difference there.
    """

    name: str
    checked: int
    worst_error: float
    worst_index: tuple[int, ...]
    gradient: float
    difference: float


@dataclass(frozen=True, slots=True)
class GradientCheck:
    """How well the gradient of the loss and finite differences agree.

    Attributes:
        parameters: The outcome for each parameter that was checked, by name.
        dtype: What was computed with: float64, or float32 where the graph cannot be widened to it. Errors of right
            gradients are some 1e-6 in float64 and some 1e-2 in float32, more where the loss has kinks.
        loss: The loss.
    """

    parameters: dict[str, ParameterCheck]
    dtype: DType
    loss: float

    @property
    def worst_error(self) -> float:
        """The largest relative error of all parameters; 0 when none was checked."""
        return max((each.worst_error for each in self.parameters.values()), default=0.0)
