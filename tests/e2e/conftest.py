"""Starts the real server as a process of its own and makes sure that it ends; compares models with PyTorch."""

import os
import queue
import signal
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import backwire as bw

Array = NDArray[Any]

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 120.0
PACKAGES = os.pathsep.join(str(ROOT / folder) for folder in ("proto", "client", "server"))


class ServerProcess:
    """A server that serves: its address, its process, and what it says."""

    def __init__(
        self,
        *flags: str,
        environment: dict[str, str] | None = None,
        within: Sequence[str] = (),
        module: str = "backwire_server",
    ) -> None:
        """Starts one with these flags; `within` is a command that runs the one after it in surroundings of its own."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("BACKWIRE_")}
        path = os.pathsep.join(filter(None, [PACKAGES, inherited.get("PYTHONPATH", "")]))
        self.process = subprocess.Popen(
            [*within, sys.executable, "-m", module, *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**inherited, "PYTHONPATH": path, "BACKWIRE_WORKERS": "1", **(environment or {})},
        )
        self.errors: list[str] = []
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._readers = [
            threading.Thread(target=self._read_output, daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read_output(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")  # the end, so that whoever waits for a line sees that none will come

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.errors.append(line)

    def wait_until_ready(self, seconds: float = START_SECONDS) -> str:
        """Returns the address that clients connect to."""
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            raise AssertionError(f"the server did not start:\n{''.join(self.errors)}") from None
        prefix = "backwire listening on "
        assert line.startswith(prefix), f"{line}\n{''.join(self.errors)}"
        return line.removeprefix(prefix).rstrip("\n")

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = 30.0) -> int:
        """Returns the exit status, once the server has ended and all it said was read."""
        status = self.process.wait(seconds)
        for reader in self._readers:
            reader.join(seconds)
        return status

    @property
    def further_lines(self) -> list[str]:
        """What it wrote to standard output after the line that says that it is ready."""
        lines = []
        while not self._lines.empty():
            lines.append(self._lines.get())
        return [line for line in lines if line]

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


@pytest.fixture
def start_server() -> Iterator[Callable[..., ServerProcess]]:
    """Starts servers on free ports of this machine, with further flags and environment variables."""
    started: list[ServerProcess] = []

    def start(*flags: str, environment: dict[str, str] | None = None) -> ServerProcess:
        if "--listen" not in flags and "BACKWIRE_LISTEN" not in (environment or {}):
            flags = ("--listen", "127.0.0.1:0", *flags)
        started.append(ServerProcess(*flags, environment=environment))
        return started[-1]

    yield start
    for server in started:
        server.end()


@pytest.fixture(scope="session")
def server_address() -> Iterator[str]:
    """The address of a server with default settings, which all tests of this process share."""
    server = ServerProcess("--listen", "127.0.0.1:0")
    try:
        yield server.wait_until_ready()
        server.signal()
        assert server.wait() == 0, "".join(server.errors)
    finally:
        server.end()


@pytest.fixture(scope="session")
def client(server_address: str) -> Iterator[bw.Client]:
    """A client of that server, for tests that ask for nothing of their own of either."""
    with bw.connect(server_address) as connected:
        yield connected


@dataclass
class TorchBench:
    """Compares a model here with the same formula in PyTorch, both in `dtype`; draws its inputs and parameters."""

    client: bw.Client
    dtype: str
    draw: np.random.Generator

    def normal(self, *shape: int, scale: float = 0.5) -> Array:
        return np.asarray(self.draw.normal(scale=scale, size=shape), self.dtype)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Array:
        return np.asarray(self.draw.uniform(low, high, shape), self.dtype)

    def labels(self, *shape: int, classes: int) -> Array:
        return self.draw.integers(classes, size=shape)

    def constant(self, array: Any) -> bw.Value:
        return bw.constant(array, dtype=self.dtype)

    def compare(
        self,
        inputs: dict[str, Array],
        parameters: dict[str, Array],
        here: Callable[[dict[str, bw.Value], dict[str, bw.Value]], bw.Value],
        there: Callable[[Any, Any], Any],
        layers: dict[str, Array] | None = None,
        state: dict[str, Array] | None = None,
    ) -> None:
        """Holds the loss and its gradients by all floating-point inputs and parameters against PyTorch's.

        `here` builds the loss of inputs and parameters, `there` computes it. `layers` are values for parameters that
        layers in `here` make themselves, and `state` for such that are not trained, but updated by the pass; what
        `there` leaves in their tensors is expected of them.
        """
        import torch

        layers, state = layers or {}, state or {}
        x = {name: bw.input(name, each.shape, dtype=each.dtype.name) for name, each in inputs.items()}
        p = {name: bw.parameter(name, each, dtype=self.dtype) for name, each in parameters.items()}
        session = self.client.create_session(bw.graph(loss=here(x, p)))
        if layers or state:
            session.set_parameters({**layers, **state})
        differentiable = [name for name, each in inputs.items() if each.dtype.kind == "f"]
        forward = session.forward(inputs)
        found = {**forward.backward(wrt=differentiable), **session.gradients()}

        trained = [*differentiable, *parameters, *layers]
        tensors = {name: torch.tensor(each) for name, each in {**inputs, **parameters, **layers, **state}.items()}
        for name in trained:
            tensors[name].requires_grad_()
        expected = there(tensors, tensors)
        expected.backward()
        assert found.keys() == set(trained)
        self.assert_equal(forward.loss, expected.detach().numpy(), "the loss")
        for name in trained:
            self.assert_equal(found[name], tensors[name].grad.numpy(), name)
        for name, value in session.parameters(list(state)).items() if state else ():
            self.assert_equal(value, tensors[name].numpy(), name)
        session.close()

    def assert_equal(self, found: Any, expected: Array, what: str) -> None:
        """Allows a relative error of 1e-9 in each element in float64; in float32 30 roundings of the largest."""
        if self.dtype == "float64":
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12, err_msg=what)
        else:
            largest = float(np.abs(expected).max(initial=0.0))
            rounding = float(np.finfo(np.float32).eps)
            np.testing.assert_allclose(found, expected, rtol=0, atol=30 * rounding * max(largest, 0.1), err_msg=what)


@pytest.fixture(params=["float64", "float32"])
def bench(request: pytest.FixtureRequest, client: bw.Client) -> TorchBench:
    """A bench for each precision, whose draws depend on nothing but the test's name."""
    seed = zlib.crc32(request.node.originalname.encode())
    return TorchBench(client, request.param, np.random.default_rng(seed))
