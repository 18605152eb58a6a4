"""`fit`, `evaluate` and `predict` against the real server: the bits of single steps, interrupts, callbacks."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest

import backwire as bw

DRAW = np.random.default_rng(5)
X = DRAW.standard_normal((50, 6)).astype(np.float32)
Y = DRAW.integers(0, 4, 50)
DATA: dict[str, Any] = {"x": X, "y": Y}


def classifier() -> bw.Graph:
    x, y = bw.input("x", ("batch", 6)), bw.input("y", ("batch",), dtype="int64")
    hidden = bw.dropout(bw.relu(bw.dense(x, 16, name="hidden")), 0.1)
    logits = bw.dense(hidden, 4, name="logits")
    surest = bw.max(bw.softmax(logits), axis=1)
    return bw.graph(loss=bw.softmax_cross_entropy(logits, y), outputs={"logits": logits, "surest": surest})


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[bw.Client]:
    with bw.connect("embedded", data_dir=tmp_path_factory.mktemp("data")) as connected:
        yield connected


@pytest.fixture
def train(client: bw.Client) -> Callable[[], bw.Session]:
    return lambda: client.create_session(classifier(), bw.Adam(1e-2), seed=3)


def line(client: bw.Client, rate: float = 0.25) -> bw.Session:
    """A session whose only parameter `w`, at first 0, goes towards the input `y`."""
    y = bw.input("y", ("batch",))
    return client.create_session(bw.mean((bw.parameter("w", 0.0) - y) ** 2), bw.SGD(rate))


class Interrupts(bw.Callback):
    """Interrupts after some steps, as a user does who loses patience."""

    def __init__(self, after: int) -> None:
        self._left = after

    def on_step(self, *_: Any) -> None:
        self._left -= 1
        if not self._left:
            raise KeyboardInterrupt


class TestFit:
    @pytest.mark.parametrize("depth", [1, 2, 7])
    def test_every_batch_is_a_train_step(self, train: Callable[[], bw.Session], depth: int) -> None:
        one, other = train(), train()
        history = one.fit(DATA, epochs=2, batch_size=8, shuffle=False, depth=depth)
        losses = [
            other.train_step({"x": X[start : start + 8], "y": Y[start : start + 8]}).loss
            for _ in range(2)
            for start in range(0, 50, 8)
        ]
        assert [result.loss for result in history] == losses
        assert one.digest() == other.digest()
        assert history.epochs[1].steps == 7

    def test_the_loss_of_an_epoch_is_the_mean_over_examples(self, client: bw.Client) -> None:
        history = line(client).fit({"y": [1.0, 1.0, 4.0]}, batch_size=2, shuffle=False, learning_rate=0.0)
        assert history.epochs[0].figures == {"loss": pytest.approx(6.0)}

    def test_the_same_seed_gives_the_same_bits_and_another_does_not(self, train: Callable[[], bw.Session]) -> None:
        digests = []
        for seed in (1, 1, 2):
            session = train()
            session.fit(DATA, epochs=2, seed=seed)
            digests.append(session.digest())
        assert digests[0] == digests[1] != digests[2]

    def test_metrics_are_outputs_of_the_graph(self, train: Callable[[], bw.Session]) -> None:
        history = train().fit(DATA, batch_size=32, metrics="surest", validation=0.2)
        figures, validation = history.epochs[0].figures, history.epochs[0].validation
        assert figures.keys() == validation.keys() == {"loss", "surest"}
        assert 0.25 < figures["surest"] < 1

    def test_a_model_learns_more_than_it_knew(self, client: bw.Client) -> None:
        session = client.create_session(classifier(), bw.Adam(1e-2), seed=3)
        data = {"x": X, "y": X[:, :4].argmax(axis=1)}
        before = session.evaluate(data)["loss"]
        session.fit(data, epochs=40)
        assert session.evaluate(data)["loss"] < before / 3

    def test_a_generator_is_trained_on_as_it_comes(self, client: bw.Client) -> None:
        history = line(client).fit({"y": [value]} for value in (1.0, 2.0))
        assert [result.loss for result in history] == [1.0, 2.25]

    def test_no_data_is_refused(self, client: bw.Client) -> None:
        with pytest.raises(bw.InvalidRequestError, match="not empty"):
            line(client).fit([])
        with pytest.raises(bw.InvalidRequestError, match="1 or more"):
            line(client).fit([{"y": [1.0]}], epochs=0)

    def test_a_share_for_validation_needs_arrays(self, client: bw.Client) -> None:
        with pytest.raises(bw.InvalidRequestError, match="of its own"):
            line(client).fit([{"y": [1.0]}], validation=0.5)


class TestInterrupts:
    @pytest.mark.parametrize("after", [1, 4, 7, 9, 14])
    def test_going_on_gives_the_bits_of_a_fit_that_was_left_alone(
        self, train: Callable[[], bw.Session], after: int
    ) -> None:
        whole, halved = train(), train()
        expected = whole.fit(DATA, epochs=2, batch_size=8, validation=DATA)
        history = bw.History()
        settings: dict[str, Any] = {"epochs": 2, "batch_size": 8, "validation": DATA, "history": history, "depth": 3}
        with pytest.raises(KeyboardInterrupt):
            halved.fit(DATA, **settings, callbacks=[Interrupts(after)])
        assert halved.info().step == history.step == len(history.steps)
        assert halved.fit(DATA, **settings) is history
        assert halved.digest() == whole.digest()
        assert [epoch.validation for epoch in history.epochs] == [epoch.validation for epoch in expected.epochs]
        assert history.series() == expected.series()

    def test_steps_whose_answers_nobody_saw_are_not_done_again(self, train: Callable[[], bw.Session]) -> None:
        whole, halved = train(), train()
        whole.fit(DATA, batch_size=8)
        history = bw.History()
        with pytest.raises(KeyboardInterrupt):
            halved.fit(DATA, batch_size=8, depth=1, history=history, callbacks=[Interrupts(2)])
        order = np.random.default_rng((0, 1)).permutation(np.arange(50))[16:24]
        halved.train_step({"x": X[order], "y": Y[order]})
        halved.fit(DATA, batch_size=8, history=history)
        assert halved.digest() == whole.digest()
        assert history.epochs[0].steps == 7

    @pytest.mark.parametrize("lost", [1, 5, 7, 12])
    def test_an_interrupt_while_a_result_is_noted_repeats_no_step(
        self, train: Callable[[], bw.Session], lost: int
    ) -> None:
        class Torn(bw.History):
            """Loses a result, as an interrupt at the worst moment would."""

            def note(self, result: bw.TrainStepResult, examples: int, figures: Mapping[str, float]) -> None:
                if result.step == lost:
                    raise KeyboardInterrupt
                super().note(result, examples, figures)

        whole, halved, history = train(), train(), Torn()
        whole.fit(DATA, epochs=2, batch_size=8)
        with pytest.raises(KeyboardInterrupt):
            halved.fit(DATA, epochs=2, batch_size=8, depth=3, history=history)
        halved.fit(DATA, epochs=2, batch_size=8, history=history)
        assert halved.digest() == whole.digest()
        assert [epoch.steps for epoch in history.epochs] == [7, 7]

    def test_an_error_of_a_batch_leaves_a_whole_number_of_steps(self, client: bw.Client) -> None:
        session, history = line(client), bw.History()
        batches: list[Any] = [{"y": [1.0]}, {"y": [2.0]}, {}, {"y": [3.0]}]
        with pytest.raises(bw.MissingInputError):
            session.fit(batches, depth=4, history=history)
        assert session.info().step == history.step == 2

    def test_a_history_of_steps_that_were_undone_is_refused(self, client: bw.Client) -> None:
        session = line(client)
        session.save_checkpoint("start")
        history = session.fit({"y": [1.0]})
        session.restore_checkpoint("start")
        with pytest.raises(bw.FailedPreconditionError, match="the session is at step 0; go on with a new one"):
            session.fit({"y": [1.0]}, epochs=2, history=history)


class TestCallbacks:
    def test_training_stops_when_nothing_becomes_better(self, client: bw.Client) -> None:
        history = line(client, 0.5).fit({"y": [1.0]}, epochs=9, callbacks=[bw.EarlyStopping(patience=3)])
        assert len(history.epochs) == 5
        assert history.stopped == "loss was not better than 0 for 3 epochs"

    def test_higher_is_better_where_that_is_said(self, client: bw.Client) -> None:
        stop = bw.EarlyStopping(better="higher", patience=2)
        assert len(line(client).fit({"y": [1.0]}, epochs=9, callbacks=[stop]).epochs) == 3

    @pytest.mark.parametrize("name", [None, "best"])
    def test_the_best_epoch_comes_back(self, client: bw.Client, name: str | None) -> None:
        session, keep = line(client), bw.BestCheckpoint(name=name)
        history = session.fit({"y": [3.0]}, validation={"y": [2.0]}, epochs=5, callbacks=[keep])
        assert keep.best == 0.0625
        assert session.parameters()["w"] == 2.25
        assert session.info().step == history.step == (5 if name is None else 2)

    def test_the_best_epoch_is_only_kept_where_that_is_said(self, client: bw.Client) -> None:
        session, keep = line(client), bw.BestCheckpoint(restore=False)
        session.fit({"y": [3.0]}, validation={"y": [2.0]}, epochs=5, callbacks=[keep])
        assert keep.parameters["w"] == 2.25 < session.parameters()["w"]

    def test_the_learning_rate_falls_on_a_plateau(self, client: bw.Client) -> None:
        lower = bw.ReduceOnPlateau(patience=1, factor=0.5, minimum=0.3)
        history = line(client, 1.0).fit({"y": [1.0]}, epochs=4, callbacks=[lower])
        assert [epoch.learning_rate for epoch in history.epochs] == [1.0, 1.0, 0.5, 0.3]

    def test_a_step_may_be_the_last(self, client: bw.Client) -> None:
        class Stop(bw.Callback):
            def on_step(self, training: bw.Training, result: bw.TrainStepResult) -> None:
                if result.step == 3:
                    training.stop("enough")

        session = line(client)
        history = session.fit([{"y": [1.0]}] * 9, epochs=4, depth=1, callbacks=[Stop()])
        assert (session.info().step, len(history.epochs), history.stopped) == (3, 1, "enough")

    def test_a_callback_may_call_the_session_as_a_generator(self, client: bw.Client) -> None:
        seen: list[int] = []

        class Ask(bw.Callback):
            def on_epoch(self, training: bw.Training, *_: Any) -> Any:
                info = yield training.session.info
                seen.append(info.step)

        line(client).fit({"y": [1.0]}, epochs=2, callbacks=[Ask()])
        assert seen == [1, 2]

    def test_an_unknown_figure_is_told_with_those_that_are_known(self, client: bw.Client) -> None:
        with pytest.raises(bw.UnknownNameError, match="no figure 'accuracy'; they have loss"):
            line(client).fit({"y": [1.0]}, callbacks=[bw.EarlyStopping("accuracy")])


class TestWithoutTraining:
    def test_evaluating_is_a_forward_of_all_examples(self, train: Callable[[], bw.Session]) -> None:
        session = train()
        whole = session.forward(DATA, mode="eval")
        found = session.evaluate(DATA, batch_size=7, metrics=["surest"])
        assert found["loss"] == pytest.approx(whole.loss, rel=1e-5)
        assert found["surest"] == pytest.approx(float(whole.outputs["surest"].mean()), rel=1e-5)

    def test_predicting_keeps_the_order_and_needs_no_labels(self, train: Callable[[], bw.Session]) -> None:
        session = train()
        whole = session.forward(DATA, mode="eval").outputs
        np.testing.assert_allclose(session.predict(X, "logits", batch_size=7), whole["logits"], rtol=1e-5, atol=1e-6)
        assert session.predict({"x": X}, batch_size=50).keys() == whole.keys()

    def test_neither_changes_anything(self, train: Callable[[], bw.Session]) -> None:
        session = train()
        before = session.digest()
        session.evaluate(DATA)
        session.predict(X, "logits")
        assert session.digest() == before

    def test_an_output_without_rows_cannot_be_predicted(self, client: bw.Client) -> None:
        x = bw.input("x", ("batch",))
        session = client.create_session(bw.graph(outputs={"total": bw.sum(x)}))
        with pytest.raises(bw.ShapeError, match="no row for each"):
            session.predict(np.array([1.0, 2.0]), "total")
