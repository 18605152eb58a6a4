"""The examples in docstrings do what they say; those that need a server run in tests/e2e."""

import doctest
import importlib
from collections.abc import Iterator

import pytest
from tests.client.modules import modules

import backwire as bw


def examples() -> Iterator[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    for name in modules(bw):
        if name != "backwire.__main__":
            for test in finder.find(importlib.import_module(name), globs={"bw": bw}):
                if test.examples and not any(word in (test.docstring or "") for word in ("client.", "embedded")):
                    yield test


@pytest.mark.parametrize("example", list(examples()), ids=lambda example: example.name)
def test_example(example: doctest.DocTest) -> None:
    report: list[str] = []
    assert doctest.DocTestRunner(verbose=False).run(example, out=report.append).failed == 0, "".join(report)
