"""A real server, the page that shows it, and a browser that looks."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.web.browser import PROGRAM, Browser
from tests.web.calling import Caller

import backwire as bw
from backwire._web._answers import Answers
from backwire._web._server import serving

TARGET = "here"


@pytest.fixture(scope="session")
def client() -> Iterator[bw.Client]:
    with bw.connect("embedded") as client:
        yield client


@pytest.fixture(scope="module")
def page(client: bw.Client) -> Iterator[str]:
    """The address of the page, with its key."""
    with serving(Answers(client, TARGET)) as address:
        yield address


@pytest.fixture
def session(client: bw.Client) -> Iterator[bw.Session]:
    """A session whose loss after each of its steps is half of what it was: 8, 4, 2, ..."""
    w = bw.parameter("w", np.array(4.0, "float32"))
    x = bw.input("x", ("batch",))
    loss = bw.reshape(bw.sum(w * x) ** 2.0, ()) * 0.5
    with client.create_session(loss, bw.SGD(1 - 0.5**0.5)) as session:
        yield session


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if PROGRAM is None:
        pytest.skip("Chromium is not installed")
    folder: Path = tmp_path_factory.mktemp("profile")
    with Browser(folder) as browser:
        yield browser


@pytest.fixture
def caller(page: str) -> Caller:
    return Caller(page)
