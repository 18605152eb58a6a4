"""State that passes update: batch normalization's running statistics, through the service."""

import numpy as np
import pytest

import backwire as bw

DRAW = np.random.default_rng(11)
DECAY = 0.9


def network() -> bw.Graph:
    x = bw.input("x", ("batch", 3), dtype="float64")
    normed = bw.batch_norm(x, name="norm", momentum=DECAY)
    return bw.graph(loss=bw.mean(bw.dense(normed, 1, name="line") ** 2), outputs={"normed": normed})


def running(session: bw.Session) -> tuple[np.ndarray, np.ndarray]:
    values = session.parameters(["norm/mean", "norm/variance"])
    return values["norm/mean"], values["norm/variance"]


def test_each_pass_in_training_moves_the_running_statistics(client: bw.Client) -> None:
    session = client.create_session(network(), optimizer=bw.SGD(0.1))
    mean, variance = np.zeros(3), np.ones(3)
    for _ in range(3):
        x = DRAW.normal(2.0, 3.0, size=(8, 3))
        forward = session.forward({"x": x})
        np.testing.assert_allclose(forward.outputs["normed"], (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5), rtol=1e-10)
        mean, variance = DECAY * mean + 0.1 * x.mean(0), DECAY * variance + 0.1 * x.var(0)
    for found, expected in zip(running(session), (mean, variance), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_eval_uses_them_and_leaves_them_alone(client: bw.Client) -> None:
    session = client.create_session(network())
    session.forward({"x": DRAW.normal(2.0, 3.0, size=(8, 3))})
    before, x = running(session), DRAW.normal(size=(4, 3))
    normed = session.forward({"x": x}, mode="eval").outputs["normed"]
    np.testing.assert_allclose(normed, (x - before[0]) / np.sqrt(before[1] + 1e-5), rtol=1e-10)
    np.testing.assert_array_equal(before, running(session))


def test_train_step_is_the_three_calls_to_the_bit_also_here(client: bw.Client) -> None:
    one, three = (client.create_session(network(), optimizer=bw.Adam(0.01), seed=4) for _ in range(2))
    for _ in range(3):
        x = DRAW.normal(size=(5, 3))
        one.train_step({"x": x})
        three.forward({"x": x}).backward()
        three.step()
    for name, value in one.parameters().items():
        np.testing.assert_array_equal(value, three.parameters()[name])


def test_a_refused_step_and_a_repeated_call_move_nothing(client: bw.Client) -> None:
    session = client.create_session(network(), optimizer=bw.SGD(0.1))
    x = DRAW.normal(size=(5, 3))
    session.train_step({"x": x}, request_id="once")
    before = running(session)
    session.train_step({"x": x}, request_id="once")
    with pytest.raises(bw.NonFiniteGradientError):
        session.train_step({"x": np.full((5, 3), np.nan)})
    np.testing.assert_array_equal(before, running(session))


def test_a_live_pass_keeps_what_it_was_made_with(client: bw.Client) -> None:
    """The gradient of a pass does not depend on passes that came after it."""
    first, second = DRAW.normal(size=(2, 5, 3))
    alone, busy = (client.create_session(network(), seed=2) for _ in range(2))
    expected = alone.forward({"x": first}).backward(wrt=["x"])["x"]
    kept = busy.forward({"x": first})
    busy.forward({"x": second})
    np.testing.assert_array_equal(kept.backward(wrt=["x"])["x"], expected)
