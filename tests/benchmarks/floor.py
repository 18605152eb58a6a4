"""What a call costs before anything is computed: Forward of a trivial graph beside a bare gRPC call."""

import contextlib
import statistics
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
from tests.benchmarks import echo_server, figures
from tests.benchmarks.server_process import ServerProcess, backwire_server

import backwire as bw
from backwire_api import tensors
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_api.v1 import gradient_service_pb2_grpc as pb_grpc

MOST = 1.2  # times the bare call
MOST_ADDED_US = 40.0


def measure(*, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Returns the times of the calls, and Forward's relative to the bare call."""
    say("the floor of a call")
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(backwire_server("--workers", "1"))
        client = stack.enter_context(bw.connect(server.address))
        x = bw.input("x", (1,))
        session = client.create_session(bw.graph(outputs={"y": -x}))
        channel = stack.enter_context(grpc.insecure_channel(server.address))
        stub = pb_grpc.GradientServiceStub(channel)
        data = np.ones(1, np.float32)
        request = pb.ForwardRequest(
            session_id=session.id, inputs={"x": tensors.encode(data)}, mode=pb.MODE_EVAL, outputs=["y"]
        )
        sent, size = request.SerializeToString(), stub.Forward(request).ByteSize()
        echo = stack.enter_context(ServerProcess(str(size), module="tests.benchmarks.echo_server"))
        bare: Any = stack.enter_context(grpc.insecure_channel(echo.address)).unary_unary(echo_server.METHOD)
        calls = {
            "bare gRPC call of the same bytes": lambda: bare(sent),
            "Forward by a generated stub": lambda: stub.Forward(request),
            "Forward by the SDK": lambda: session.forward({"x": data}, "eval"),
        }
        times = figures.interleaved(calls, rounds=9 if quick else 31, burst=0.05 if quick else 0.15)
    base = times["bare gRPC call of the same bytes"]
    stub_us, sdk_us = (1e6 * statistics.median(times[f"Forward by {what}"]) for what in ("a generated stub", "the SDK"))
    rows = [figures.row(name, 1e6 * statistics.median(each), "us") for name, each in times.items()]
    rows += [
        figures.row(
            "Forward by a generated stub / bare call",
            figures.ratio(times["Forward by a generated stub"], base),
            "x",
            most=MOST,
        ),
        figures.row("Forward by the SDK / bare call", figures.ratio(times["Forward by the SDK"], base), "x", most=MOST),
        figures.row("what the SDK adds to a generated stub", sdk_us - stub_us, "us", most=MOST_ADDED_US),
    ]
    return {"title": f"a call of a trivial graph ({len(sent)} bytes there, {size} back)", "rows": rows}
