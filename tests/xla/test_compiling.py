"""What the compiler of JAX is told, so that journals are replayed to the same bits on GPUs."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import pytest

from backwire_server.xla import compiling
from backwire_server.xla.compiling import STEADY, jitted


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The options that compilers were told of, in a process that seems to have a GPU."""
    found: list[Any] = []
    real: Callable[..., Any] = jax.jit

    def jit(function: Callable[..., Any], *, compiler_options: Any, **options: Any) -> Any:
        found.append(compiler_options)
        return real(function, compiler_options=compiler_options, **options)

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "jit", jit)
    compiling._steady.cache_clear()
    yield found
    compiling._steady.cache_clear()


def test_a_gpu_is_to_give_the_same_bits_each_time_by_an_option_that_xla_knows(told: list[Any]) -> None:
    assert jitted(lambda x: x + 1)(2) == 3
    assert told == [{STEADY: True}]


def test_what_the_user_chose_holds(told: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", f"--{STEADY}=false")
    jitted(lambda x: x)
    assert told == [None]


def test_xla_would_refuse_an_option_that_it_does_not_know() -> None:
    with pytest.raises(jax.errors.JaxRuntimeError, match="steadily"):
        jax.jit(lambda x: x, compiler_options={"steadily": True})(1)
