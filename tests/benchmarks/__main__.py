"""Times training steps through a server against the same steps in process with PyTorch, where that is installed.

Run it with `make bench` on an otherwise idle machine. Everything is float32 with Adam; each process computes on one
thread. Every figure is the median time of one step, in milliseconds, over the seconds that `--seconds` gives it.
"""

import argparse
import functools
import importlib.util
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

import backwire as bw  # noqa: E402

Batch = dict[str, NDArray[np.float32] | NDArray[np.int64]]


class Model(NamedTuple):
    """A multilayer perceptron with Relu and softmax cross-entropy, and the batch that it is trained on."""

    features: int
    hidden: tuple[int, ...]
    classes: int
    batch: int

    def __str__(self) -> str:
        return "-".join(map(str, (self.features, *self.hidden, self.classes))) + f" x{self.batch}"


MODELS = (Model(784, (128,), 10, 32), Model(784, (512, 512), 10, 128), Model(1024, (1024,) * 4, 10, 256))


def main() -> int:
    """Prints a table with a row for each model."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="embedded", help="a running server (default: start a private one)")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each figure takes (default: %(default)s)")
    options = parser.parse_args()
    with_torch = importlib.util.find_spec("torch") is not None
    row = "{:<38}{:>12}{:>14}{:>12}{:>12}{:>10}\n"
    sys.stdout.write(row.format("model", "empty call", "three calls", "TrainStep", "PyTorch", "ratio"))
    with bw.connect(options.target) as client:
        for model in MODELS:
            data = batch(model)
            with client.create_session(graph(model), bw.Adam(1e-3), seed=0) as session:
                steps: list[Callable[[], object]] = [session.info, three_calls(session, data)]
                steps.append(functools.partial(session.train_step, data))
                if with_torch:
                    steps.append(torch_step(model, data))
                times = [median(step, options.seconds) for step in steps]
            cells = [f"{milliseconds:.2f}" for milliseconds in times]
            cells += [f"{times[2] / times[3]:.2f}"] if with_torch else ["-", "-"]
            sys.stdout.write(row.format(str(model), *cells))
    sys.stdout.write("milliseconds; ratio is TrainStep to PyTorch in process, so below 1 the service is faster\n")
    if not with_torch:
        sys.stdout.write("PyTorch is not installed; `.venv/bin/pip install torch` adds its column\n")
    return 0


def graph(model: Model) -> bw.Graph:
    """Returns the model's graph, with inputs x and y."""
    value = bw.input("x", ("batch", model.features))
    labels = bw.input("y", ("batch",), dtype="int64")
    for index, units in enumerate(model.hidden):
        value = bw.relu(bw.dense(value, units, name=f"hidden{index}"))
    return bw.graph(loss=bw.softmax_cross_entropy(bw.dense(value, model.classes, name="logits"), labels))


def batch(model: Model) -> Batch:
    """Returns random inputs and labels."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(model.batch, model.features)).astype(np.float32)
    return {"x": x, "y": rng.integers(0, model.classes, model.batch)}


def three_calls(session: bw.Session, data: Batch) -> Callable[[], object]:
    """Returns a step that is a Forward, a Backward and a Step."""

    def step() -> object:
        session.forward(data).backward()
        return session.step()

    return step


def torch_step(model: Model, data: Batch) -> Callable[[], object]:
    """Returns the same step in this process with PyTorch in eager mode on one thread."""
    import torch

    torch.set_num_threads(1)
    widths = (model.features, *model.hidden)
    layers = [layer for sizes in itertools.pairwise(widths) for layer in (torch.nn.Linear(*sizes), torch.nn.ReLU())]
    network = torch.nn.Sequential(*layers, torch.nn.Linear(widths[-1], model.classes))
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    x, y = torch.from_numpy(data["x"]), torch.from_numpy(data["y"])

    def step() -> object:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def median(step: Callable[[], object], seconds: float) -> float:
    """Returns the median time of a step in milliseconds, after as many as it takes to warm up."""
    for _ in range(5):
        step()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        step()
        times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1000


if __name__ == "__main__":
    sys.exit(main())
