"""Damages messages."""

import random


def damaged(data: bytes, draw: random.Random) -> bytes:
    """Returns the message with some bytes changed, removed, repeated or cut off."""
    found = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        place = draw.randrange(len(found) + 1)
        match draw.randrange(4):
            case 0:
                found[place : place + 1] = bytes([draw.randrange(256)])
            case 1:
                del found[place : place + draw.randint(1, 8)]
            case 2:
                found[place:place] = found[place : place + draw.randint(1, 60)]
            case _:
                del found[place:]
    return bytes(found)
