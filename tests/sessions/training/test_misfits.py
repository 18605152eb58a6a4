"""A state that is not one of the session that is to have it is refused, with what does not fit."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.sessions.images import FLAT, begun, do

from backwire_server import optim
from backwire_server.sessions.calls import BackwardCall, ForwardCall
from backwire_server.sessions.spec import SessionSpec
from backwire_server.sessions.training import imaging
from backwire_server.sessions.training.imaging import check_fits, state_of
from backwire_server.sessions.training.state import State

MISFITS: dict[str, tuple[Callable[[State], State], str]] = {
    "no parameter": (lambda s: replace(s, parameters={"w": s.parameters["w"]}), r"each parameter .*\['c'\]"),
    "another parameter": (lambda s: replace(s, parameters={**s.parameters, "b": FLAT}), r"each parameter .*\['b'\]"),
    "type of a parameter": (
        lambda s: replace(s, parameters={**s.parameters, "c": FLAT.astype("f4")}),
        r"parameter 'c' is float32\[3\], not float64\[3\]",
    ),
    "shape of a parameter": (
        lambda s: replace(s, parameters={**s.parameters, "w": FLAT[:, None]}),
        r"parameter 'w' is float64\[3, 1\], not float64\[3\]",
    ),
    "no gradient": (lambda s: replace(s, gradients={}), r"each gradient .*\['w'\]"),
    "a gradient too many": (lambda s: replace(s, contributions=0), r"each gradient .*\['w'\]"),
    "gradient of what is frozen": (lambda s: replace(s, gradients={"w": FLAT, "c": FLAT}), r"each gradient .*\['c'\]"),
    "type of a gradient": (lambda s: replace(s, gradients={"w": FLAT.astype("i8")}), r"gradient 'w' is int64\[3\]"),
    "no memory": (lambda s: replace(s, memory={}), r"remembers \['average', 'momentum'\], not \[\]"),
    "another memory": (lambda s: replace(s, memory={**s.memory, "x": {}}), r"not \['average', 'momentum', 'x'\]"),
    "memory of no parameter": (lambda s: replace(s, memory={**s.memory, "average": {}}), r"each average .*\['w'\]"),
    "type of a memory": (
        lambda s: replace(s, memory={**s.memory, "average": {"w": FLAT.astype("f2")}}),
        r"average 'w' is float16\[3\]",
    ),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_a_state_that_does_not_fit_a_session_is_refused(dot: Callable[..., SessionSpec], misfit: str) -> None:
    spec = dot(optim.Sgd(momentum=0.5), average_decay=0.5)
    content = begun(spec)
    do(content, ForwardCall({"x": FLAT}, forward_id="p"), BackwardCall("p"))
    state = state_of(content.trainer)
    check_fits(spec, state)
    change, message = MISFITS[misfit]
    with pytest.raises(ValueError, match=message):
        check_fits(spec, change(state))


def test_a_session_without_an_optimizer_remembers_nothing(dot: Callable[..., SessionSpec]) -> None:
    spec = replace(dot(), optimizer=None)
    state = state_of(begun(spec).trainer)
    imaging.check_fits(spec, state)
    with pytest.raises(ValueError, match=r"remembers \[\], not \['m'\]"):
        imaging.check_fits(spec, replace(state, memory={"m": {"w": FLAT}}))
