"""Sessions in training behind a gateway, and what they press its workers with."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from tests.cluster.site import owner_in, unfollowing
from tests.trainees import WAYS, Trainee, create

import backwire as bw


@contextmanager
def trainees(target: str, seed: int) -> Iterator[list[Trainee]]:
    """Sessions that are made and trained through the gateway, by clients that follow owners and clients that do not."""
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(target)) for connect in (bw.connect, unfollowing)]
        made = [
            stack.enter_context(Trainee(create(client, seed + number), way, seed + number))
            for number, (client, way) in enumerate((client, way) for client in clients for way in WAYS)
        ]
        for each in made:
            each.goes_on()
        yield made


def results(trained: list[Trainee]) -> list[tuple[int, str]]:
    return [each.result() for each in trained]


def expected(trained: list[Trainee], undisturbed: bw.Client) -> list[tuple[int, str]]:
    return [each.expected(undisturbed) for each in trained]


def wide(client: bw.Client, seed: int) -> bw.Session:
    x = bw.input("x", ("batch", 512))
    loss = bw.squared_error(bw.dense(bw.relu(bw.dense(x, 512, name="a")), 512, name="b"), x)
    return client.create_session(bw.graph(loss=loss), optimizer=bw.SGD(1e-3), seed=seed)


@contextmanager
def pressed(sessions: list[bw.Session]) -> Iterator[None]:
    """Has a thread for each session train it without a pause; raises what a step fails with."""
    data, stop = {"x": np.ones((256, 512), np.float32)}, threading.Event()

    def train(session: bw.Session) -> None:
        step = 0
        while not stop.is_set():
            step += 1
            assert session.train_step(data).step == step

    with ThreadPoolExecutor(len(sessions)) as pool:
        futures = [pool.submit(train, each) for each in sessions]
        try:
            yield
        finally:
            stop.set()
        for future in futures:
            future.result()


def trains_on(trained: Trainee, worker: str, directory: Path) -> bool:
    """Has it train on a worker; tells whether the controller, which evens out the load, left it there meanwhile."""
    if owner_in(directory, trained.session.id) != worker:
        trained.session.move(worker)
    trained.goes_on()
    return owner_in(directory, trained.session.id) == worker


def owners(trained: list[Trainee], directory: Path) -> list[str]:
    return sorted({owner_in(directory, each.session.id) for each in trained})
