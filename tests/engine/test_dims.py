"""Symbolic dimensions calculate like the sizes they stand for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backwire_server.engine.dims import Dim, Symbolic, UnknownDimension, broadcast, may_equal, product
from backwire_server.engine.errors import ShapeMismatch

N, M = Symbolic.of("n"), Symbolic.of("m")


def value(dim: Dim, n: int, m: int) -> int:
    if isinstance(dim, int):
        return dim
    sizes = {"n": n, "m": m}
    total = 0
    for names, coefficient in dim.terms.items():
        for name in names:
            coefficient *= sizes[name]
        total += coefficient
    return total


@given(st.integers(0, 9), st.integers(0, 9), st.integers(-5, 5), st.integers(-5, 5))
def test_arithmetic_agrees_with_numbers(n: int, m: int, a: int, b: int) -> None:
    assert value((N + a) * (M - b) + N * a - 3, n, m) == (n + a) * (m - b) + n * a - 3
    assert value(a - N, n, m) == a - n


def test_equal_polynomials_are_equal_and_collapse_to_numbers() -> None:
    assert (N + 1) * (N - 1) == N * N - 1
    assert N - N == 0
    assert N * 64 // N == 64
    assert N * 6 // 3 == N * 2
    assert hash(N + M) == hash(M + N)


def test_a_symbol_is_not_a_number() -> None:
    with pytest.raises(UnknownDimension):
        int(N)
    with pytest.raises(UnknownDimension):
        _ = N < 3


def test_only_a_constant_difference_proves_sizes_different() -> None:
    assert may_equal(N, 5)
    assert may_equal(N, M)
    assert not may_equal(N, N + 1)
    assert not may_equal(3, 4)


def test_broadcasting_symbols() -> None:
    assert broadcast((N, 1), (3,)) == (N, 3)
    assert broadcast((N,), (3,)) == (3,)
    assert broadcast((N, 4), (N, 4)) == (N, 4)
    with pytest.raises(ShapeMismatch, match="sizes 3 and 4"):
        broadcast((N, 3), (4,))


def test_products() -> None:
    assert product((2, N, 3)) == N * 6
    assert product(()) == 1
    assert str(product((2, N)) + 1) == "2*n + 1"
