"""A gateway whose workers come, go and give sessions to each other within seconds: `python -m tests.cluster.hasty`."""

import os
import sys
import threading

from backwire_server import lifetime
from backwire_server.cluster.placing import Policy
from backwire_server.config_reading import parse

POLICY = Policy(tick=0.5, high=0.3, low=0.1, up_seconds=1.0, down_seconds=5.0, spread=0.2, rest_seconds=2.0)


def main() -> int:
    settings, stop = parse(sys.argv[1:], os.environ), threading.Event()
    lifetime.end_on_signal(stop)
    lifetime.end_with_input(stop)
    from backwire_server.cluster.serve import serve

    serve(settings, stop, _announce, POLICY)
    return 0


def _announce(address: str) -> None:
    sys.stdout.write(f"backwire listening on {address}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
