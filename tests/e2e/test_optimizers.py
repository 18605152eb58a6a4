"""Every optimizer of the SDK trains through the service, with schedules and parameter groups."""

import math

import numpy as np
import pytest

import backwire as bw

SMALL, USUAL, LARGE = 0.003, 0.01, 0.1
OPTIMIZERS = [
    bw.SGD(LARGE, momentum=0.9, nesterov=True),
    bw.Adam(USUAL, amsgrad=True),
    bw.AdamW(USUAL),
    bw.RMSprop(SMALL, centered=True, momentum=0.5),
    bw.Adagrad(LARGE),
    bw.Adadelta(),
    bw.Adamax(USUAL),
    bw.NAdam(USUAL),
    bw.RAdam(3 * USUAL),
    bw.Lion(SMALL),
    bw.LAMB(USUAL),
    bw.Muon(USUAL, fallback=bw.AdamW(SMALL)),
]

GENERATOR = np.random.default_rng(0)
X = GENERATOR.standard_normal((64, 4)).astype(np.float32)
BATCH = {"x": X, "y": np.tanh(X @ GENERATOR.standard_normal((4, 2)).astype(np.float32))}


def network() -> bw.Value:
    x, y = bw.input("x", ("batch", 4)), bw.input("y", ("batch", 2))
    hidden = bw.tanh(bw.dense(x, 8, name="hidden"))
    return bw.squared_error(bw.dense(hidden, 2, name="head"), y)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda optimizer: type(optimizer).__name__)
def test_every_optimizer_lowers_the_loss(client: bw.Client, optimizer: bw.Optimizer) -> None:
    with client.create_session(network(), optimizer=optimizer, seed=1) as session:
        losses = [session.train_step(BATCH).loss for _ in range(100)]
    assert losses[-1] < 0.5 * losses[0]


def test_the_learning_rate_follows_the_schedule_unless_a_step_names_its_own(client: bw.Client) -> None:
    warmup, decay = bw.LinearSchedule(4, start_factor=0.0), bw.CosineSchedule(10)
    optimizer = bw.SGD(LARGE, schedule=bw.SequentialSchedule([warmup, decay], milestones=[4]))
    with client.create_session(network(), optimizer=optimizer) as session:
        rates = [session.train_step(BATCH).learning_rate for _ in range(9)]
        assert session.train_step(BATCH, learning_rate=0.25).learning_rate == 0.25
        rates.append(session.train_step(BATCH).learning_rate)
    factors = [0, 0.25, 0.5, 0.75, *((1 + math.cos(math.pi * step / 10)) / 2 for step in (0, 1, 2, 3, 4, 6))]
    assert rates == pytest.approx([LARGE * factor for factor in factors])


def test_groups_freeze_slow_down_and_replace(client: bw.Client) -> None:
    groups = [
        bw.ParameterGroup("hidden/weight", frozen=True),
        bw.ParameterGroup("hidden/*", learning_rate_factor=0.1),
        bw.ParameterGroup("head/bias", optimizer=bw.Lion(0.125)),
    ]
    with client.create_session(network(), optimizer=bw.SGD(1.0, groups=groups)) as session:
        before = session.parameters()
        session.forward(BATCH).backward()
        gradients = session.gradients()
        session.step()
        moved = {name: before[name] - value for name, value in session.parameters().items()}
    assert not moved["hidden/weight"].any()
    np.testing.assert_allclose(moved["hidden/bias"], 0.1 * gradients["hidden/bias"], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(moved["head/weight"], gradients["head/weight"], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(moved["head/bias"], 0.125 * np.sign(gradients["head/bias"]), rtol=1e-6)


def test_the_gradient_of_every_parameter_is_clipped_by_itself(client: bw.Client) -> None:
    with client.create_session(network(), optimizer=bw.SGD(1.0, clip_parameter_norm=1e-3)) as session:
        before = session.parameters()
        session.train_step(BATCH)
        moved = {name: np.linalg.norm(before[name] - value) for name, value in session.parameters().items()}
    assert moved == pytest.approx(dict.fromkeys(moved, 1e-3), rel=1e-3)


def test_a_group_that_matches_nothing_is_refused_by_its_path(client: bw.Client) -> None:
    groups = [bw.ParameterGroup("*bias"), bw.ParameterGroup("*.gain")]
    with pytest.raises(bw.OptimizerError, match="matches no trainable parameter") as caught:
        client.create_session(network(), optimizer=bw.SGD(1.0, groups=groups))
    assert caught.value.field == "optimizer.groups[1].pattern"
    assert caught.value.reason == bw.Reason.INVALID_OPTIMIZER


def test_a_session_tells_its_optimizer_with_defaults_filled_in(client: bw.Client) -> None:
    with client.create_session(network(), optimizer=bw.Muon(0.5, groups=[bw.ParameterGroup("head/*")])) as session:
        told = session.info().optimizer
    assert told is not None
    assert told.muon.fallback.weight_decay == 0.01
    assert [group.pattern for group in told.groups] == ["head/*"]
