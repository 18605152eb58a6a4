"""The state of a session as plain data: what a checkpoint, an export and a fork carry, and its digest."""

import hashlib
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

import numpy as np

from backwire_server.sessions.calls import ForwardCall, LeaseCall
from backwire_server.sessions.requests import RequestKey
from backwire_server.sessions.training.scaling import LossScale
from backwire_server.sessions.training.versions import Array

Arrays = Mapping[str, Array]

DIGEST_FORMAT = b"backwire-state-1"


@dataclass(frozen=True, slots=True)
class State:
    """All that a session's next steps follow from, besides its graph, optimizer and seed.

    Attributes:
        step: The number of steps applied.
        forwards: The number of passes made in training.
        contributions: How many gradients were accumulated since the last step.
        total_weight: The sum of their weights.
        parameters: The value of every parameter by name, in the graph's order.
        gradients: The accumulated gradient of each trainable parameter; empty when there are no contributions.
        memory: What the optimizer remembers, by its name for it and then by trainable parameter, shaped like it.
        scaling: What the loss is multiplied by; None in a session whose gradients need none.
    """

    step: int
    forwards: int
    contributions: int
    total_weight: float
    parameters: Arrays
    gradients: Arrays = field(default_factory=dict)
    memory: Mapping[str, Arrays] = field(default_factory=dict)
    scaling: LossScale | None = None

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays."""
        groups = (self.parameters, self.gradients, *self.memory.values())
        return sum(array.nbytes for group in groups for array in group.values())

    def digest(self) -> str:
        """Returns the SHA-256 of the state in hexadecimal: the same for the same bits, on any machine.

        It covers `DIGEST_FORMAT`, the four numbers, and then for parameters, gradients and each memory (sorted by name)
        the group's name and the name, dtype, shape and little-endian bytes of each array, in the graph's order. Texts
        and arrays are preceded by their length as 8 bytes. Where the loss is scaled, the text `scaling` and the two
        numbers of that, as 16 bytes, follow.
        """
        found = hashlib.sha256(DIGEST_FORMAT)
        found.update(struct.pack("<qqqd", self.step, self.forwards, self.contributions, self.total_weight))
        groups = {"parameters": self.parameters, "gradients": self.gradients}
        groups |= {f"optimizer/{name}": self.memory[name] for name in sorted(self.memory)}
        for group, arrays in groups.items():
            _add(found, group.encode())
            for name, array in arrays.items():
                _add(found, name.encode())
                _add(found, f"{array.dtype.name}{list(array.shape)}".encode())
                _add(found, _bytes(array))
        if self.scaling is not None:
            _add(found, b"scaling")
            found.update(struct.pack("<dq", self.scaling.value, self.scaling.good_steps))
        return found.hexdigest()


@dataclass(frozen=True, slots=True)
class PassImage:
    """A live pass as what it can be made from again.

    Attributes:
        name: Its forward_id.
        call: What was asked for.
        number: Which pass in training it is; random numbers are drawn from that.
        step: How many steps had been applied when it was made.
        parameters: The values that it was made with.
    """

    name: str
    call: ForwardCall
    number: int
    step: int
    parameters: Arrays


@dataclass(frozen=True, slots=True)
class RequestImage:
    """A mutation that is remembered by its request id; the answer is None where it was dropped."""

    key: RequestKey
    answer: Any


@dataclass(slots=True)
class Image:
    """Everything that a session is at one moment. Its arrays stay as they are until `close`; it is a context for that.

    Attributes:
        state: The state.
        passes: The live passes, oldest first.
        requests: The mutations that are remembered, oldest first.
        lease: The last writer lease that was given or given back; None when there was none.
        settled: Whether nothing has changed since the step that the state is at.
    """

    state: State
    passes: Sequence[PassImage] = ()
    requests: Sequence[RequestImage] = ()
    lease: LeaseCall | None = None
    settled: bool = False
    on_close: Sequence[Callable[[], None]] = ()

    def detached(self) -> "Image":
        """Returns the same in memory of its own; arrays that several passes share are copied once."""
        copies: dict[int, Array] = {}

        def copy(arrays: Arrays) -> Arrays:
            for array in arrays.values():
                if id(array) not in copies:
                    copies[id(array)] = array.copy()
            return {name: copies[id(array)] for name, array in arrays.items()}

        state = replace(
            self.state,
            parameters=copy(self.state.parameters),
            gradients=copy(self.state.gradients),
            memory={name: copy(arrays) for name, arrays in self.state.memory.items()},
        )
        passes = [replace(each, parameters=copy(each.parameters)) for each in self.passes]
        return Image(state, passes, self.requests, self.lease, self.settled)

    def close(self) -> None:
        """Lets go of the arrays; closing again does nothing."""
        ending, self.on_close = self.on_close, ()
        for end in ending:
            end()

    def __enter__(self) -> "Image":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _add(found: Any, data: bytes | memoryview) -> None:
    found.update(len(data).to_bytes(8, "little"))
    found.update(data)


def _bytes(array: Array) -> memoryview:
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<") if array.dtype.byteorder == ">" else None)
    return little.reshape(-1).view(np.uint8).data
