"""Large tensors on a pipeline: they pass in chunks, and give the same bits."""

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tests.e2e.test_sdk_pipeline import DRAW, state
from tests.faults.proxy import Proxy

import backwire as bw


class TestLargeTensors:
    @pytest.fixture
    def narrow(self, start_server: Any) -> Iterator[bw.Client]:
        """A client of a server that takes messages of 4 MiB only."""
        server = start_server("--max-message-bytes", "4MiB", "--max-pass-bytes", "128MiB")
        with bw.connect(server.wait_until_ready()) as connected:
            yield connected

    def test_they_pass_unseen_and_give_the_same_bits(self, client: bw.Client, narrow: bw.Client) -> None:
        x = bw.input("x", ("n", 1024))
        w = bw.parameter("w", np.linspace(-1, 1, 1024, dtype=np.float32))
        y = bw.tanh(x * w)
        graph = bw.graph(loss=bw.mean(y), outputs={"y": y})
        large = DRAW.standard_normal((2500, 1024)).astype(np.float32)  # 10 MB
        found = []
        for each in (client, narrow):
            session = each.create_session(graph, bw.SGD(0.5))
            forward = session.forward({"x": large})
            gradient = forward.backward({"y": forward.outputs["y"]}, wrt=["x"])["x"]
            result = session.step()
            fused = session.train_step({"x": large[::-1]}, outputs=["y"])  # not in C order
            small = session.train_step({"x": large[:1000]}, outputs=["y"])  # only the answer does not fit
            fitted = [each.loss for each in session.train_steps([{"x": large}, {"x": large[:3]}])]
            assert session.info().step == 5
            assert not forward.outputs["y"].flags.writeable
            found.append(
                (
                    forward.loss,
                    forward.outputs["y"].tobytes(),
                    gradient.tobytes(),
                    result,
                    (fused.loss, fused.outputs["y"].tobytes(), small.loss, small.outputs["y"].tobytes()),
                    fitted,
                    state(session),
                )
            )
        assert found[0] == found[1]

    def test_what_exceeds_the_memory_quota_is_refused_and_changes_nothing(self, narrow: bw.Client) -> None:
        x = bw.input("x", ("n",))
        session = narrow.create_session(bw.mean(x * bw.parameter("w", 2.0)), bw.SGD(0.5))
        with pytest.raises(bw.BackwireError, match="exceed") as caught:
            session.train_step({"x": np.zeros(33 << 20, np.float32)})
        assert isinstance(caught.value, (bw.TensorError, bw.ResourceExhaustedError))
        assert session.info().step == 0
        assert session.train_step({"x": np.zeros(2 << 20, np.float32)}).step == 1

    def test_they_survive_a_connection_that_breaks(self, start_server: Any) -> None:
        server = start_server("--max-message-bytes", "4MiB")
        proxy = Proxy(server.wait_until_ready())
        with bw.connect(proxy.address, retry=bw.Retry(attempts=20, initial=0.02, maximum=0.2)) as client:
            x = bw.input("x", ("n",))
            session = client.create_session(bw.mean(x * bw.parameter("w", 2.0)), bw.SGD(0.5))
            cutter = threading.Timer(0.05, proxy.cut)
            cutter.start()
            steps = [session.train_step({"x": np.ones(4 << 20, np.float32)}).step for _ in range(6)]
            cutter.join()
        proxy.close()
        assert steps == [1, 2, 3, 4, 5, 6]
        assert proxy.connections > 1
