"""Dimensions that may be symbolic, and the shape arithmetic that works on both kinds.

A dimension is an int, or a `Symbolic`: a polynomial with integer coefficients over named sizes, such as `2*batch + 1`.
Equal polynomials are equal dimensions; others may still turn out equal once the sizes are known.

Polynomials are bounded, since a few nodes can ask for one of a billion terms: a dimension beyond the bounds is unknown.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import Any

from backwire_server.engine.errors import ShapeMismatch

Monomial = tuple[str, ...]

LARGEST = 2**63 - 1
"""The most elements along an axis, and the largest factor of a term."""

MOST_AXES = 32
"""As many as tensors in messages may have."""

MOST_TERMS = 256
MOST_FACTORS = 32
LONGEST_NAME = 1_000
"""The characters of a name that is made of other dimensions."""


class UnknownDimension(Exception):
    """A number was needed where a symbolic dimension stands, or a dimension is too intricate to be told.

    Raised inside shape rules, caught by the builder.
    """


class Symbolic:
    """An immutable polynomial over named sizes, each at least zero."""

    __slots__ = ("terms",)

    def __init__(self, terms: Mapping[Monomial, int]) -> None:
        self.terms = {monomial: terms[monomial] for monomial in sorted(terms) if terms[monomial]}

    @classmethod
    def of(cls, name: str) -> "Symbolic":
        """Returns the dimension that is just the named size."""
        return cls({(name,): 1})

    def __add__(self, other: "Dim") -> "Dim":
        terms = dict(self.terms)
        for monomial, coefficient in _terms(other).items():
            terms[monomial] = terms.get(monomial, 0) + coefficient
        return _simplest(terms)

    def __mul__(self, other: "Dim") -> "Dim":
        terms: dict[Monomial, int] = {}
        for left, a in self.terms.items():
            for right, b in _terms(other).items():
                monomial = tuple(sorted(left + right))
                terms[monomial] = terms.get(monomial, 0) + a * b
            _check_length(terms)
        return _simplest(terms)

    def __floordiv__(self, other: "Dim") -> "Dim":
        if isinstance(other, int) and other > 0 and all(c % other == 0 for c in self.terms.values()):
            return _simplest({monomial: c // other for monomial, c in self.terms.items()})
        quotient = _exact_quotient(self, other)
        return _named(f"({self})//({other})") if quotient is None else quotient

    def __rfloordiv__(self, other: int) -> "Dim":
        return _named(f"({other})//({self})")

    def __mod__(self, other: "Dim") -> "Dim":
        return self - self // other * other

    def __neg__(self) -> "Dim":
        return self * -1

    def __sub__(self, other: "Dim") -> "Dim":
        return self + -other

    def __rsub__(self, other: int) -> "Dim":
        return -self + other

    __radd__ = __add__
    __rmul__ = __mul__

    def __index__(self) -> int:
        raise UnknownDimension(str(self))

    def __bool__(self) -> bool:
        raise UnknownDimension(str(self))

    def __lt__(self, other: "Dim") -> bool:
        raise UnknownDimension(f"{self} against {other}")

    __le__ = __gt__ = __ge__ = __lt__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Symbolic) and self.terms == other.terms

    def __hash__(self) -> int:
        return hash(tuple(self.terms.items()))

    def __str__(self) -> str:
        parts = ["*".join([*([str(c)] if c != 1 or not m else []), *m]) for m, c in self.terms.items()]
        return " + ".join(sorted(parts, key=lambda part: (part.isdigit(), part)))

    __repr__ = __str__


Dim = int | Symbolic
Shape = tuple[Dim, ...]


def _terms(dim: Dim) -> Mapping[Monomial, int]:
    return dim.terms if isinstance(dim, Symbolic) else {(): int(dim)}


def _simplest(terms: Mapping[Monomial, int]) -> Dim:
    nonzero = {monomial: c for monomial, c in terms.items() if c}
    if set(nonzero) <= {()}:
        return nonzero.get((), 0)
    _check_length(nonzero)
    if any(len(monomial) > MOST_FACTORS or abs(c) > LARGEST for monomial, c in nonzero.items()):
        raise UnknownDimension(f"a product of more than {MOST_FACTORS} sizes, or a factor above {LARGEST}")
    return Symbolic(nonzero)


def _check_length(terms: Mapping[Monomial, int]) -> None:
    if len(terms) > MOST_TERMS:
        raise UnknownDimension(f"a sum of more than {MOST_TERMS} terms")


def _named(name: str) -> Symbolic:
    """Returns the dimension that is what its name says, such as a quotient."""
    if len(name) > LONGEST_NAME:
        raise UnknownDimension(f"a term of more than {LONGEST_NAME} characters")
    return Symbolic.of(name)


def _exact_quotient(dividend: Symbolic, divisor: Dim) -> Dim | None:
    """Divides by a single monomial where every term contains it, so that 64*batch // batch is 64."""
    if not isinstance(divisor, Symbolic) or len(divisor.terms) != 1:
        return None
    ((names, factor),) = divisor.terms.items()
    terms: dict[Monomial, int] = {}
    for monomial, coefficient in dividend.terms.items():
        rest = list(monomial)
        if coefficient % factor or any(names.count(name) > rest.count(name) for name in names):
            return None
        for name in names:
            rest.remove(name)
        terms[tuple(rest)] = coefficient // factor
    return _simplest(terms)


