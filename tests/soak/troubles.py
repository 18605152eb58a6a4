"""First attempts of training that go wrong on the client's side, after which nobody knows whether they were applied."""

import contextlib
import threading
import time

from tests.faults.tasks import Array
from tests.soak.board import ABANDONED, CANCELLED, DROPPED, HOPELESS
from tests.soak.plan import Deed

import backwire as bw
from backwire._wire import _messages

Inputs = dict[str, Array]

ONCE = bw.Retry(attempts=1)
SHORTEST_SECONDS = 1e-4
PLAIN = _messages.step_options(
    learning_rate=None, expected_step=None, non_finite="reject", normalize="sum", digest=False
)


def attempt(address: str, session: bw.Session, deed: Deed, inputs: list[Inputs], request_ids: list[str]) -> None:
    """Sends what a deed is, and sees to it that its trouble comes; raises BackwireError for what the client is told."""
    if deed.trouble == CANCELLED:
        _cancelled(session, deed.after, inputs[0], request_ids[0])
    elif deed.trouble == HOPELESS:
        _hopeless(session, deed.after, inputs[0], request_ids[0])
    elif deed.trouble == DROPPED:
        _dropped(address, session, deed.after, inputs[0], request_ids[0])
    elif deed.trouble == ABANDONED:
        _abandoned(address, session, deed.after, inputs, request_ids)


def _cancelled(session: bw.Session, after: float, inputs: Inputs, request_id: str) -> None:
    request = _messages.train_step(
        session._created,
        inputs,
        options=PLAIN,
        outputs=(),
        weight=None,
        data_parallel=None,
        request_id=request_id,
        lease=0,
    )
    call = session._transport.stub.TrainStep.future(request, timeout=60)
    time.sleep(after)
    call.cancel()


def _hopeless(session: bw.Session, after: float, inputs: Inputs, request_id: str) -> None:
    session.train_step(inputs, request_id=request_id, timeout=max(after, SHORTEST_SECONDS))


def _dropped(address: str, session: bw.Session, after: float, inputs: Inputs, request_id: str) -> None:
    """Closes the connection under a call; another thread waits for its answer."""
    with bw.connect(address, retry=ONCE) as client:
        same = client.session(session.id)

        def train() -> None:
            with contextlib.suppress(bw.BackwireError):
                same.train_step(inputs, request_id=request_id)

        waiting = threading.Thread(target=train)
        waiting.start()
        time.sleep(after)
    waiting.join()


def _abandoned(address: str, session: bw.Session, after: float, inputs: list[Inputs], request_ids: list[str]) -> None:
    """Opens a pipeline over a connection of its own, fills it, and closes the connection amid the answers."""
    with bw.connect(address, retry=ONCE) as client:
        pipe = client.session(session.id).pipeline()
        for each, request_id in zip(inputs, request_ids, strict=True):
            pipe.train_step(each, request_id=request_id)
        time.sleep(after)
    with contextlib.suppress(bw.BackwireError):
        pipe.close()
