"""The least that passing a call on can be with grpcio: bytes in, the same bytes to another server, its bytes back."""

import sys
from typing import Any

import grpc
from tests.benchmarks.plain_server import UNLIMITED, serve

SERVICE, METHOD = "backwire_api.v1.GradientService", "TrainStep"


def main() -> None:
    """Passes calls on to the server of the first argument until standard input ends."""
    passed: Any = grpc.insecure_channel(sys.argv[1], UNLIMITED).unary_unary(f"/{SERVICE}/{METHOD}")
    serve(SERVICE, METHOD, lambda message, _: passed(message))


if __name__ == "__main__":
    main()
