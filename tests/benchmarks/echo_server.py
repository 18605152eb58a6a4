"""The least that a gRPC server can be: a generic handler that answers so many bytes, whatever it was sent."""

import sys

from tests.benchmarks.plain_server import serve

METHOD = "/benchmark.Echo/Call"


def main() -> None:
    """Serves until standard input ends."""
    answer = bytes(int(sys.argv[1]))
    _, service, method = METHOD.split("/")
    serve(service, method, lambda *_: answer)


if __name__ == "__main__":
    main()
