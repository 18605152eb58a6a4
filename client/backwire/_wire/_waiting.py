"""Calls that wait for a server which may have vanished without a word: when that is asked for, and of whom.

A machine that is gone breaks no connection, and a call that takes long looks the same from here. But other servers see
signs of life of that one, or none, so one of them is asked.
"""

import time
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any, Generic, TypeVar

import grpc

from backwire._wire._owners import Owners, told_of
from backwire_api.metadata import FOLLOWS_KEY, WAITS_KEY
from backwire_api.v1 import gradient_service_pb2 as service_pb2

Channel = TypeVar("Channel")

SLOW_SECONDS = 1.0
"""After how long without an answer it is asked whether the server lives, and after how long again."""

LOOK_SECONDS = 0.25
"""How often it is looked whether calls wait for so long."""

QUESTION = "/backwire_api.v1.GradientService/GetSessionHistory"


class Broken(grpc.RpcError):
    """A call that was sent and not answered, as gRPC would tell of it."""

    def __init__(self, details: str) -> None:
        super().__init__()
        self._details = details

    def code(self) -> grpc.StatusCode:
        """As of a connection that broke."""
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        """Returns why."""
        return self._details

    def initial_metadata(self) -> tuple[Any, ...]:
        """None."""
        return ()

    def trailing_metadata(self) -> tuple[Any, ...]:
        """None, as of a call that was not answered."""
        return ()


class Vanished(Broken):
    """A call was given up whose server lives no more, by what another one says."""

    def __init__(self, address: str) -> None:
        super().__init__(f"the server at {address}, which had the session, gives no sign of life any more")


def answered(answer: Any) -> Any:
    """Returns the answer to a unary call; raises Broken where there is none.

    gRPC takes that for a success, with None: when a call whose deadline passes has its status before its message.
    """
    if answer is None:
        raise Broken("the call ended without an answer")
    return answer


class Waiter:
    """A call in progress.

    Attributes:
        address: Where it was sent.
        gone: Whether it was given up since no server lives there.
        call: What cancels it, where calls are cancelled one by one.
    """

    __slots__ = ("_since", "address", "call", "gone", "metadata", "session_id")

    def __init__(
        self, address: str, session_id: str, metadata: Iterable[Any], since: Callable[[], float | None] | None = None
    ) -> None:
        """Waits from now on; or since when `since` tells, which is None while there is nothing to wait for."""
        self.address = address
        self.session_id = session_id
        self.metadata = metadata
        self.gone = False
        self.call: Any = None
        now = time.monotonic()
        self._since = since or (lambda: now)

    def is_slow(self, now: float) -> bool:
        """Tells whether it waits for so long that it is asked why."""
        since = self._since()
        return since is not None and now - since >= SLOW_SECONDS

    @property
    def question(self) -> tuple[bytes, tuple[Any, ...]]:
        """The request that asks whether a server lives where this waits, and its metadata."""
        request = service_pb2.GetSessionHistoryRequest(session_id=self.session_id)
        others = (each for each in self.metadata if each[0] != FOLLOWS_KEY)
        return request.SerializeToString(), (*others, (FOLLOWS_KEY, "1"), (WAITS_KEY, self.address))

    def heir(self, error: Any) -> str | None:
        """Returns where to call instead, by how that was answered; None where a server lives, or that is not known."""
        told = told_of(error)[1]
        return told.get("owner", "") if told.get("gone") == self.address else None


def since_of(requests: object) -> Callable[[], float | None] | None:
    """Returns what tells since when what is sent on a stream is not answered, if that does; None otherwise."""
    return getattr(requests, "unanswered_since", None)


class Waiting(Generic[Channel]):
    """The calls in progress to servers that a client goes to itself. Those that share one between threads guard it."""

    def __init__(self, owners: Owners[Channel]) -> None:
        self._owners = owners
        self._calls: dict[int, Waiter] = {}
        self._numbers = count(1)
        self._turn = 0
        self._next = 0.0

    def __bool__(self) -> bool:
        return bool(self._calls)

    def add(self, waiter: Waiter) -> int:
        """Has one more, under the number that is returned."""
        number = next(self._numbers)
        self._calls[number] = waiter
        return number

    def remove(self, number: int) -> None:
        """Has one less."""
        self._calls.pop(number, None)

    def at(self, address: str) -> list[Waiter]:
        """Returns those that wait for an answer from there."""
        return [waiter for waiter in self._calls.values() if waiter.address == address]

    def due(self) -> tuple[Waiter, Channel] | None:
        """Returns the call that is asked for now, and the channel to the server to be asked; None for none.

        Servers that are waited for take turns, and so do those that may know.
        """
        now = time.monotonic()
        if now < self._next:
            return None
        slow = {waiter.address: waiter for waiter in self._calls.values() if waiter.is_slow(now)}
        if not slow:
            self._turn = 0
            return None
        waiter = slow[sorted(slow)[self._turn % len(slow)]]
        others = self._owners.others(waiter.address)
        chosen = others[self._turn // len(slow) % len(others)]
        self._turn += 1
        self._next = now + SLOW_SECONDS
        return waiter, chosen
