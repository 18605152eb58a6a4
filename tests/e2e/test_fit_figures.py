"""Measures of accuracy, and the history of a fit as it is shown."""

from pathlib import Path

import numpy as np
import pytest
from tests.e2e.test_fit import DRAW, Y, line

import backwire as bw


class TestMetrics:
    @pytest.mark.parametrize("k", [1, 2, 4])
    def test_labels_among_the_greatest_logits_are_right(self, client: bw.Client, k: int) -> None:
        logits, labels = bw.input("logits", ("batch", 4)), bw.input("labels", ("batch",), dtype="int32")
        outputs = {"right": bw.accuracy(logits, labels), "among": bw.top_k_accuracy(logits, labels, k)}
        session = client.create_session(bw.graph(outputs=outputs))
        drawn = DRAW.standard_normal((50, 4)).astype(np.float32)
        found = session.evaluate((drawn, Y.astype(np.int32)), metrics=["right", "among"])
        ranks = np.argsort(-drawn, axis=1)
        assert found["right"] == pytest.approx(np.mean(ranks[:, 0] == Y))
        assert found["among"] == pytest.approx(np.mean((ranks[:, :k] == Y[:, None]).any(axis=1)))

    def test_labels_of_pixels_count_each(self, client: bw.Client) -> None:
        logits, labels = bw.input("logits", ("batch", 3, 2, 2)), bw.input("labels", ("batch", 2, 2), dtype="int64")
        session = client.create_session(bw.graph(outputs={"right": bw.accuracy(logits, labels)}))
        drawn, truth = DRAW.standard_normal((5, 3, 2, 2)), DRAW.integers(0, 3, (5, 2, 2))
        assert session.evaluate((drawn, truth), metrics="right")["right"] == pytest.approx(
            np.mean(drawn.argmax(axis=1) == truth)
        )

    def test_labels_that_do_not_fit_are_refused_when_they_are_written(self) -> None:
        logits, labels = bw.input("logits", ("batch", 3)), bw.input("labels", ("batch",), dtype="int64")
        with pytest.raises(bw.DTypeError, match="not of an integer type"):
            bw.accuracy(logits, bw.cast(labels, "float32"))
        with pytest.raises(bw.ShapeError, match="one label for each row"):
            bw.accuracy(logits, bw.one_hot(labels, 3, dtype="int64"))
        with pytest.raises(bw.ShapeError, match="4 guesses among the classes"):
            bw.top_k_accuracy(logits, labels, k=4)


class TestHistory:
    def test_a_history_draws_itself(self, client: bw.Client, tmp_path: Path) -> None:
        pytest.importorskip("matplotlib", reason="of the extra fit; .ci/run installs it")
        history = line(client).fit({"y": [1.0, 2.0]}, epochs=3, validation={"y": [1.0]})
        left, right = history.plot(tmp_path / "history.png").axes
        assert left.lines[0].get_ydata().tolist() == [result.loss for result in history]
        assert [each.get_label() for each in right.lines] == ["loss", "validation loss"]
        assert (tmp_path / "history.png").read_bytes().startswith(b"\x89PNG")

    def test_a_bar_shows_the_figures_so_far(self, client: bw.Client, capsys: pytest.CaptureFixture[str]) -> None:
        pytest.importorskip("tqdm", reason="of the extra fit; .ci/run installs it")
        line(client).fit({"y": [1.0] * 64}, epochs=2, progress=True)
        shown = capsys.readouterr().err
        assert "epoch 2 of 2" in shown
        assert "4/4" in shown
        assert "loss=" in shown

    def test_nothing_is_shown_where_nobody_looks(self, client: bw.Client, capsys: pytest.CaptureFixture[str]) -> None:
        line(client).fit({"y": [1.0]})
        assert capsys.readouterr().err == ""
