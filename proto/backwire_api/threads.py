"""Whether threads can be started: a channel of gRPC on which that failed has no stream answered any more.

Of Python's ways to start one, `_thread`'s takes a third of the time that `threading.Thread` would.
"""

import _thread


def check_thread() -> None:
    """Raises RuntimeError where none can be started, such as beyond a limit of processes or at the end of a program.

    To be called before a stream of answers, for which gRPC starts one. It has nothing left to do when this returns.
    """
    ended = _thread.allocate_lock()
    ended.acquire()
    _thread.start_new_thread(ended.release, ())
    ended.acquire()


def check_two_threads() -> None:
    """Raises as `check_thread` where there is no room for two: gRPC starts so many for a stream of requests."""
    gate, ended = _thread.allocate_lock(), _thread.allocate_lock()
    gate.acquire()
    ended.acquire()
    _thread.start_new_thread(_wait, (gate, ended))
    try:
        check_thread()
    finally:
        gate.release()
        ended.acquire()


def _wait(gate: _thread.LockType, ended: _thread.LockType) -> None:
    gate.acquire()
    ended.release()
