"""Which requests of a Pipeline stream may not be done since an earlier one failed."""

from collections import OrderedDict
from typing import TypeVar

from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.rpc.pipeline_requests import Work
from backwire_server.sessions.errors import DependencyFailed

REMEMBERED = 1_024  # failures of each kind; a client that leaves more behind has lost track itself

K = TypeVar("K")

_APPLIES = ("step", "train_step")
_ACCUMULATES = ("forward", "backward", "step", "zero_gradients")


class Dependencies:
    """The failures of a stream that matter for what follows: see Dependency in the contract. For one thread.

    A failure is the id of the request that failed first, also where others failed because of it.
    """

    def __init__(self) -> None:
        self._gradients: OrderedDict[str, int] = OrderedDict()
        self._passes: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._last: OrderedDict[str, int] = OrderedDict()

    def begin(self, work: Work) -> None:
        """Forgets what failed before a request that depends on nothing."""
        if work.dependency == pb.DEPENDENCY_NONE:
            self._forget(work.session_id)

    def check(self, work: Work) -> None:
        """Raises DependencyFailed when the request depends on one that failed."""
        if not (self._gradients or self._passes or self._last):
            return
        failed = 0
        if work.dependency == pb.DEPENDENCY_PREVIOUS:
            failed = self._last.get(work.session_id, 0)
        if work.kind == "backward":
            failed = failed or self._passes.get((work.session_id, work.forward_id), 0)
        elif work.kind in _APPLIES:
            failed = failed or self._gradients.get(work.session_id, 0)
        if failed:
            raise DependencyFailed(
                f"request {failed} of this stream failed, and this one depends on it; nothing was changed: see to that "
                "error, discard what was accumulated with ZeroGradients, and send both again",
                failed,
            )

    def done(self, work: Work) -> None:
        """Notes that a request did not fail."""
        self._last.pop(work.session_id, None)
        if work.kind == "forward":
            self._passes.pop((work.session_id, work.forward_id), None)
        elif work.kind == "zero_gradients":
            self._gradients.pop(work.session_id, None)

    def failed(self, work: Work, error: Exception) -> None:
        """Notes that a request failed."""
        first = error.failed_id if isinstance(error, DependencyFailed) else work.id
        _remember(self._last, work.session_id, first)
        if work.kind not in _ACCUMULATES or not work.mutates:
            return
        if work.session_id not in self._gradients:
            _remember(self._gradients, work.session_id, first)
        if work.kind == "forward" and work.forward_id:
            _remember(self._passes, (work.session_id, work.forward_id), first)

    def _forget(self, session_id: str) -> None:
        self._last.pop(session_id, None)
        self._gradients.pop(session_id, None)
        for place in [place for place in self._passes if place[0] == session_id]:
            del self._passes[place]


def _remember(failures: OrderedDict[K, int], place: K, first: int) -> None:
    failures[place] = first
    failures.move_to_end(place)
    if len(failures) > REMEMBERED:
        failures.popitem(last=False)
