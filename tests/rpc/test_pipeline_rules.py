"""Any sequence of requests on a stream does what calls of their own do, but for what depends on a failure."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import grpc
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backwire_api import tensors
from backwire_api.v1 import gradient_service_pb2 as pb

X = {"x": tensors.encode(np.array([1.0, -2.0, 4.0]))}
BAD = {"x": tensors.encode(np.array([1.0, -2.0]))}
METHODS = {
    "forward": "Forward",
    "backward": "Backward",
    "step": "Step",
    "train_step": "TrainStep",
    "zero_gradients": "ZeroGradients",
}

inputs = st.sampled_from([X, X, BAD])
names = st.sampled_from(["a", "b"])
options = st.sampled_from([pb.StepOptions(), pb.StepOptions(learning_rate=0.1), pb.StepOptions(expected_step=99)])
requests = st.one_of(
    st.builds(pb.ForwardRequest, inputs=inputs, forward_id=names),
    st.builds(pb.ForwardRequest, inputs=inputs, mode=st.just(pb.MODE_EVAL)),
    st.builds(pb.BackwardRequest, forward_id=names, wrt=st.just(["x"]), retain=st.booleans()),
    st.builds(pb.StepRequest, options=options),
    st.builds(pb.TrainStepRequest, inputs=inputs, options=options, outputs=st.just(["y"])),
    st.builds(pb.ZeroGradientsRequest),
)
programs = st.lists(st.tuples(requests, st.sampled_from(pb.Dependency.values())), max_size=14)


@dataclass
class Rules:
    """What Dependency in the contract says, for one session."""

    gradients: int = 0
    previous: int = 0
    passes: dict[str, int] = field(default_factory=dict)

    def blocked_by(self, kind: str, request: Any, dependency: int) -> int:
        if dependency == pb.DEPENDENCY_NONE:
            self.gradients, self.previous, self.passes = 0, 0, {}
        blockers = [self.previous if dependency == pb.DEPENDENCY_PREVIOUS else 0]
        if kind == "backward":
            blockers.append(self.passes.get(request.forward_id, 0))
        if kind in ("step", "train_step"):
            blockers.append(self.gradients)
        return next((each for each in blockers if each), 0)

    def note(self, kind: str, request: Any, failed: int) -> None:
        self.previous = failed
        if kind == "forward" and request.mode != pb.MODE_EVAL:
            self.passes[request.forward_id] = failed
        changes = kind in ("backward", "step", "zero_gradients") or (kind == "forward" and request.mode != pb.MODE_EVAL)
        if changes and failed:
            self.gradients = self.gradients or failed
        if kind == "zero_gradients" and not failed:
            self.gradients = 0


def kind_of(request: Any) -> str:
    return next(kind for kind, method in METHODS.items() if type(request).__name__ == f"{method}Request")


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(program=programs)
def test_a_stream_does_what_calls_do_and_stops_what_depends_on_a_failure(
    api: Any, converse: Any, failure: Any, refused: Any, program: list[tuple[Any, int]]
) -> None:
    streamed, called = api.create(seed=1), api.create(seed=1)
    stream, rules = converse(api), Rules()
    for request, dependency in program:
        request.session_id = streamed
        stream.send(dependency=dependency, **{kind_of(request): request})
    answers = stream.answers()
    assert len(answers) == len(program)
    for number, ((request, dependency), answer) in enumerate(zip(program, answers, strict=True), 1):
        kind, first = kind_of(request), 0
        request.session_id = called
        blocker = rules.blocked_by(kind, request, dependency)
        if blocker:
            first = blocker
            assert failure(answer) == ("DEPENDENCY_FAILED", blocker)
        else:
            call = partial(getattr(api.stub, METHODS[kind]), request, timeout=20)
            try:
                assert getattr(answer, kind) == call()
            except grpc.RpcError:
                first = number
                assert failure(answer) == (refused(call).reason, 0)
        rules.note(kind, request, first)
    one, other = api.info(streamed), api.info(called)
    assert (one.step, one.contributions, one.forward_ids) == (other.step, other.contributions, other.forward_ids)
    assert api.parameters(streamed)["w"].tobytes() == api.parameters(called)["w"].tobytes()
    for session in (streamed, called):
        api.stub.DeleteSession(pb.DeleteSessionRequest(session_id=session))
