"""A label that is no class and an index that is no place are refused, by both executors in the same words."""

from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

import backwire as bw

pytest.importorskip("jax")

Feed = dict[str, NDArray[Any]]
SAID = np.random.default_rng(3).normal(size=(2, 5, 4)).astype("f4")


Executor = Literal["numpy", "jax"]


@pytest.fixture(params=["numpy", "jax"])
def executor(request: pytest.FixtureRequest) -> Any:
    return request.param


def text_loss(*, padded: bool) -> bw.Value:
    """Returns the loss of texts of up to three letters; the blank is class 0 of four."""
    lengths = bw.input("lengths", ("batch",), "int64") if padded else None
    said, text = bw.input("said", ("batch", 5, 4)), bw.input("text", ("batch", 3), "int64")
    return bw.ctc_loss(bw.log_softmax(said), text, label_lengths=lengths)


def feed(text: list[list[int]], *lengths: int) -> Feed:
    found = {"said": SAID, "text": np.array(text)}
    return {**found, "lengths": np.array(lengths)} if lengths else found


@pytest.mark.parametrize("label", [-1, -4, 4])
def test_ctc_refuses_a_label_that_is_no_class(label: int, executor: Executor, client: bw.Client) -> None:
    wrong = rf"^Gather node 'ctc_loss/labels/Gather': index {label} is outside \[0, 3\]"
    for padded, given in (False, feed([[1, 2, 3], [1, label, 2]])), (True, feed([[1, label, -1], [1, 2, 3]], 2, 3)):
        session = client.create_session(text_loss(padded=padded), executor=executor)
        with pytest.raises(bw.TensorError, match=wrong):
            session.forward(given)
        session.close()


def test_ctc_takes_any_number_after_the_labels(executor: Executor, client: bw.Client) -> None:
    with client.create_session(text_loss(padded=True), executor=executor) as session:
        losses = {session.forward(feed([[1, pad, pad], [2, 3, pad]], 1, 2)).loss for pad in (1, -1, 4, -(2**60))}
    assert len(losses) == 1
    assert np.isfinite(losses.pop() or np.nan)


@pytest.mark.parametrize("length", [-1, 4])
def test_ctc_refuses_more_labels_than_there_are(length: int, executor: Executor, client: bw.Client) -> None:
    with client.create_session(text_loss(padded=True), executor=executor) as session:
        wrong = rf"^Gather node 'ctc_loss/label_lengths/Gather': index {length} is outside \[0, 3\]"
        with pytest.raises(bw.TensorError, match=wrong):
            session.forward(feed([[1, 2, 3], [1, 2, 3]], 3, length))


def test_an_embedding_does_not_count_from_the_end_and_take_does(executor: Executor, client: bw.Client) -> None:
    words = bw.input("words", ("batch",), "int64")
    learned = bw.embedding(words, 3, 2, name="meaning")
    taken = bw.take(bw.constant(np.arange(3.0, dtype="f4")), words)
    with client.create_session(bw.graph(outputs={"learned": learned}), executor=executor) as session:
        assert session.forward({"words": np.array([2, 0])}).outputs["learned"].shape == (2, 2)
        for wrong in (-1, 3):
            with pytest.raises(bw.TensorError, match=rf"node 'meaning/Gather': index {wrong} is outside \[0, 2\]"):
                session.forward({"words": np.array([0, wrong])})
    with client.create_session(bw.graph(outputs={"taken": taken}), executor=executor) as session:
        np.testing.assert_array_equal(session.forward({"words": np.array([-1, 0])}).outputs["taken"], [2.0, 0.0])
        with pytest.raises(bw.TensorError, match=r"index -4 is outside \[-3, 2\]"):
            session.forward({"words": np.array([-4])})
