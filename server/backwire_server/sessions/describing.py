"""What a session would be, without making one; and what one is that was made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from backwire_server.engine.cost import nbytes
from backwire_server.engine.describe import Description, describe, input_types
from backwire_server.engine.errors import MissingInput
from backwire_server.engine.model import Model
from backwire_server.engine.plan_cache import PlanCache
from backwire_server.engine.profile import Profile
from backwire_server.engine.stopping import Allowance
from backwire_server.sessions.calls import DescribeCall
from backwire_server.sessions.errors import InvalidRequest, MessageTooLarge
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.scope import CallScope, CallStop
from backwire_server.sessions.spec import SessionSpec
from backwire_server.sessions.training.initializers import Initializer
from backwire_server.sessions.training.parameters import shape_of
from backwire_server.sessions.training.trainer import Trainer

LOSS_BYTES = 8  # a double
MOST_PASSES = 1_000


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


@dataclass(frozen=True, slots=True)
class MadeSession:
    """What a session was made from, what a pass takes, and by the clock; None for what was not asked or cannot be told.

    `outline` is that of its SessionSpec.
    """

    outline: bytes
    described: SessionDescription | None
    profile: Profile | None


def describe_made(
    scope: CallScope, spec: SessionSpec, trainer: Trainer, call: DescribeCall, limits: Limits, stop: CallStop
) -> MadeSession:
    """Describes a session that there is, which stays as it is, and measures passes where the call wants some.

    Raises what `describe_session` raises, InvalidRequest for a number of passes that is wrong, and what the engine
    raises for inputs that are.
    """
    if not 0 <= call.passes <= MOST_PASSES:
        raise InvalidRequest(
            f"passes is {call.passes}; give a number up to {MOST_PASSES:,}, or 0 to measure nothing", field="passes"
        )
    shapes = {**{name: array.shape for name, array in call.inputs.items()}, **call.shapes}
    values = replace(spec, sources=trainer.parameters.arrays)
    described: SessionDescription | None = None
    try:
        described = describe_session(scope, values, shapes, limits)
    except MissingInput:
        if shapes:
            raise
    measured = trainer.profile(call.inputs, call.passes, stop) if call.passes else None
    return MadeSession(spec.outline, described, measured)


def _check_inputs(input_bytes: int, limits: Limits) -> None:
    most = max(limits.max_message_bytes, limits.max_pass_bytes)
    if input_bytes > most:
        raise MessageTooLarge(
            f"inputs of these shapes hold {input_bytes:,} bytes, but those of a request may hold {most:,}; "
            "use a smaller batch",
            field="input_shapes",
            quota="max_pass_bytes",
        )
