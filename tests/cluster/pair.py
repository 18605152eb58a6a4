"""Two replicas, of which one computes parts for the other."""

import contextlib
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
from prometheus_client.parser import text_string_to_metric_families
from tests.trainees import Replica
from tests.waiting import until

import backwire as bw

SECONDS = 120.0

PARTS, EXAMPLES, WIDTH = 2, 20, 512

MANY = 2_000  # whose parts are computed for a while

PAUSE = 0.05
"""Between steps that wait for a helper: all are done again, and helpers need a processor to start on, too."""

FLAGS = ("--workers", "1", "--shared", "--lease", "1s", "--metrics-listen", "127.0.0.1:0", "--peer-helpers", "2")

EAGER = "tests.cluster.eager"


def network() -> bw.Graph:
    """A network whose parts take longer than what is never sent, where a batch has a thousand examples."""
    x, y = bw.input("x", ("batch", WIDTH)), bw.input("y", ("batch",), dtype="int64")
    scale = bw.parameter("scale", np.linspace(0.5, 1.5, WIDTH, dtype=np.float32), frozen=True)
    h = bw.dropout(bw.relu(bw.dense(x * scale, WIDTH, name="hidden")), 0.25)
    h = bw.relu(bw.dense(h, WIDTH, name="deeper"))
    logits = bw.dense(h, 3, name="top")
    return bw.graph(loss=bw.softmax_cross_entropy(logits, y), outputs={"logits": logits})


def batch(number: int, examples: int = EXAMPLES) -> dict[str, Any]:
    draw = np.random.default_rng(number)
    return {"x": draw.normal(size=(examples, WIDTH)).astype(np.float32), "y": draw.integers(0, 3, size=examples)}


def in_calls(session: bw.Session, number: int, between: Callable[[], object] = lambda: None) -> dict[str, Any]:
    """Steps by calls of their own, and does something between Forward and Backward; returns what the calls gave."""
    made = session.forward(batch(number))
    between()
    seed = np.random.default_rng(number).normal(size=(EXAMPLES, 3)).astype(np.float32)
    by_loss = made.backward(wrt=("x",), retain=True)["x"]
    by_logits = made.backward({"logits": seed}, wrt=("x",))["x"]
    session.step()
    return {"loss": made.loss, "logits": made.outputs["logits"], "by loss": by_loss, "by logits": by_logits}


def figure(replica: Replica, name: str, **labels: str) -> float:
    """What a replica tells now in its metrics."""
    (address,) = until(lambda: re.findall(r"metrics on (\S+?/metrics)", replica.log))  # once that is read
    with urllib.request.urlopen(f"http://{address}", timeout=SECONDS) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    samples = {(each.name, *each.labels.items()): each.value for family in families for each in family.samples}
    return float(samples[name, *labels.items()])


def _changed(environment: dict[str, str]) -> tuple[str, ...]:
    """Returns what runs the command that follows with these variables."""
    return ("env", *(f"{name}={value}" for name, value in environment.items())) if environment else ()


class Pair:
    """Two replicas, of which `a` has no helpers of its own, and a session that `a` trains in parts."""

    def __init__(self, directory: Path, environment: dict[str, str] | None = None) -> None:
        """Has the other replica start in an environment that differs, if it does."""
        self.a = Replica(directory, "--replica", "a", *FLAGS, "--max-helpers", "0", module=EAGER)
        self.b = Replica(
            directory, "--replica", "b", *FLAGS, "--max-helpers", "1", within=_changed(environment or {}), module=EAGER
        )

    @contextmanager
    def serving(self) -> Iterator[Self]:
        """Has both serve."""
        with self.b, self.a:
            yield self

    @contextmanager
    def trained(self) -> Iterator[None]:
        """Has a session be there, and both serve again at its end."""
        with bw.connect(self.a.address) as client:
            self.done, self._large = 0, set[int]()
            with client.create_session(network(), bw.Adam(0.001), seed=5, data_parallel=PARTS) as self.session:
                yield
        self.b.ensure()

    def train(self, steps: int = 1) -> None:
        for _ in range(steps):
            assert self.session.train_step(batch(self.done)).step == self.done + 1
            self.done += 1

    def give_up(self) -> None:
        """Trains on a large batch, and gives that up while it is computed."""
        step = self.done
        with contextlib.suppress(bw.DeadlineExceededError):
            self.session.train_step(batch(step, MANY), timeout=0.02)
        self.done = self.session.info().step  # it may have been done all the same
        if self.done > step:
            self._large.add(step)

    def train_until(self, reached: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SECONDS
        while not reached():
            assert time.monotonic() < deadline
            self.train()
            time.sleep(PAUSE)

    def sent(self) -> float:
        """How many parts the other replica has computed for `a`."""
        return figure(self.a, "backwire_parts_total", by="peer")

    def train_more_elsewhere(self, parts: int = 3) -> None:
        """Trains until the other replica has computed more parts."""
        enough = self.sent() + parts
        self.train_until(lambda: self.sent() >= enough)

    def check(self, undisturbed: bw.Client) -> None:
        """Holds the session against the same steps on a server that is alone, which is sent parts by hand."""
        with undisturbed.create_session(network(), bw.Adam(0.001), seed=5) as alone:
            for number in range(self.done):
                examples = MANY if number in self._large else EXAMPLES
                for rows in np.array_split(np.arange(examples), PARTS):
                    part = {name: array[rows] for name, array in batch(number, examples).items()}
                    alone.forward(part).backward(weight=len(rows))
                alone.step(normalize="mean")
            assert self.session.digest() == alone.digest()
