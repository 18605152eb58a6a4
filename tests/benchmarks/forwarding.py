"""What a call costs that comes to a replica which does not have the session, and is forwarded.

Beside it are a direct call, and one through a relay that does nothing else than to pass it on by the same library.
"""

import statistics
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
from tests.access.conftest import Authority, Pair
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
    """Returns the times of calls by a client that does not follow, and what forwarding adds, encrypted too."""
    rounds, burst = (9, 0.1) if quick else (31, 0.3)
    rows = [*_in_the_clear(quick=quick, say=say, rounds=rounds, burst=burst), *_encrypted(say, rounds, burst)]
    return {"title": "a TrainStep through a replica that does not have the session", "rows": rows}


def _in_the_clear(*, quick: bool, say: Callable[[str], None], rounds: int, burst: float) -> list[figures.Row]:
    rows = []
    with ExitStack() as stack:
        owner, other = _replicas(stack)
        relay = stack.enter_context(ServerProcess(owner.address, module="tests.benchmarks.relay_server"))
        client = stack.enter_context(bw.connect(owner.address))
        stubs = {
            name: pb_grpc.GradientServiceStub(stack.enter_context(grpc.insecure_channel(server.address)))
            for name, server in (("direct", owner), ("forwarded", other), (RELAYED, relay))
        }
        for model in MODELS:
            say(f"forwarded steps of {model}")
            request = _request(client, model)
            rows += _times(stubs, request, model, rounds=rounds, burst=burst)
            for name, process in (("forwarded", other), (RELAYED, relay)):
                spent = _processor_seconds(stubs[name], request, process.pid, calls=200 if quick else 1_000)
                rows.append(figures.row(f"{model}, {name}, processor time of who passes it on", 1e3 * spent, "ms"))
    return rows


def _encrypted(say: Callable[[str], None], rounds: int, burst: float) -> list[figures.Row]:
    """Returns what forwarding adds where servers and clients show certificates, with lanes and without."""
    authority = Authority("benchmark")
    pair = authority.issue("replicas", host="localhost")
    tls = bw.TLS(root_certificates=authority.certificate, private_key=pair.key, certificate_chain=pair.certificate)
    credentials = grpc.ssl_channel_credentials(authority.certificate, pair.key, pair.certificate)
    rows = []
    with ExitStack() as stack:
        flags = _certified(Path(stack.enter_context(TemporaryDirectory())), authority, pair)
        for kind in ((), ("--no-lanes",)):
            owner, other = _replicas(stack, *flags, *kind)
            client = stack.enter_context(bw.connect(owner.address, tls=tls))
            stubs = {
                name: pb_grpc.GradientServiceStub(stack.enter_context(grpc.secure_channel(server.address, credentials)))
                for name, server in (("direct", owner), ("forwarded", other))
            }
            for model in MODELS:
                say(f"forwarded steps of {model}, encrypted{' without lanes' if kind else ''}")
                times = _interleaved(stubs, _request(client, model), rounds=rounds, burst=burst)
                name = f"{model}, encrypted, what forwarding adds{' without lanes' if kind else ''}"
                rows.append(figures.row(name, 1e3 * _added(times, "forwarded"), "ms"))
    return rows


def _replicas(stack: ExitStack, *flags: str) -> tuple[ServerProcess, ServerProcess]:
    """Starts two servers that share a directory."""
    directory = stack.enter_context(data_directory())
    shared = ("--workers", "1", "--shared", "--data-dir", str(directory), *flags)
    first, second = (stack.enter_context(backwire_server(*shared, "--replica", name)) for name in "ab")
    return first, second


def _certified(directory: Path, authority: Authority, pair: Pair) -> tuple[str, ...]:
    """Writes certificates; returns the flags of servers that show theirs and ask for those of others."""
    certificate, key, ca = (directory / name for name in ("tls.crt", "tls.key", "ca.crt"))
    for path, content in ((certificate, pair.certificate), (key, pair.key), (ca, authority.certificate)):
        path.write_bytes(content)
    shown = ("--tls-certificate", str(certificate), "--tls-key", str(key))
    return ("--listen", "localhost:0", *shown, "--client-ca", str(ca), "--peer-ca", str(ca))


def _request(client: bw.Client, model: str) -> pb.TrainStepRequest:
    inputs = {name: tensors.encode(array) for name, array in values.batch(model).items()}
    return pb.TrainStepRequest(session_id=new_session(client, model).id, inputs=inputs)


def _times(
    stubs: dict[str, Any], request: pb.TrainStepRequest, model: str, *, rounds: int, burst: float
) -> list[figures.Row]:
    times = _interleaved(stubs, request, rounds=rounds, burst=burst)
    forwarding, relaying = (_added(times, name) for name in ("forwarded", RELAYED))
    return [
        *(figures.row(f"{model}, {name}", 1e3 * statistics.median(each), "ms") for name, each in times.items()),
        figures.row(f"{model}, forwarded / direct", figures.ratio(times["forwarded"], times["direct"]), "x"),
        figures.row(f"{model}, what forwarding adds", 1e3 * forwarding, "ms", most=MOST_ADDED_MS),
        figures.row(f"{model}, what a relay of grpcio adds", 1e3 * relaying, "ms"),
    ]


def _interleaved(
    stubs: dict[str, Any], request: pb.TrainStepRequest, *, rounds: int, burst: float
) -> dict[str, list[float]]:
    calls = {name: lambda stub=stub: stub.TrainStep(request) for name, stub in stubs.items()}
    return figures.interleaved(calls, rounds=rounds, burst=burst)


def _added(times: dict[str, list[float]], name: str) -> float:
    return statistics.median(b - a for a, b in zip(times["direct"], times[name], strict=True))


def _processor_seconds(stub: Any, request: pb.TrainStepRequest, pid: int, *, calls: int) -> float:
    """Returns what a call takes of the processors in a process, which tells more than its time on a busy machine."""
    before = cpu_seconds(pid)
    for _ in range(calls):
        stub.TrainStep(request)
    return (cpu_seconds(pid) - before) / calls
