"""The examples in the SDK's docstrings that need a server do what they say."""

import asyncio
import doctest
import importlib
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from tests.client.modules import modules

import backwire as bw


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[bw.Client]:
    with bw.connect("embedded", data_dir=tmp_path_factory.mktemp("data")) as connected:
        yield connected


@pytest.fixture
def run(client: bw.Client) -> Callable[[Callable[[bw.aio.Client], Coroutine[Any, Any, Any]]], Any]:
    """Runs a coroutine function with a client of `backwire.aio`, of the same server."""

    async def connected(use: Callable[[bw.aio.Client], Coroutine[Any, Any, Any]]) -> Any:
        async with bw.aio.connect(client.target) as found:
            return await use(found)

    return lambda use: asyncio.run(connected(use))


COMMANDS = ("backwire.__main__", "backwire._cli", "backwire._demo")
"""What nobody imports, and what may need extras."""


def examples() -> Iterator[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    for package in (bw, bw.aio):
        for name in modules(package):
            if not name.startswith(COMMANDS):
                for test in finder.find(importlib.import_module(name), globs={"bw": bw, "asyncio": asyncio}):
                    if test.examples and any(word in (test.docstring or "") for word in ("client.", "embedded")):
                        yield test


@pytest.mark.parametrize("example", list(examples()), ids=lambda example: example.name)
def test_example(example: doctest.DocTest, client: bw.Client, run: Any) -> None:
    example.globs.update(client=client, run=run)
    report: list[str] = []
    assert doctest.DocTestRunner(verbose=False).run(example, out=report.append).failed == 0, "".join(report)
