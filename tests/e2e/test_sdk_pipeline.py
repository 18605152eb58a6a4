"""The SDK's pipelines against the real server: equal results, errors, large tensors, and connections that break."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
from tests.faults.proxy import Proxy

import backwire as bw

DRAW = np.random.default_rng(11)
BATCHES: list[dict[str, Any]] = [
    {"x": DRAW.standard_normal((8, 6)).astype(np.float32), "y": DRAW.integers(0, 4, 8)} for _ in range(6)
]


def classifier() -> bw.Value:
    x, y = bw.input("x", ("batch", 6)), bw.input("y", ("batch",), dtype="int64")
    hidden = bw.dropout(bw.relu(bw.dense(x, 16, name="hidden")), 0.1)
    return bw.softmax_cross_entropy(bw.dense(hidden, 4, name="logits"), y)


@pytest.fixture
def proxy(server_address: str) -> Iterator[Proxy]:
    with Proxy(server_address) as made:
        yield made


@pytest.fixture
def train(client: bw.Client) -> Callable[[], bw.Session]:
    return lambda: client.create_session(classifier(), bw.Adam(1e-2), seed=3)


def state(session: bw.Session) -> dict[str, bytes]:
    return {name: value.tobytes() for name, value in session.parameters().items()}


@pytest.fixture
def expected(train: Callable[[], bw.Session]) -> tuple[list[float], dict[str, bytes]]:
    """Losses and parameters after one TrainStep for each batch."""
    session = train()
    return [session.train_step(batch).loss for batch in BATCHES], state(session)


class TestResults:
    def test_three_verbs_in_flight_do_what_three_calls_do(
        self, train: Callable[[], bw.Session], expected: tuple[list[float], dict[str, bytes]]
    ) -> None:
        session = train()
        with session.pipeline(depth=5) as pipe:
            forwards, steps = [], []
            for batch in BATCHES:
                forwards.append(pipe.forward(batch))
                pipe.backward(forwards[-1])
                steps.append(pipe.step())
        assert [each.result().loss for each in forwards] == expected[0]
        assert [each.result().step for each in steps] == [1, 2, 3, 4, 5, 6]
        assert state(session) == expected[1]

    @pytest.mark.parametrize("depth", [1, 2, 5])
    def test_train_steps_do_what_train_step_does(
        self, train: Callable[[], bw.Session], expected: tuple[list[float], dict[str, bytes]], depth: int
    ) -> None:
        session = train()
        assert [result.loss for result in session.train_steps(BATCHES, depth=depth)] == expected[0]
        assert state(session) == expected[1]

    def test_arrays_may_be_reused_as_soon_as_a_call_returns(
        self, train: Callable[[], bw.Session], expected: tuple[list[float], dict[str, bytes]]
    ) -> None:
        session = train()
        x, y = np.empty((8, 6), np.float32), np.empty(8, np.int64)
        with session.pipeline() as pipe:
            futures = []
            for batch in BATCHES:
                x[:], y[:] = batch["x"], batch["y"]
                futures.append(pipe.train_step({"x": x, "y": y}))
                x[:], y[:] = np.nan, 0
        assert [each.result().loss for each in futures] == expected[0]

    def test_gradients_of_inputs_and_other_settings_come_through(self, client: bw.Client) -> None:
        x = bw.input("x", (2,))
        session = client.create_session(bw.graph(outputs={"y": x * x}))
        with session.pipeline() as pipe:
            forward = pipe.forward({"x": [1, 2]})
            first = pipe.backward(forward, {"y": [10, 100]}, wrt=["x"], retain=True)
            second = pipe.backward(forward, {"y": [1, 1]}, wrt=["x"])
            whole = pipe.forward({"x": [3, 4]}, mode="eval")
            info = pipe.info()
        assert first.result()["x"].tolist() == [20.0, 400.0]
        assert second.result()["x"].tolist() == [2.0, 4.0]
        assert whole.result().outputs["y"].tolist() == [9.0, 16.0]
        assert info.result().contributions == 2
        assert not first.result()["x"].flags.writeable


class TestErrors:
    def test_dependents_fail_with_their_cause_and_the_rest_goes_on(self, train: Callable[[], bw.Session]) -> None:
        session = train()
        with session.pipeline() as pipe:
            bad = pipe.forward({"x": BATCHES[0]["x"]})
            behind, step = pipe.backward(bad), pipe.step()
            evaluated = pipe.forward(BATCHES[0], mode="eval")
            cleared, trained = pipe.zero_gradients(), pipe.train_step(BATCHES[0])
            with pytest.raises(bw.MissingInputError) as missing:
                bad.result()
            for future in (behind, step):
                with pytest.raises(bw.DependencyFailedError) as caught:
                    future.result()
                assert caught.value.__cause__ is missing.value
                assert caught.value.request_id == future.request_id
        assert evaluated.result().loss is not None
        assert cleared.result() == 0
        assert trained.result().step == 1

    def test_an_error_that_nobody_looked_at_is_raised_at_the_end(self, train: Callable[[], bw.Session]) -> None:
        session = train()

        def leave() -> None:
            with session.pipeline() as pipe:
                pipe.train_step({})
                pipe.train_step(BATCHES[0])

        with pytest.raises(bw.MissingInputError):
            leave()
        assert session.info().step == 1

    def test_a_chain_stops_at_its_first_error(self, train: Callable[[], bw.Session]) -> None:
        session = train()
        with session.pipeline() as pipe:
            futures = [pipe.train_step(batch, depends="previous") for batch in (BATCHES[0], {}, BATCHES[1], BATCHES[2])]
            last = pipe.train_step(BATCHES[3], depends="nothing")
            found = [type(future.exception()) for future in futures]
        assert found == [type(None), bw.MissingInputError, bw.DependencyFailedError, bw.DependencyFailedError]
        assert last.result().step == 2

    def test_train_steps_apply_nothing_after_an_error(self, train: Callable[[], bw.Session]) -> None:
        session = train()
        batches: list[dict[str, Any]] = [*BATCHES[:2], {"x": BATCHES[2]["x"]}, *BATCHES[3:]]
        steps: list[int] = []
        with pytest.raises(bw.MissingInputError):
            steps.extend(result.step for result in session.train_steps(batches, depth=4))
        assert steps == [1, 2]
        assert session.info().step == 2

    def test_steps_that_were_on_their_way_when_a_loop_was_left_are_applied(
        self, train: Callable[[], bw.Session]
    ) -> None:
        session = train()
        results = session.train_steps(BATCHES, depth=3)
        assert [result.step for result in islice(results, 2)] == [1, 2]
        results.close()  # type: ignore[attr-defined]
        assert session.info().step == 4

    def test_repeated_request_ids_are_applied_once(self, train: Callable[[], bw.Session]) -> None:
        session = train()
        first = session.train_step(BATCHES[0], request_id="same")
        with session.pipeline() as pipe:
            again = pipe.train_step(BATCHES[0], request_id="same")
            other = pipe.train_step(BATCHES[1], request_id="same")
            assert again.result() == first
            with pytest.raises(bw.RequestIdReusedError):
                other.result()
        assert session.info().step == 1


class TestBrokenConnections:
    def test_train_steps_ride_through_and_applies_every_batch_once(
        self, proxy: Proxy, train: Callable[[], bw.Session], expected: tuple[list[float], dict[str, bytes]]
    ) -> None:
        session = train()
        patient = bw.Retry(attempts=20, initial=0.02, maximum=0.2)
        with bw.connect(proxy.address, retry=patient) as client:
            losses = []
            for result in client.session(session.id).train_steps(BATCHES * 5, depth=3):
                losses.append(result.loss)
                if result.step % 7 == 0:
                    proxy.cut()
        assert proxy.connections >= 4, "the last cut may come when all is answered"
        assert losses[:6] == expected[0]
        assert session.info().step == 30

    def test_three_verbs_ride_through_to_the_same_bits(
        self, proxy: Proxy, train: Callable[[], bw.Session], expected: tuple[list[float], dict[str, bytes]]
    ) -> None:
        session = train()
        with (
            bw.connect(proxy.address, retry=bw.Retry(attempts=20, initial=0.02, maximum=0.2)) as client,
            client.session(session.id).pipeline(depth=6) as pipe,
        ):
            for number, batch in enumerate(BATCHES):
                pipe.backward(pipe.forward(batch))
                step = pipe.step()
                if number % 2:
                    proxy.cut()
            assert step.result().step == 6
        assert state(session) == expected[1]

    def test_a_pipeline_without_a_server_fails_in_its_time(self, proxy: Proxy, train: Callable[[], bw.Session]) -> None:
        session = train()
        with bw.connect(proxy.address, retry=bw.Retry(attempts=3, initial=0.01)) as client:
            pipe = client.session(session.id).pipeline()
            assert pipe.train_step(BATCHES[0]).result().step == 1
            proxy.close()
            future = pipe.train_step(BATCHES[1])
            with pytest.raises(bw.UnavailableError) as caught:
                future.result()
            assert caught.value.request_id == future.request_id
            with pytest.raises(bw.UnavailableError):
                pipe.train_step(BATCHES[2])
            pipe.close()
        assert session.train_step(BATCHES[1], request_id=future.request_id).step == 2

    def test_a_request_without_an_id_is_not_repeated(self, proxy: Proxy, train: Callable[[], bw.Session]) -> None:
        session = train()
        with bw.connect(proxy.address) as client:
            pipe = client.session(session.id).pipeline()
            pipe.info().result()
            proxy.close()
            with pytest.raises(bw.UnavailableError):
                pipe.train_step(BATCHES[0], request_id="").result()

    def test_closing_the_client_fails_what_is_in_flight(
        self, server_address: str, train: Callable[[], bw.Session]
    ) -> None:
        client = bw.connect(server_address)
        pipe = client.session(train().id).pipeline(depth=64)
        futures = [pipe.train_step(BATCHES[0]) for _ in range(64)]
        client.close()
        assert {type(each.exception(10)) for each in futures} <= {type(None), bw.CancelledError, bw.ClientClosedError}
        with pytest.raises(bw.BackwireError):
            pipe.train_step(BATCHES[0]).result(10)
