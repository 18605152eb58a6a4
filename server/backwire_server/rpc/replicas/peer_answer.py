"""The answer of another server to a part, while it comes."""

from collections.abc import Mapping

import numpy as np

from backwire_api.v1 import peer_pb2
from backwire_server.messages.parts import kinds_from_proto, result_from_proto
from backwire_server.parallel.segment import Kind, Segment, packed_bytes, unpacked
from backwire_server.parallel.task import Part, Result
from backwire_server.rpc.replicas.peer_wire import Chunk, Response


class Arriving:
    """An answer of which gradients are written where they are to lie. Whoever uses it sees to it that one thread does.

    Attributes:
        refusal: Why there is none; None where there is.
        nbytes: How many bytes of arrays have come.
    """

    def __init__(self, part: Part, gradients: Segment) -> None:
        """Takes the answer to this part."""
        self.refusal: int | None = None
        self.nbytes = 0
        self._part = part
        self._message: peer_pb2.PartResult | None = None
        self._gradients: Segment | None = gradients
        self._first = gradients.nbytes if part.differentiates else 0
        self._outputs: Mapping[str, Kind] = {}
        self._inputs = {name: part.inputs[name] for name in part.wrt}
        self._others = np.zeros(0, np.uint8)

    @property
    def whole(self) -> bool:
        """Whether all has come."""
        return self.refusal is not None or (self._message is not None and self.nbytes == self._total)

    def forget(self) -> None:
        """Has gradients written nowhere from now on."""
        self._gradients = None

    def take(self, response: Response) -> None:
        """Takes the next message; raises ValueError for one that should not come."""
        if isinstance(response, Chunk):
            self._fill(response.data)
        elif response.HasField("refusal"):
            self.refusal = response.refusal.reason
        else:
            self._begin(response.result)

    def result(self) -> Result:
        """Returns what has come, which is whole."""
        assert self._message is not None
        outputs = unpacked(self._outputs, self._others)
        return result_from_proto(
            self._message, outputs, unpacked(self._inputs, self._others, packed_bytes(self._outputs))
        )

    @property
    def _total(self) -> int:
        return self._first + len(self._others)

    def _begin(self, message: peer_pb2.PartResult) -> None:
        self._outputs = kinds_from_proto(message.outputs)
        if self._outputs and not self._part.tells:
            raise ValueError(f"outputs came that were not asked for: {', '.join(self._outputs)}")
        if self._part.tells and not {*self._outputs} >= {*(self._part.outputs or ())}:
            raise ValueError(f"only these outputs came: {', '.join(self._outputs) or 'none'}")
        if kinds_from_proto(message.inputs) != self._inputs:
            raise ValueError(f"gradients of other inputs came than of {', '.join(self._inputs) or 'none'}")
        self._message = message
        self._others = np.zeros(packed_bytes(self._outputs) + packed_bytes(self._inputs), np.uint8)

    def _fill(self, chunk: memoryview) -> None:
        start, end = self.nbytes, self.nbytes + len(chunk)
        if self._message is None or end > (self._first if start < self._first else self._total):
            raise ValueError(f"{len(chunk):,} bytes came that nobody has a place for")
        if start >= self._first:
            self._others.data[start - self._first : end - self._first] = chunk
        elif self._gradients is not None:
            self._gradients.content()[start:end] = chunk
        self.nbytes = end
