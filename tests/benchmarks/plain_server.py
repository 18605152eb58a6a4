"""A gRPC server that has one method and nothing else, for what is measured beside ours."""

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

THREADS = 8
UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.enable_retries", 0))


def serve(service: str, method: str, answer: Callable[[bytes, Any], bytes]) -> None:
    """Says where it listens, and answers bytes with bytes until standard input ends."""
    handler: Any = grpc.unary_unary_rpc_method_handler(answer)
    handlers: Any = grpc.method_handlers_generic_handler(service, {method: handler})
    server = grpc.server(ThreadPoolExecutor(THREADS), options=UNLIMITED)
    server.add_generic_rpc_handlers((handlers,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    sys.stdout.write(f"backwire listening on 127.0.0.1:{port}\n")
    sys.stdout.flush()
    sys.stdin.read()
    server.stop(0).wait()