def may_equal(a: Dim, b: Dim) -> bool:
    """Tells whether the two can be the same size: False only when they differ by a constant other than zero."""
    difference: Any = a - b
    return isinstance(difference, Symbolic) or difference == 0


def mentions(dim: Dim, size: Symbolic) -> bool:
    """Tells whether a dimension depends on a named size."""
    return isinstance(dim, Symbolic) and not _names(dim).isdisjoint(_names(size))


def _names(dim: Symbolic) -> set[str]:
    return {name for monomial in dim.terms for name in monomial}


def product(dims: Iterable[Dim]) -> Dim:
    """Returns the number of elements of a shape."""
    start: Dim = 1
    return reduce(lambda a, b: a * b, dims, start)


def check_shape(shape: Sequence[Dim]) -> None:
    """Raises ShapeMismatch for a shape with axes that no array can have, whatever its symbolic dimensions are."""
    if len(shape) > MOST_AXES:
        raise ShapeMismatch(f"the result has {len(shape)} axes, and at most {MOST_AXES} are possible")
    sizes = [dim for dim in shape if isinstance(dim, int)]
    if min(sizes, default=0) < 0:
        raise ShapeMismatch(f"the result {show(shape)} has an axis of negative size; make the inputs larger")
    if max(sizes, default=0) > LARGEST:
        raise ShapeMismatch(f"the result has an axis of more than {LARGEST:,} elements; make the inputs smaller")


def concrete(shape: Iterable[Dim]) -> tuple[int, ...]:
    """Returns the shape as ints; raises UnknownDimension when one is symbolic."""
    return tuple(int(dim) for dim in shape)


def broadcast(*shapes: Sequence[Dim]) -> Shape:
    """Returns the common shape under numpy's rules; raises ShapeMismatch when there is none."""
    rank = max((len(shape) for shape in shapes), default=0)
    ones: list[Dim] = [1] * rank
    columns = zip(*([*ones[len(shape) :], *shape] for shape in shapes), strict=True)
    return tuple(reduce(_broadcast_dim, column) for column in columns)


def _broadcast_dim(a: Dim, b: Dim) -> Dim:
    if a == b or b == 1:
        return a
    if a == 1 or (isinstance(a, Symbolic) and isinstance(b, int)):
        return b
    if isinstance(a, int) and isinstance(b, int):
        raise ShapeMismatch(f"sizes {a} and {b} do not broadcast; make them equal, or one of them 1")
    return a if isinstance(a, int) else _named(f"max({a}, {b})")


def show(shape: Iterable[Dim]) -> str:
    """Returns the shape as people write it: `[batch, 64]`."""
    return "[" + ", ".join(str(dim) for dim in shape) + "]"
