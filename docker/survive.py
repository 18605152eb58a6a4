"""Trains a durable session whose server is killed twice: at rest, and in the middle of its work.

Arguments: the server's address, and a command that kills the server and starts it again. Fails unless the session is
then what it was, goes on, and ends with the bits of one that was trained as far without a break.
"""

import subprocess
import sys

import numpy as np
from numpy.typing import NDArray

import backwire as bw

STEPS = 200


def main(address: str, restart: list[str]) -> int:
    """Returns 1 where the session has lost a step, made one twice, or has other bits than it should."""
    with bw.connect(address) as client:
        session = _session(client)
        _train(session, STEPS)
        before = _stands(session)
        subprocess.run(restart, check=True)
        after = _stands(session)
        sys.stdout.write(f"killed at rest: {before} before, {after} after\n")

        made = STEPS + _train_meanwhile(session, restart)
        _train(session, STEPS)
        unbroken = _session(client)
        _train(unbroken, made + STEPS)
        found, wanted = _stands(session), _stands(unbroken)
        sys.stdout.write(f"killed at work: {found} after, {wanted} without a break\n")
    return 0 if before == after and found == wanted else 1


def _session(client: bw.Client) -> bw.Session:
    x, y = bw.input("x", ("batch", 8)), bw.input("y", ("batch", 1))
    loss = bw.squared_error(bw.dense(bw.tanh(bw.dense(x, 16, name="hidden")), 1, name="output"), y)
    return client.create_session(bw.graph(loss=loss), optimizer=bw.Adam(0.01), seed=1, durability="journal")


def _stands(session: bw.Session) -> str:
    return f"step {session.info().step}, digest {session.digest()}"


def _train(session: bw.Session, steps: int) -> None:
    first = session.info().step
    for step in range(first, first + steps):
        session.train_step(_batch(step))


def _train_meanwhile(session: bw.Session, command: list[str]) -> int:
    """Trains while the command runs, which must succeed; returns how many steps were acknowledged."""
    first = step = session.info().step
    with subprocess.Popen(command) as running:
        while running.poll() is None:
            session.train_step(_batch(step))
            step += 1
    if running.returncode:
        raise subprocess.CalledProcessError(running.returncode, command)
    return step - first


def _batch(step: int) -> dict[str, NDArray[np.float32]]:
    x = np.random.default_rng(step).normal(size=(64, 8)).astype(np.float32)
    return {"x": x, "y": np.sin(x.sum(axis=1, keepdims=True))}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
