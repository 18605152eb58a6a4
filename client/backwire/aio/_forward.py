"""Forward: what a forward pass computed, and the way back through it, which is awaited."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backwire._arrays import Array
from backwire._forward import ForwardResult
from backwire._wire._messages import Arrays

if TYPE_CHECKING:
    from backwire.aio._session import Session


@dataclass(frozen=True, slots=True, repr=False)
class Forward(ForwardResult):
    """What a forward pass computed, and in train mode the way back through it; see `backwire.Forward`.

    Attributes:
        id: The name of the pass; empty in eval mode.
        outputs: The outputs by name, as read-only arrays that share the response's memory; `.copy()` one to change it.
        loss: The loss, or None when it was not computed.
        step: The number of the step whose parameters were used.
        session: The session that it belongs to.
    """

    session: "Session"

    async def backward(
        self,
        output_gradients: Arrays | None = None,
        wrt: Sequence[str] = (),
        *,
        retain: bool = False,
        weight: float | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> dict[str, Array]:
        """Does what `backwire.Forward.backward` does."""
        return await self.session._backward(
            self, output_gradients, wrt, retain=retain, weight=weight, request_id=request_id, timeout=timeout
        )
