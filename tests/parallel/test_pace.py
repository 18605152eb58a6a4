"""Parts are sent to other nodes where that is sooner than computing them here, and never the last one."""

from backwire_server.parallel.pace import LEAST_SECONDS, Pace


def paced(here: float, there: float = 0.0) -> Pace:
    pace = Pace()
    for _ in range(2):
        pace.computed(here)
    if there:
        pace.answered(there)
    return pace


def test_what_is_not_known_or_short_is_not_worth_sending() -> None:
    pace = Pace()
    assert not pace.is_long
    pace.computed(100 * LEAST_SECONDS)
    assert not pace.is_long, "the first part takes longer than others"
    pace.computed(LEAST_SECONDS / 2)
    assert not pace.is_long
    assert paced(2 * LEAST_SECONDS).is_long


def test_the_last_part_that_waits_is_not_sent() -> None:
    pace = paced(1.0, 0.001)
    assert pace.pays(2, 1)
    assert not pace.pays(1, 1)


def test_a_node_that_takes_longer_than_all_that_waits_here_is_not_asked() -> None:
    assert paced(1.0, 1.9).pays(2, 1)
    assert not paced(1.0, 2.1).pays(2, 1)
    assert not paced(1.0, 1.9).pays(2, 2)
    assert paced(1.0).pays(2, 2), "as long as it is not known, it is taken for as fast as this one"


def test_a_node_that_was_slow_is_asked_again_in_time() -> None:
    pace = paced(1.0, 4.0)
    tries = next(number for number in range(1_000) if pace.pays(2, 1))
    assert tries > 10


def test_patience_grows_with_what_parts_take() -> None:
    assert paced(1.0).patience < paced(3.0).patience < paced(1.0, 4.0).patience
