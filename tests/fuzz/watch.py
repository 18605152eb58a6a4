"""Runs a target on an input within its bounds, and tells what may not be from what may."""

import signal
import traceback
from pathlib import Path
from types import FrameType

from tests.fuzz.targets import Target

from backwire_server.rpc.errors import TABLE

MOST_SECONDS = 1.0
"""The processor time that an input may take: a second of the wall's clock says little on a busy machine."""


class TooSlow(BaseException):
    """An input took more than MOST_SECONDS."""


class Finding(AssertionError):
    """A target did what it may not; `place` is where, the same for inputs that find the same."""

    def __init__(self, error: BaseException) -> None:
        frames = traceback.extract_tb(error.__traceback__)
        own = [each for each in frames if "backwire_" in each.filename] or frames
        self.place = f"{type(error).__name__} at {Path(own[-1].filename).name}:{own[-1].lineno}"
        super().__init__(f"{self.place}: {error}")


def attempt(target: Target, data: bytes) -> None:
    """Gives an input to a target; raises Finding when that takes too long, or raises what no call may end with."""
    before = signal.signal(signal.SIGPROF, _expire)
    signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
    try:
        target(data)
    except (Exception, TooSlow) as error:
        if type(error) not in TABLE:
            raise Finding(error) from error
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _expire(_: int, __: FrameType | None) -> None:
    raise TooSlow(f"it took more than {MOST_SECONDS:g} s")
