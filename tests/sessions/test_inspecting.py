"""Looking before training: descriptions make nothing, and checks of gradients change nothing."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from backwire_server import optim
from backwire_server.engine.errors import MissingInput
from backwire_server.engine.graph import Graph, Node, Parameter, TensorType
from backwire_server.sessions.calls import CheckCall, DescribeCall, ForwardCall
from backwire_server.sessions.describing import describe_session
from backwire_server.sessions.errors import (
    Cancelled,
    DeadlineExceeded,
    GraphTooLarge,
    InvalidRequest,
    MessageTooLarge,
    NoLoss,
    OutOfMemory,
    UnknownParameter,
)
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.sessions.spec import SessionSpec

X = np.random.default_rng(2).normal(size=(6, 4)).astype(np.float32)
ALL = CheckCall({"x": X})


class TestDescriptions:
    def test_count_parameters_and_bytes(self, network: Callable[..., SessionSpec], make_session: Any) -> None:
        found = describe_session(UNBOUNDED, network(), {"x": (6, 4)}, Limits())
        assert (found.parameter_count, found.trainable_count, found.parameter_bytes) == (30, 30, 120)
        assert (found.input_bytes, found.output_bytes, found.loss_bytes) == (96, 4 * 6 * (5 + 2), 8)
        assert found.state_bytes == network().state_bytes
        session = make_session(network())
        session.forward(UNBOUNDED, ForwardCall({"x": X}))
        assert session._keeper.content.trainer.nbytes == found.state_bytes + found.graph.pass_bytes

    def test_count_the_memory_of_the_optimizer(self, network: Callable[..., SessionSpec]) -> None:
        sizes = [
            describe_session(UNBOUNDED, network(optim.Optimizer(0.1, rule)), {"x": (1, 4)}, Limits()).state_bytes
            for rule in (optim.Sgd(), optim.Adam())
        ]
        assert sizes[1] - sizes[0] == 2 * 120

    def test_tell_frozen_from_trainable(self, dot: Callable[..., SessionSpec]) -> None:
        found = describe_session(UNBOUNDED, dot(), {}, Limits())
        assert (found.parameter_count, found.trainable_count) == (6, 3)

    @pytest.mark.parametrize(
        ("limits", "shape", "error", "quota"),
        [
            ({"max_parameter_bytes": 100}, (6, 4), GraphTooLarge, "max_parameter_bytes"),
            ({"max_message_bytes": 9, "max_pass_bytes": 1_000_000}, (62_501, 4), MessageTooLarge, "max_pass_bytes"),
        ],
    )
    def test_hold_to_the_limits(
        self, network: Any, limits: Any, shape: tuple[int, int], error: type[Exception], quota: str
    ) -> None:
        with pytest.raises(error) as raised:
            describe_session(UNBOUNDED, network(), {"x": shape}, Limits(**limits))
        assert raised.value.quota == quota  # type: ignore[attr-defined]

    def test_end_when_nobody_waits(self, network: Any, scope: Any) -> None:
        with pytest.raises(DeadlineExceeded):
            describe_session(scope(seconds=0), network(), {"x": (6, 4)}, Limits())
        with pytest.raises(MissingInput):
            describe_session(UNBOUNDED, network(), {}, Limits())


class TestChecks:
    def test_find_the_gradients_right_and_change_nothing(
        self, network: Any, make_session: Any, values: Any, gradients: Any
    ) -> None:
        session, twin = make_session(network()), make_session(network())
        before, info = values(session), session.info()
        found = session.check_gradients(UNBOUNDED, ALL)
        assert [each.name for each in found.parameters] == ["w1", "w2"]
        assert all(each.error < 1e-6 for each in found.parameters)
        after = session.info()
        assert (after.step, after.contributions, after.forward_ids) == (info.step, info.contributions, ())
        for name, array in values(session).items():
            np.testing.assert_array_equal(array, before[name])
            assert not gradients(session)[name].any()
        next_passes = [each.forward(UNBOUNDED, ForwardCall({"x": X})) for each in (session, twin)]
        assert next_passes[0].forward_id == next_passes[1].forward_id
        np.testing.assert_array_equal(next_passes[0].outputs["d1"], next_passes[1].outputs["d1"])

    def test_see_the_loss_of_the_next_pass(self, network: Any, make_session: Any) -> None:
        session = make_session(network())
        session.forward(UNBOUNDED, ForwardCall({"x": X}))
        loss = session.check_gradients(UNBOUNDED, ALL).loss
        assert session.forward(UNBOUNDED, ForwardCall({"x": X})).loss == pytest.approx(loss, rel=1e-5)

    def test_leave_no_bytes_behind(self, network: Any, make_store: Any) -> None:
        store = make_store()
        session = store.get(store.create(UNBOUNDED, network()).session_id)
        used = store.budget.used
        session.check_gradients(UNBOUNDED, ALL)
        assert store.budget.used == used

    def test_need_memory_in_the_budget(self, network: Any, make_session: Any) -> None:
        session = make_session(network(), max_total_bytes=network().state_bytes + 500)
        with pytest.raises(OutOfMemory):
            session.check_gradients(UNBOUNDED, ALL)

    def test_end_between_evaluations(self, network: Any, make_session: Any, scope: Any) -> None:
        with pytest.raises(Cancelled):
            make_session(network()).check_gradients(scope(checks=10), ALL)

    def test_refuse_what_cannot_be_checked(self, dot: Any, make_session: Any) -> None:
        session = make_session(dot())
        inputs = {"x": np.ones(3)}
        with pytest.raises(UnknownParameter, match="trainable parameter 'c'"):
            session.check_gradients(UNBOUNDED, CheckCall(inputs, ("c",)))
        with pytest.raises(InvalidRequest) as raised:
            session.check_gradients(UNBOUNDED, CheckCall(inputs, max_elements=-1))
        assert raised.value.field == "max_elements"
        spec = dot()
        graph = type(spec.graph)(
            spec.graph.inputs, spec.graph.parameters, {}, spec.graph.nodes, spec.graph.outputs, None
        )
        with pytest.raises(NoLoss):
            make_session(SessionSpec(graph, spec.sources)).check_gradients(UNBOUNDED, CheckCall(inputs))


class TestDescriptionsOfSessions:
    def test_are_those_of_their_graphs(self, network: Any, make_session: Any) -> None:
        found = make_session(network()).describe(UNBOUNDED, DescribeCall(shapes={"x": (6, 4)}))
        assert found.described == describe_session(UNBOUNDED, network(), {"x": (6, 4)}, Limits())
        assert found.profile is None

    def test_know_the_values_that_shapes_depend_on(self, make_session: Any) -> None:
        w = Parameter("w", TensorType.of("float32", (6,)))
        size = Parameter("size", TensorType.of("int64", (2,)), frozen=True)
        graph = Graph(parameters=(w, size), nodes=(Node("Reshape", ("w", "size"), ("r",)),), outputs={"r": "r"})
        session = make_session(SessionSpec(graph, {"w": np.ones(6, "f4"), "size": np.array([2, 3])}))
        assert session.describe(UNBOUNDED, DescribeCall()).described.graph.values["r"].shape == (2, 3)

    def test_measure_the_next_pass_and_change_nothing(self, network: Any, make_session: Any, values: Any) -> None:
        session, twin = make_session(network()), make_session(network())
        before = values(session)
        found = session.describe(UNBOUNDED, DescribeCall({"x": X}, passes=2))
        assert list(found.profile.nodes) == list(found.described.graph.nodes)
        assert found.profile.backward_seconds > 0
        for name, array in values(session).items():
            np.testing.assert_array_equal(array, before[name])
        next_passes = [each.forward(UNBOUNDED, ForwardCall({"x": X})) for each in (session, twin)]
        assert next_passes[0].forward_id == next_passes[1].forward_id
        np.testing.assert_array_equal(next_passes[0].outputs["d1"], next_passes[1].outputs["d1"])

    def test_leave_no_bytes_behind(self, network: Any, make_store: Any) -> None:
        store = make_store()
        session = store.get(store.create(UNBOUNDED, network()).session_id)
        used = store.budget.used
        session.describe(UNBOUNDED, DescribeCall({"x": X}, passes=1))
        assert store.budget.used == used

    def test_need_memory_in_the_budget(self, network: Any, make_session: Any) -> None:
        session = make_session(network(), max_total_bytes=network().state_bytes + 100)
        with pytest.raises(OutOfMemory):
            session.describe(UNBOUNDED, DescribeCall({"x": X}, passes=1))

    def test_end_when_nobody_waits(self, network: Any, make_session: Any, scope: Any) -> None:
        session = make_session(network())
        with pytest.raises(DeadlineExceeded):
            session.describe(scope(seconds=0), DescribeCall({"x": X}, passes=1))

    def test_name_what_is_wrong(self, network: Any, make_session: Any) -> None:
        session = make_session(network())
        with pytest.raises(InvalidRequest) as raised:
            session.describe(UNBOUNDED, DescribeCall(passes=-1))
        assert raised.value.field == "passes"
        with pytest.raises(MissingInput):
            session.describe(UNBOUNDED, DescribeCall(passes=1))
