"""The least that passing a call on can be with grpcio: bytes in, the same bytes to another server, its bytes back."""

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

SERVICE, METHOD = "backwire_api.v1.GradientService", "TrainStep"
THREADS = 8
UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.enable_retries", 0))


def main() -> None:
    """Passes calls on to the server of the first argument until standard input ends."""
    passed: Any = grpc.insecure_channel(sys.argv[1], UNLIMITED).unary_unary(f"/{SERVICE}/{METHOD}")
    handler: Any = grpc.unary_unary_rpc_method_handler(lambda message, _: passed(message))
    handlers: Any = grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler})
    server = grpc.server(ThreadPoolExecutor(THREADS), options=UNLIMITED)
    server.add_generic_rpc_handlers((handlers,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    sys.stdout.write(f"backwire listening on 127.0.0.1:{port}\n")
    sys.stdout.flush()
    sys.stdin.read()
    server.stop(0).wait()


if __name__ == "__main__":
    main()
