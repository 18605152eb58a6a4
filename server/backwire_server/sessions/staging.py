"""Sessions that compute on a device take the inputs of calls to it before the calls have their turn."""

from typing import Protocol, runtime_checkable

from backwire_server.sessions.calls import TrainCall


@runtime_checkable
class Staging(Protocol):
    """A trainer that computes elsewhere than where the inputs of calls arrive."""

    def stage(self, call: TrainCall) -> None:
        """Fills `call.staged`, while another thread may compute."""
