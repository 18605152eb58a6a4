"""A cart learns to keep a pole up: actions are drawn from a policy, and those that went well reinforced.

The policy is REINFORCE with a baseline (Williams 1992), the cart that of Barto, Sutton and Anderson (1983).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

import backwire as bw
from backwire.examples._outcome import Outcome, main

CARTS, MOST_STEPS = 32, 80

Array = NDArray[Any]


def pushed(state: Array, right: Array) -> Array:
    """Returns the states [carts, 4] (place, speed, angle, turning speed) after 20 ms of a push to a side."""
    _, speed, angle, turning = state.T
    sine, cosine = np.sin(angle), np.cos(angle)
    push = (np.where(right, 10.0, -10.0) + 0.05 * turning**2 * sine) / 1.1
    turn = (9.8 * sine - cosine * push) / (0.5 * (4 / 3 - 0.1 * cosine**2 / 1.1))
    move = push - 0.05 * turn * cosine / 1.1
    return state + 0.02 * np.stack([speed, move, turning, turn], axis=1)


def policy() -> bw.Graph:
    """Returns the graph of the policy, whose loss reinforces actions by their advantage."""
    state = bw.input("state", ("batch", 4))
    action = bw.input("action", ("batch",), dtype="int64")
    advantage = bw.input("advantage", ("batch",))
    logits = bw.dense(bw.tanh(bw.dense(state, 32, name="hidden")), 2, name="logits")
    surprise = bw.softmax_cross_entropy(logits, action, reduction="none")
    return bw.graph(loss=bw.mean(surprise * advantage), outputs={"logits": logits})


def played(session: bw.Session, draw: np.random.Generator) -> tuple[Array, Array, Array]:
    """Returns states [steps, carts, 4], actions [steps, carts] and which carts were up [steps, carts]."""
    state = draw.uniform(-0.05, 0.05, (CARTS, 4))
    up = np.ones(CARTS, bool)
    states: list[Array] = []
    actions: list[Array] = []
    ups: list[Array] = []
    while up.any() and len(states) < MOST_STEPS:
        logits = session.forward({"state": state}, mode="eval", outputs=["logits"]).outputs["logits"]
        action = (logits + draw.gumbel(size=logits.shape)).argmax(axis=1)
        states.append(state)
        actions.append(action)
        ups.append(up)
        state = pushed(state, action == 1)
        up = up & (np.abs(state[:, 0]) < 2.4) & (np.abs(state[:, 2]) < 0.21)
    return np.stack(states), np.stack(actions), np.stack(ups)


def run(client: bw.Client) -> Outcome:
    """Returns for how many steps the pole stays up, of at most MOST_STEPS."""
    draw = np.random.default_rng(0)
    lengths = []
    with client.create_session(policy(), bw.Adam(2e-2)) as session:
        for _ in range(25):
            states, actions, up = played(session, draw)
            lengths.append(float(up.sum(axis=0).mean()))
            to_come = np.cumsum(up[::-1], axis=0)[::-1].astype(float)  # for how many steps it will stay up
            to_come = (to_come - to_come[up].mean()) / (to_come[up].std() + 1e-6)
            session.train_step({"state": states[up], "action": actions[up], "advantage": to_come[up]})
    return Outcome("steps", lengths[0], float(np.mean(lengths[-3:])))


if __name__ == "__main__":
    main(run)
