"""The least that a gRPC server can be: a generic handler that answers so many bytes, whatever it was sent."""

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

METHOD = "/benchmark.Echo/Call"
THREADS = 8


def main() -> None:
    """Serves until standard input ends."""
    answer = bytes(int(sys.argv[1]))
    handler: Any = grpc.unary_unary_rpc_method_handler(lambda *_: answer)
    handlers: Any = grpc.method_handlers_generic_handler("benchmark.Echo", {"Call": handler})
    server = grpc.server(ThreadPoolExecutor(THREADS), options=[("grpc.max_receive_message_length", -1)])
    server.add_generic_rpc_handlers((handlers,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    sys.stdout.write(f"backwire listening on 127.0.0.1:{port}\n")
    sys.stdout.flush()
    sys.stdin.read()
    server.stop(0).wait()


if __name__ == "__main__":
    main()
