"""Ports for what is started later, or again and again."""

import random
import socket
from pathlib import Path

LOWEST, HIGHEST = 10_000, 32_768
"""Where ports are looked for: the system gives none of them to somebody else who asks for any, as it does above."""

_DRAW = random.SystemRandom()


def unused_port(count: int = 1) -> int:
    """Returns the first of so many ports of the loopback where nothing listens."""
    given = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    highest = min(HIGHEST, given) if given > 2 * LOWEST else HIGHEST
    while True:
        first = _DRAW.randrange(LOWEST, highest - count)
        if all(map(_is_unused, range(first, first + count))):
            return first


def _is_unused(port: int) -> bool:
    with socket.socket() as sock:
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
