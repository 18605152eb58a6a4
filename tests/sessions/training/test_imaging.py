"""An image is the state to the bit, and stays so; what is made from it has memory of its own where that is promised."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from tests.sessions.images import FLAT, again, begun, do, x
from tests.storage.drawing import told
from tests.storage.durable import batch
from tests.storage.durable import network as running_means

from backwire_server import optim
from backwire_server.sessions.budget import Budget
from backwire_server.sessions.calls import BackwardCall, ForwardCall, StepOptions, TrainCall
from backwire_server.sessions.keeping.content import Content
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.spec import SessionSpec
from backwire_server.sessions.training.imaging import image_of, state_of
from backwire_server.sessions.training.state import Arrays, Image, State
from backwire_server.sessions.training.trainer import Trainer
from backwire_server.sessions.training.versions import Array


@pytest.fixture
def spec(network: Callable[..., SessionSpec]) -> SessionSpec:
    """A network with Dropout, momentum and averages."""
    return network(optim.Optimizer(0.1, optim.Sgd(momentum=0.9), average_decay=0.5))


@pytest.fixture
def content(spec: SessionSpec) -> Content:
    """A session with a pass from before a step, one from after it, and two contributions."""
    made = begun(spec)
    do(made, TrainCall(x(1)), ForwardCall(x(2), forward_id="old"), TrainCall(x(3)), TrainCall(x(4)))
    do(made, ForwardCall(x(5), forward_id="p"), BackwardCall("p", retain=True), BackwardCall("p", weight=0.5))
    do(made, ForwardCall(x(6), forward_id="new"))
    return made


GOING_ON = (
    BackwardCall("old", wrt=("x",)),
    BackwardCall("new", wrt=("x",), weight=3.0),
    StepOptions(),
    TrainCall(x(7), ("z2", "d1")),
)
"""What tells whether a session is the one that `content` gives."""


def arrays_of(image: Image) -> Iterator[Array]:
    """All arrays of an image but for the inputs of passes, which nobody writes to."""
    groups: list[Arrays] = [image.state.parameters, image.state.gradients, *image.state.memory.values()]
    for group in [*groups, *(each.parameters for each in image.passes)]:
        yield from group.values()


def share_memory(one: Image, other: Image) -> bool:
    return any(np.shares_memory(a, b) for a, b in product(arrays_of(one), arrays_of(other)))


class TestAnImage:
    def test_stays_as_it_is_until_it_is_closed(self, content: Content) -> None:
        trainer = content.trainer
        with image_of(trainer) as image:
            before = told(replace(image, on_close=()))
            do(content, *GOING_ON)
            assert told(replace(image, on_close=())) == before
        trainer.passes.clear()
        assert trainer.parameters.current.holders == trainer.memory.current.holders == 0

    def test_holds_what_it_was_taken_of_once_and_lets_go_of_it_once(self, content: Content) -> None:
        trainer = content.trainer
        versions = [trainer.parameters.current, trainer.memory.current, trainer.accumulator.current]
        before = [version.holders for version in versions]
        image = image_of(trainer)
        assert all(version.holders > count for version, count in zip(versions, before, strict=True))
        image.close()
        image.close()
        assert [version.holders for version in versions] == before

    def test_that_is_held_briefly_is_waited_for_and_not_copied(self, content: Content) -> None:
        trainer = content.trainer
        trainer.passes.clear()
        image, before = image_of(trainer, briefly=True), trainer.parameters.current
        digest = image.state.digest()
        stepping = threading.Thread(target=do, args=(content, StepOptions()))
        stepping.start()
        stepping.join(0.05)
        assert image.state.digest() == digest
        assert stepping.is_alive()
        image.close()
        stepping.join(30.0)
        assert trainer.parameters.current is before
        assert (trainer.step, state_of(trainer).digest() != digest) == (4, True)

    def test_that_was_detached_is_the_same_in_memory_of_its_own(self, content: Content) -> None:
        with content.image() as image:
            copy = image.detached()
            assert told(replace(copy, on_close=())) == told(replace(image, on_close=()))
            assert not share_memory(copy, image)
        assert copy.on_close == ()
        digest = copy.state.digest()
        do(content, *GOING_ON)
        assert copy.state.digest() == digest

    def test_that_was_detached_has_one_copy_of_what_several_passes_share(self, content: Content) -> None:
        with content.image() as image:
            old, new = image.detached().passes
        assert not np.shares_memory(old.parameters["w1"], new.parameters["w1"])
        do(content, ForwardCall(x(8), forward_id="newer"))
        with content.image() as image:
            copy = image.detached()
        assert copy.passes[1].parameters["w1"] is copy.passes[2].parameters["w1"] is copy.state.parameters["w1"]


class TestASessionMadeFromAnImage:
    def test_goes_on_with_the_same_bits(self, spec: SessionSpec, content: Content) -> None:
        with content.image() as image:
            made = again(spec, image)
        assert state_of(made.trainer).digest() == state_of(content.trainer).digest()
        assert do(made, *GOING_ON) == do(content, *GOING_ON)
        assert made.trainer.forwards == content.trainer.forwards

    def test_takes_no_memory_over_but_that_of_frozen_parameters(
        self, spec: SessionSpec, content: Content, dot: Callable[..., SessionSpec]
    ) -> None:
        with content.image() as image, again(spec, image).image() as other:
            assert not share_memory(image, other)
        with begun(dot()).image() as image, again(dot(), image).image() as other:
            shared = {name for name, array in image.state.parameters.items() if array is other.state.parameters[name]}
        assert shared == {"c"}

    def test_has_parameters_once_that_passes_share_but_for_the_frozen_ones(self) -> None:
        spec = running_means()
        content = begun(spec)
        do(content, *(ForwardCall(batch(number)) for number in range(4)), TrainCall(batch(4)), ForwardCall(batch(5)))
        with content.image() as image:
            made = again(spec, image.detached())
        assert made.nbytes == content.nbytes
        assert made.trainer.parameters.current.holders == 1, "the newest pass alone"
        do(made, BackwardCall("pass-5"))
        before = made.trainer.parameters.current
        do(made, StepOptions())
        assert made.trainer.parameters.current is before, "nobody had to be spared"

    @pytest.mark.parametrize("settled", [True, False])
    def test_knows_whether_it_is_right_after_a_step(self, spec: SessionSpec, content: Content, settled: bool) -> None:
        do(content, StepOptions(), *([] if settled else [ForwardCall(x(1))]))
        with content.image() as image:
            assert image.settled is settled
            assert again(spec, image).image().settled is settled

    def test_is_refused_where_the_image_is_one_of_another_graph(self, spec: SessionSpec) -> None:
        with pytest.raises(ValueError, match="parameter"):
            again(spec, Image(State(0, 0, 0, 0.0, {"w": FLAT})))


class TestABranch:
    @pytest.fixture
    def branch(self, spec: SessionSpec, content: Content) -> Content:
        return content.branch(spec, Limits(), Budget(1 << 30).account())

    def test_has_the_same_state_without_passes(self, content: Content, branch: Content) -> None:
        assert state_of(branch.trainer).digest() == state_of(content.trainer).digest()
        assert list(branch.trainer.passes.live()) == []
        assert do(branch, StepOptions(), TrainCall(x(7))) == do(content, StepOptions(), TrainCall(x(7)))

    def test_shares_parameters_and_the_optimizers_memory_until_one_of_them_steps(
        self, content: Content, branch: Content
    ) -> None:
        def vectors(trainer: Trainer) -> list[Array]:
            state = state_of(trainer)
            return [state.parameters["w1"], *(arrays["w1"] for arrays in state.memory.values())]

        one, other = content.trainer, branch.trainer
        assert all(map(np.shares_memory, vectors(one), vectors(other)))
        assert not np.shares_memory(state_of(one).gradients["w1"], state_of(other).gradients["w1"])
        do(content, StepOptions())
        assert not any(map(np.shares_memory, vectors(one), vectors(other)))

    @pytest.mark.parametrize("first", [0, 1])
    def test_is_not_disturbed_by_the_other(self, content: Content, branch: Content, first: int) -> None:
        one, other = (content, branch) if first else (branch, content)
        before = state_of(other.trainer).digest()
        do(one, ForwardCall(x(1), forward_id="q"), BackwardCall("q"), StepOptions(), TrainCall(x(2)))
        assert state_of(other.trainer).digest() == before
        one.leave()
        do(other, StepOptions(), TrainCall(x(3)))
        assert other.trainer.step == 5

    def test_steps_in_place_once_the_other_has_left(self, content: Content, branch: Content) -> None:
        content.leave()
        before = branch.trainer.parameters.current, branch.trainer.memory.current
        do(branch, StepOptions())
        assert (branch.trainer.parameters.current, branch.trainer.memory.current) == before
