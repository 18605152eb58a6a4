"""Einsum: sums of products over named axes."""

from string import ascii_letters

import numpy as np

from backwire_server.engine.dims import Dim, Shape, broadcast
from backwire_server.engine.errors import InvalidAttribute, ShapeMismatch
from backwire_server.engine.graph import Array, TensorType
from backwire_server.engine.narrow import single
from backwire_server.engine.registry import function, gradient, op
from backwire_server.engine.samples import F, case
from backwire_server.engine.shapes import common_dtype
from backwire_server.engine.values import O, Value


@function(
    "Einsum",
    samples=[
        case(F(2, 3), F(3, 4), equation="ij,jk->ik"),
        case(F(2, 3, 4), F(2, 4, 2), equation="...ij,...jk"),
        case(F(3, 3), equation="ii->i"),
        case(F(3, 3), equation="ii"),
        case(F(2, 3), equation="ij->j"),
        case(F(2), F(3), F(2, 3), equation="i, j, ij -> "),
        case(F(1, 2, 3), F(4, 2, 3), equation="...i,...i->..."),
    ],
)
def einsum(*inputs: Value, equation: str) -> Value:
    """The product of the inputs over all axes that the equation names, summed over those not in its result.

    As in numpy: `ij,jk->ik` is the matrix product, a letter named twice takes a diagonal, `...` stands for further
    axes, and without an arrow the result has the letters that are named once, in alphabetical order.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(inputs):
        raise InvalidAttribute(f"equation {equation!r} has {len(terms)} terms for {len(inputs)} inputs")
    named = left.replace(",", "").replace("...", "")
    spare = [letter for letter in ascii_letters if letter not in named]
    extra = max(
        x.rank - len(term.replace("...", "")) if "..." in term else 0 for x, term in zip(inputs, terms, strict=True)
    )
    if not arrow:
        right = "..." + "".join(letter for letter in sorted(set(named)) if named.count(letter) == 1)
    dots = "".join(spare[:extra])
    explicit = [_explicit(term, x.rank, dots) for x, term in zip(inputs, terms, strict=True)]
    return O.Contraction(*inputs, terms=tuple(explicit), result=right.replace("...", dots))


def _explicit(term: str, rank: int, dots: str) -> str:
    """Returns the term with a letter for each axis that `...` stands for."""
    hidden = rank - len(term.replace("...", ""))
    full = term.replace("...", dots[len(dots) - hidden :] if hidden > 0 else "")
    if len(full) != rank or not all(letter in ascii_letters for letter in full):
        raise ShapeMismatch(f"the term {term!r} of the equation does not name the {rank} axes of its input")
    return full


def _sizes(shapes: list[Shape], terms: tuple[str, ...]) -> dict[str, Dim]:
    """Returns the size of each named axis."""
    seen: dict[str, list[Shape]] = {}
    for shape, term in zip(shapes, terms, strict=True):
        for letter, dim in zip(term, shape, strict=True):
            seen.setdefault(letter, []).append((dim,))
    return {letter: broadcast(*dims)[0] for letter, dims in seen.items()}


def _contraction_type(*inputs: Value, terms: tuple[str, ...], result: str) -> TensorType:
    sizes = _sizes([x.shape for x in inputs], terms)
    if len(set(result)) != len(result) or any(letter not in sizes for letter in result):
        raise InvalidAttribute(f"the result {result!r} must name axes of the inputs, each once")
    return TensorType(common_dtype(inputs, "fi"), tuple(sizes[letter] for letter in result))


@op(
    "Contraction",
    shape=_contraction_type,
    samples=[case(F(2, 3), F(3, 4), terms=("ij", "jk"), result="ki")],
    internal=True,
)
def contraction(*inputs: Array, terms: tuple[str, ...], result: str) -> Array:
    """Einsum with a letter for every axis. Used by Einsum."""
    dtype = inputs[0].dtype
    found = np.einsum(f"{','.join(terms)}->{result}", *map(single, inputs), optimize=len(inputs) > 2)
    return np.asarray(found).astype(dtype, copy=False)


@gradient("Contraction")
def _(g: Value, y: Value, *inputs: Value, terms: tuple[str, ...], result: str) -> tuple[Value, ...]:
    return tuple(_by_input(g, inputs, terms, result, place) for place in range(len(inputs)))


def _by_input(g: Value, inputs: tuple[Value, ...], terms: tuple[str, ...], result: str, place: int) -> Value:
    """Returns the gradient by one input: g and the other inputs contracted to its axes.

    A letter that neither has is spread by a vector of ones, a letter that it names again by an identity matrix.
    """
    sizes = _sizes([x.shape for x in inputs], terms)
    spare = iter(letter for letter in ascii_letters if letter not in sizes)
    operands = [g, *(x for at, x in enumerate(inputs) if at != place)]
    names = [result, *(term for at, term in enumerate(terms) if at != place)]
    target = ""
    for letter in terms[place]:
        if letter in target:
            again = next(spare)
            size = int(sizes[letter])
            g.builder.make(size * size)
            operands.append(g.builder.constant(np.eye(size, dtype=g.dtype)))
            names.append(letter + again)
            target += again
            continue
        if not any(letter in name for name in names):
            operands.append(g.builder.constant(np.ones(g.builder.make(int(sizes[letter])), g.dtype)))
            names.append(letter)
        target += letter
    return O.Contraction(*operands, terms=tuple(names), result=target)
