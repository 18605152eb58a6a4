"""It is known before a stream whether gRPC can start its threads, and none is left behind."""

import _thread
from collections.abc import Callable
from typing import Any

import pytest
from tests.waiting import until

from backwire_api.threads import check_thread, check_two_threads


@pytest.mark.parametrize(
    ("check", "room", "fits"),
    [(check_thread, 0, False), (check_thread, 1, True), (check_two_threads, 1, False), (check_two_threads, 2, True)],
)
def test_threads_are_started_at_the_same_time_and_end(
    monkeypatch: pytest.MonkeyPatch, check: Callable[[], None], room: int, *, fits: bool
) -> None:
    start = _thread.start_new_thread
    alive: list[object] = []

    def limited(act: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        if len(alive) == room:
            raise RuntimeError("can't start new thread")
        alive.append(act)

        def run() -> None:
            act(*arguments)
            alive.remove(act)

        start(run, ())

    monkeypatch.setattr(_thread, "start_new_thread", limited)
    if fits:
        check()
    else:
        with pytest.raises(RuntimeError, match="new thread"):
            check()
    until(lambda: not alive)
