"""SessionContents: the parameters and gradients of a session, whether they are right, and what a pass takes."""

from collections.abc import Mapping, Sequence

from backwire._arrays import Array
from backwire._inspection import GradientCheck
from backwire._session_base import SessionBase
from backwire._session_description import SessionDescription
from backwire._wire import _calls
from backwire._wire._messages import Arrays


class SessionContents(SessionBase):
    """What a session holds, to be read, replaced and checked; see `Session`."""

    def parameters(
        self, names: Sequence[str] | None = None, *, averaged: bool = False, timeout: float | None = None
    ) -> dict[str, Array]:
        """Returns parameters by name, all of one and the same step, as writable copies.

        Args:
            names: The parameters to return, in this order; None for all, in the graph's order.
            averaged: True returns the exponential moving average of each trainable parameter in place of its value.
                Before the first step that is its value; frozen parameters always have theirs.
            timeout: See `Session`.

        Raises:
            InvalidRequestError: `averaged`, but the session's optimizer has no `average_decay`.

        Example:
            >>> w = bw.parameter("w", 8.0)
            >>> session = client.create_session(w * 2, optimizer=bw.SGD(1.0, average_decay=0.75))
            >>> for _ in range(2):
            ...     _ = session.train_step({})
            >>> float(session.parameters()["w"]), float(session.parameters(averaged=True)["w"])
            (4.0, 5.5)
        """
        return self._transport.receive(_calls.parameters(self, names, averaged=averaged), timeout)

    def gradients(self, names: Sequence[str] | None = None, *, timeout: float | None = None) -> dict[str, Array]:
        """Returns the gradients accumulated since the last step by parameter name, as writable copies.

        Zeros where nothing was accumulated; frozen parameters have none.
        """
        return self._transport.receive(_calls.gradients(self, names), timeout)

    def check_gradients(
        self,
        inputs: Arrays,
        *,
        parameters: Sequence[str] | None = None,
        max_elements: int = 64,
        seed: int = 0,
        timeout: float | None = None,
    ) -> GradientCheck:
        """Compares the gradient of the loss with finite differences, at the parameters as they are; changes nothing.

        The loss is computed twice for each element that is checked, while other calls on the session wait. What would
        take far longer than `timeout` is refused with TooLargeError as soon as that is clear.

        Args:
            inputs: As in `forward`.
            parameters: The trainable parameters to check; None for all.
            max_elements: The most elements to check of each, drawn from `seed` where there are more.
            seed: What elements are drawn from.
            timeout: See `Session`.

        Example:
            >>> w = bw.parameter("w", [1.0, 2.0])
            >>> session = client.create_session(bw.sum(bw.exp(w)))
            >>> session.check_gradients({}).worst_error < 1e-6
            True
        """
        call = _calls.check_gradients(self, inputs, parameters, max_elements, seed)
        return self._transport.send(call, timeout)

    def describe(
        self,
        inputs: Arrays | None = None,
        *,
        shapes: Mapping[str, Sequence[int]] | None = None,
        passes: int = 0,
        timeout: float | None = None,
    ) -> SessionDescription:
        """Asks for the graph of the session and what a pass takes, by shapes and by the clock; changes nothing.

        Args:
            inputs: As in `forward`: what passes are measured on.
            shapes: The shapes of inputs, in place of `inputs` where nothing is measured.
            passes: How many passes to measure, with their gradients, up to 1,000; other calls on the session wait.
            timeout: See `Session`.

        Example:
            >>> x = bw.input("x", ("batch", 8))
            >>> session = client.create_session(bw.mean(bw.dense(x, 4, name="top")))
            >>> found = session.describe({"x": [[1.0] * 8] * 2}, passes=3)
            >>> [(node.op, found.description.nodes[node.outputs[0]].forward_flops) for node in found.graph.proto.nodes]
            [('Gemm', 136), ('ReduceMean', 1)]
            >>> found.forward_seconds > 0
            True
        """
        return self._transport.send(_calls.describe(self, inputs, shapes, passes), timeout)

    def set_parameters(self, values: Arrays, *, request_id: str | None = None, timeout: float | None = None) -> None:
        """Replaces some or all parameters, frozen ones too, all or nothing; arrays are converted as inputs are.

        Optimizer state, moving averages, step number and accumulated gradients stay.
        """
        self._transport.put(_calls.set_parameters(self, values, request_id), timeout)

    def zero_gradients(self, *, request_id: str | None = None, timeout: float | None = None) -> int:
        """Discards the accumulated gradients and returns how many contributions they were."""
        return self._transport.send(_calls.zero_gradients(self, request_id), timeout)
