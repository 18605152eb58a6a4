"""Times training steps through a server against the same steps in process with PyTorch, where that is installed.

Run it with `make bench` on an otherwise idle machine. Everything is float32 with Adam; each process computes on one
thread. Every figure is the median time of one step, in milliseconds.
"""

import argparse
import functools
import importlib.util
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
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


PEER = "PyTorch eager, in process"
WARM_UP = 5
MODELS = (Model(784, (128,), 10, 32), Model(784, (512, 512), 10, 128), Model(1024, (1024,) * 4, 10, 256))


def main() -> int:
    """Prints a table with a row for each model, and writes the same figures as JSON."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="embedded", help="a running server (default: start a private one)")
    parser.add_argument(
        "--rounds", type=int, default=30, help="rounds of all steps, interleaved (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, default=Path("out/bench.json"), help="(default: %(default)s)")
    options = parser.parse_args()
    with bw.connect(options.target) as client:
        results = {str(model): measure(client, model, options.rounds) for model in MODELS}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=2) + "\n")
    for model, medians in results.items():
        sys.stdout.write(f"{model}\n")
        peer = medians.get(PEER)
        for name, milliseconds in medians.items():
            ratio = f"{milliseconds / peer:6.2f} of PyTorch" if peer else ""
            sys.stdout.write(f"  {name:<28}{milliseconds:10.2f} ms {ratio}\n")
    if importlib.util.find_spec("torch") is None:
        sys.stdout.write("PyTorch is not installed; `.venv/bin/pip install torch` adds it and the ratios\n")
    sys.stdout.write(f"written to {options.output}\n")
    return 0


def measure(client: bw.Client, model: Model, rounds: int) -> dict[str, float]:
    """Returns the median time of each kind of step in milliseconds; the kinds take turns, so that noise hits all."""
    data = batch(model)
    with client.create_session(graph(model), bw.Adam(1e-3), seed=0) as session:
        steps: dict[str, Callable[[], object]] = {
            "empty call": session.info,
            "three calls": three_calls(session, data),
            "TrainStep": functools.partial(session.train_step, data),
        }
        if importlib.util.find_spec("torch") is not None:
            steps[PEER] = torch_step(model, data)
        times: dict[str, list[float]] = {name: [] for name in steps}
        for number in range(WARM_UP + rounds):
            for name, step in steps.items():
                begin = time.perf_counter()
                step()
                if number >= WARM_UP:
                    times[name].append((time.perf_counter() - begin) * 1000)
    return {name: statistics.median(each) for name, each in times.items()}


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


if __name__ == "__main__":
    sys.exit(main())
