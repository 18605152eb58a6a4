"""A server that sends other replicas parts of batches however short they are: `python -m tests.cluster.eager`.

By their times, which a busy machine draws, a server may find for minutes that they are not worth it.
"""

import sys

from backwire_server.__main__ import main
from backwire_server.parallel import pace

PATIENCE_SECONDS = 0.5
"""What another replica has for a part on a busy machine, too."""


def _pays(self: pace.Pace, waiting: int, hands: int) -> bool:  # noqa: ARG001
    return waiting > 1


if __name__ == "__main__":
    pace.LEAST_SECONDS = 0.0
    pace.PATIENCE_SECONDS = PATIENCE_SECONDS
    pace.Pace.pays = _pays  # type: ignore[method-assign]
    sys.exit(main())
