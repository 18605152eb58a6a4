"""The examples in the SDK's docstrings that need a server do what they say."""

import doctest
from collections.abc import Iterator
from typing import Any

import pytest

import backwire as bw


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[bw.Client]:
    with bw.connect("embedded", data_dir=tmp_path_factory.mktemp("data")) as connected:
        yield connected


@pytest.mark.parametrize(
    "documented",
    [
        bw.connect,
        bw.Client.describe,
        bw.Session.forward,
        bw.Session.train_step,
        bw.Session.parameters,
        bw.Session.check_gradients,
        bw.Session.digest,
        bw.Session.attach,
        bw.Session.save_checkpoint,
        bw.Session.fork,
        bw.Forward.backward,
    ],
    ids=lambda each: each.__qualname__,
)
def test_example(documented: Any, client: bw.Client) -> None:
    (example,) = doctest.DocTestFinder().find(documented, globs={"bw": bw, "client": client})
    assert example.examples
    report: list[str] = []
    assert doctest.DocTestRunner(verbose=False).run(example, out=report.append).failed == 0, "".join(report)
