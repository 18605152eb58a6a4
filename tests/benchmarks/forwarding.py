"""What a call costs that comes to a replica which does not have the session, and is forwarded.

Beside it are a direct call, and one through a relay that does nothing else than to pass it on by the same library.
"""

import statistics
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import grpc
from tests.benchmarks import figures, values
from tests.benchmarks.contender_remote import new_session
from tests.benchmarks.durable_server import data_directory
from tests.benchmarks.server_process import ServerProcess, backwire_server, cpu_seconds

import backwire as bw
from backwire_api import tensors
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_api.v1 import gradient_service_pb2_grpc as pb_grpc

MODELS = ("S", "M")
MOST_ADDED_MS = 0.5
RELAYED = "through a relay of grpcio"


def measure(*, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Returns the times of both, by a client that does not follow, and what forwarding adds."""
    rows = []
    with ExitStack() as stack:
        directory = stack.enter_context(data_directory())
        owner, other = (
            stack.enter_context(
                backwire_server("--workers", "1", "--shared", "--replica", name, "--data-dir", str(directory))
            )
            for name in "ab"
        )
        relay = stack.enter_context(ServerProcess(owner.address, module="tests.benchmarks.relay_server"))
        client = stack.enter_context(bw.connect(owner.address))
        stubs = {
            name: pb_grpc.GradientServiceStub(stack.enter_context(grpc.insecure_channel(server.address)))
            for name, server in (("direct", owner), ("forwarded", other), (RELAYED, relay))
        }
        for model in MODELS:
            say(f"forwarded steps of {model}")
            request = _request(client, model)
            rows += _times(stubs, request, model, rounds=9 if quick else 31, burst=0.1 if quick else 0.3)
            for name, process in (("forwarded", other), (RELAYED, relay)):
                spent = _processor_seconds(stubs[name], request, process.pid, calls=200 if quick else 1_000)
                rows.append(figures.row(f"{model}, {name}, processor time of who passes it on", 1e3 * spent, "ms"))
    return {"title": "a TrainStep through a replica that does not have the session", "rows": rows}


def _request(client: bw.Client, model: str) -> pb.TrainStepRequest:
    inputs = {name: tensors.encode(array) for name, array in values.batch(model).items()}
    return pb.TrainStepRequest(session_id=new_session(client, model).id, inputs=inputs)


def _times(
    stubs: dict[str, Any], request: pb.TrainStepRequest, model: str, *, rounds: int, burst: float
) -> list[figures.Row]:
    calls = {name: lambda stub=stub: stub.TrainStep(request) for name, stub in stubs.items()}
    times = figures.interleaved(calls, rounds=rounds, burst=burst)
    forwarding, relaying = (_added(times, name) for name in ("forwarded", RELAYED))
    return [
        *(figures.row(f"{model}, {name}", 1e3 * statistics.median(each), "ms") for name, each in times.items()),
        figures.row(f"{model}, forwarded / direct", figures.ratio(times["forwarded"], times["direct"]), "x"),
        figures.row(f"{model}, what forwarding adds", 1e3 * forwarding, "ms", most=MOST_ADDED_MS),
        figures.row(f"{model}, what a relay of grpcio adds", 1e3 * relaying, "ms"),
    ]


def _added(times: dict[str, list[float]], name: str) -> float:
    return statistics.median(b - a for a, b in zip(times["direct"], times[name], strict=True))


def _processor_seconds(stub: Any, request: pb.TrainStepRequest, pid: int, *, calls: int) -> float:
    """Returns what a call takes of the processors in a process, which tells more than its time on a busy machine."""
    before = cpu_seconds(pid)
    for _ in range(calls):
        stub.TrainStep(request)
    return (cpu_seconds(pid) - before) / calls
