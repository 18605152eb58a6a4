"""Races of servers for a session end well in whatever order their system calls come, and wherever one is killed."""

import random

import pytest
from tests.storage.orders import LEVELS, orders, play
from tests.storage.races import RACES

from backwire_server.sessions.keeping.durable import Durability

DRAWN = 25
"""How many orders of each race are played here; `python -m tests.storage.orders` plays all."""


@pytest.mark.parametrize("durability", LEVELS)
@pytest.mark.parametrize("race", RACES)
def test_every_order_of_a_race_for_a_session_ends_well(race: str, durability: Durability) -> None:
    for order in random.Random(7).sample(list(orders(RACES[race], durability)), DRAWN):
        play(RACES[race], durability, order)
