"""What follows from an object is found once, and nobody waits for another object's."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

from backwire_server.engine.derived import derived


class Square:
    def __init__(self, side: int, ready: Event | None = None) -> None:
        self.side = side
        self.looks = 0
        self._ready = ready

    @derived
    def area(self) -> int:
        """The area."""
        self.looks += 1
        if self._ready is not None:
            assert self._ready.wait(30)
        return self.side**2


def test_it_is_found_once() -> None:
    square = Square(3)
    assert [square.area, square.area] == [9, 9]
    assert square.looks == 1
    assert Square.area.__doc__ == "The area."


def test_one_that_takes_long_keeps_no_other_waiting() -> None:
    ready = Event()
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(lambda: Square(4, ready).area)
        assert Square(5).area == 25
        assert not slow.done()
        ready.set()
        assert slow.result() == 16
