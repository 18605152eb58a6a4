"""What notebooks show of graphs, sessions, histories and optimizers is well-formed, and tells what matters."""

import asyncio
from typing import Any
from xml.etree import ElementTree as ET

import pytest

import backwire as bw
from backwire import _html
from backwire._training._history import Epoch


def read(shown: Any) -> ET.Element:
    """The HTML of an object, which must be well-formed."""
    return ET.fromstring(f"<root>{shown._repr_html_()}</root>")


def texts(root: ET.Element) -> str:
    return " ".join(part.strip() for part in root.itertext() if part.strip())


def history(losses: list[float]) -> bw.History:
    found = bw.History()
    for number, loss in enumerate(losses, 1):
        step: dict[str, Any] = {"gradient_norm": 1.0, "contributions": 1, "skipped": False, "loss_scale": None}
        result = bw.TrainStepResult(
            step=number,
            learning_rate=0.1,
            non_finite_parameter="",
            digest="",
            loss=loss,
            outputs={},
            **step,
        )
        found.begin(number, number - 1)
        found.note(result, 1, {"accuracy": 0.5})
        found.finish({"loss": loss / 2}, 1.0)
    return found


def test_a_graph_shows_its_inputs_and_outputs_and_lists_the_rest() -> None:
    x = bw.input("x<y", ("batch", 2))
    shown = texts(read(bw.graph(loss=bw.mean(x), outputs={"double": x * 2})))
    assert "1 inputs" in shown
    assert "input x<y [batch, 2]" in shown
    assert "output double" in shown
    assert "loss" in shown


def test_an_optimizer_shows_what_was_set() -> None:
    shown = texts(read(bw.Adam(1e-3, clip_norm=1.0)))
    assert "Adam" in shown
    assert "learning_rate 0.001" in shown
    assert "clip_norm 1" in shown
    assert "beta1" not in shown


def test_a_session_shows_its_parameters_without_asking(session: bw.Session, service: Any) -> None:
    before = len(service.metadata)
    shown = texts(read(session))
    assert session.id in shown
    assert "8 elements in 3 parameters" in shown
    assert "parameter w float32 [2, 2]" in shown
    assert "sgd" in shown
    assert len(service.metadata) == before


def test_a_history_shows_the_curve_of_its_loss_and_its_epochs() -> None:
    root = read(history([4.0, 1.0, 2.0]))
    assert "1 4 0.5 2 0.1 2 1 0.5 0.5 0.1 3 2 0.5 1 0.1" in texts(root)
    (line,) = root.iter("polyline")
    assert line.get("points") == "0.0,0.0 160.0,80.0 320.0,53.3"


@pytest.mark.parametrize("losses", [[], [1.0], [float("nan")] * 3, [float("inf"), 1.0]])
def test_a_history_without_a_curve_shows_none(losses: list[float]) -> None:
    assert list(read(history(losses)).iter("svg")) == []


def test_a_long_curve_is_thinned_and_a_long_table_cut() -> None:
    assert len(_html.curve([float(each) for each in range(10_000)])) < 10_000
    assert "and 70 more" in _html.table(("a",), ([each] for each in range(100)))


def test_an_epoch_without_results_has_no_figure() -> None:
    assert str(Epoch(1, 1, {}, {}, 0.1, 1.0).figure("loss")) == "nan"


def test_objects_say_what_they_are(client: bw.Client, session: bw.Session) -> None:
    async def twins() -> list[str]:
        async with bw.aio.connect(client.target) as twin:
            found = await twin.session(session.id)
            async with found.pipeline() as pipe:
                future = await pipe.info()
                await future
            return [repr(each) for each in (twin, found, pipe, future)]

    with session.pipeline() as pipe:
        shown = [repr(each) for each in (client, session, pipe)]
    *same, future = asyncio.run(twins())
    assert same == shown
    assert [each.split()[0] for each in shown] == ["<Client", "<Session", "<Pipeline"]
    assert future == "<PipelineFuture that changes nothing: done>"
    assert repr(bw.Timeout(call=5)) == "Timeout(call=5, transfer=600.0, answer=60.0)"
