"""What a session would be, without making one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from backwire_server.engine.cost import nbytes
from backwire_server.engine.describe import Description, describe, input_types
from backwire_server.engine.model import Model
from backwire_server.engine.plan_cache import PlanCache
from backwire_server.engine.stopping import Allowance
from backwire_server.sessions.errors import MessageTooLarge
from backwire_server.sessions.initializers import Initializer
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.parameters import shape_of
from backwire_server.sessions.scope import CallScope
from backwire_server.sessions.spec import SessionSpec

LOSS_BYTES = 8  # a double


@dataclass(frozen=True, slots=True)
class SessionDescription:
    """What a session of a graph would hold, compute and send; see DescribeGraphResponse in the contract."""

    graph: Description
    parameter_count: int
    trainable_count: int
    parameter_bytes: int
    state_bytes: int
    input_bytes: int
    output_bytes: int
    loss_bytes: int


def describe_session(
    scope: CallScope, spec: SessionSpec, shapes: Mapping[str, Sequence[int]], limits: Limits
) -> SessionDescription:
    """Describes a session for inputs of these shapes; keeps nothing and draws no parameter.

    Raises EngineError for a graph or shapes that are wrong, LimitExceeded for what is too large, OptimizerError.
    """
    spec.check(limits)
    state_bytes = spec.state_bytes
    compiling = Allowance(limits.max_compile_time, scope.stop)
    model = Model(PlanCache(spec.graph, compiling))
    inputs = input_types(spec.graph, shapes)
    input_bytes = sum(map(nbytes, inputs.values()))
    _check_inputs(input_bytes, limits)
    scope.check()
    known = {name: source for name, source in spec.sources.items() if not isinstance(source, Initializer)}
    found = describe(spec.graph, model.trainable, inputs, known, compiling)
    sizes = {item.name: prod(shape_of(item)) for item in spec.graph.parameters}
    return SessionDescription(
        graph=found,
        parameter_count=sum(sizes.values()),
        trainable_count=sum(sizes[name] for name in model.trainable),
        parameter_bytes=sum(source.nbytes for source in spec.sources.values()),
        state_bytes=state_bytes,
        input_bytes=input_bytes,
        output_bytes=sum(map(nbytes, found.outputs.values())),
        loss_bytes=LOSS_BYTES if spec.graph.loss is not None else 0,
    )


def _check_inputs(input_bytes: int, limits: Limits) -> None:
    most = max(limits.max_message_bytes, limits.max_pass_bytes)
    if input_bytes > most:
        raise MessageTooLarge(
            f"inputs of these shapes hold {input_bytes:,} bytes, but those of a request may hold {most:,}; "
            "use a smaller batch",
            field="input_shapes",
            quota="max_pass_bytes",
        )
