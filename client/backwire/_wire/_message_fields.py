"""What fields of requests can hold: numbers, names and choices, checked before anything is sent."""

import operator
import secrets
from collections.abc import Collection, Iterable, Mapping
from typing import SupportsIndex, TypeVar

from backwire._errors import InvalidRequestError, UnknownNameError
from backwire._info import DURABILITIES, PRECISIONS, Durability, Precision
from backwire_api.v1 import gradient_service_pb2 as service_pb2

Choice = TypeVar("Choice")


def whole(field: str, value: SupportsIndex, bits: int = 63) -> int:
    """Returns a number that a message has in so many bits; raises InvalidRequestError for what is none."""
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if not 0 <= number < 1 << bits:
        raise InvalidRequestError(f"{field}={value!r} is no whole number of {bits} bits; use 0 or more", field=field)
    return number


def durability_number(durability: Durability | None) -> service_pb2.Durability.ValueType:
    """Returns the number of a level, that of none for None; raises InvalidRequestError for one that is unknown."""
    if durability is None:
        return service_pb2.DURABILITY_UNSPECIFIED
    return chosen("durability", durability, DURABILITIES)


def precision_number(precision: Precision | None) -> service_pb2.Precision.ValueType:
    """Returns the number of a precision, that of none for None; raises InvalidRequestError for one that is unknown."""
    if precision is None:
        return service_pb2.PRECISION_UNSPECIFIED
    return chosen("precision", precision, PRECISIONS)


def check_known(kind: str, names: Iterable[str], known: Collection[str]) -> None:
    """Raises UnknownNameError for a name that is none of those that the graph has of this kind."""
    for name in names:
        if name not in known:
            listed = ", ".join(map(repr, known)) or "none"
            raise UnknownNameError(f"the graph has no {kind} {name!r}; it has {listed}", field=f"{kind}s[{name}]")


def chosen(what: str, value: str, choices: Mapping[str, Choice]) -> Choice:
    """Returns what a name stands for; raises InvalidRequestError for one that is unknown."""
    if value not in choices:
        raise InvalidRequestError(
            f"{what}={value!r} is unknown; use one of {', '.join(map(repr, choices))}", field=what
        )
    return choices[value]


def new_request_id(given: str | None) -> str:
    """Returns the id that the user gave, or a random one of 128 bits."""
    return secrets.token_hex(16) if given is None else given
