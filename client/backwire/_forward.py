"""Forward: what a forward pass computed, and the way back through it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backwire._arrays import Array
from backwire._wire._messages import Arrays
from backwire._wire._pipeline_messages import Answer

if TYPE_CHECKING:
    from backwire._session import Session


@dataclass(frozen=True, slots=True, repr=False)
class ForwardResult:
    """What a forward pass computed.

    Attributes:
        id: The name of the pass; empty in eval mode.
        outputs: The outputs by name, as read-only arrays that share the response's memory; `.copy()` one to change it.
        loss: The loss, or None when it was not computed.
        step: The number of the step whose parameters were used.
    """

    id: str
    outputs: dict[str, Array]
    loss: float | None
    step: int

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name}{list(value.shape)}" for name, value in self.outputs.items())
        return f"<Forward {self.id or '(eval)'} of step {self.step}: loss {self.loss}, outputs {shapes or 'none'}>"


@dataclass(frozen=True, slots=True, repr=False)
class Forward(ForwardResult):
    """What a forward pass computed, and in train mode the way back through it.

    Attributes:
        id: The name of the pass; empty in eval mode.
        outputs: The outputs by name, as read-only arrays that share the response's memory; `.copy()` one to change it.
        loss: The loss, or None when it was not computed.
        step: The number of the step whose parameters were used.
        session: The session that it belongs to.
    """

    session: "Session"

    def backward(
        self,
        output_gradients: Arrays | None = None,
        wrt: Sequence[str] = (),
        *,
        retain: bool = False,
        weight: float | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> dict[str, Array]:
        """Adds the gradients of the parameters to the session's, and returns those of the inputs in `wrt`.

        Args:
            output_gradients: The gradient of whatever is minimised with respect to outputs, by output name; None for
                that of the graph's loss, which is 1. Only the outputs named take part; the loss goes by `"loss"`.
            wrt: The names of inputs whose gradients to return, as read-only arrays.
            retain: True keeps the pass for another backward.
            weight: What this contribution counts, above 0; with the number of examples here and `normalize="mean"` in
                `step`, micro-batches of mean losses add up to the gradient of the whole batch.
            request_id: See `Session`.
            timeout: See `Session`.

        Raises:
            PassExpiredError: An earlier backward used the pass up, or it was dropped for its age or for newer ones.
            PassNotFoundError: The pass is so long gone that the server forgot it.

        Example:
            >>> x = bw.input("x", (2,))
            >>> session = client.create_session(bw.graph(outputs={"y": x * x}))
            >>> forward = session.forward({"x": [1, 2]})
            >>> forward.backward({"y": [10, 100]}, wrt=["x"])["x"].tolist()
            [20.0, 400.0]
        """
        return self.session._backward(
            self, output_gradients, wrt, retain=retain, weight=weight, request_id=request_id, timeout=timeout
        )


def forward_fields(answer: Answer) -> dict[str, Any]:
    """Returns the fields of a ForwardResult by name."""
    message = answer.message
    loss = message.loss if message.HasField("loss") else None
    return {"id": message.forward_id, "outputs": answer.arrays, "loss": loss, "step": message.step}
