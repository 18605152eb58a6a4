"""A server with workers and a data directory whose every kind of metric has a value."""

import contextlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import grpc
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from tests.deploy.files import PACKAGES, PREFIX
from tests.graphs import dot_graph
from tests.waiting import until

from backwire_api import tensors
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_api.v1 import gradient_service_pb2_grpc as pb_grpc
from backwire_api.v1 import optimizer_pb2

FLAGS = [
    *("--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--exit-with-parent"),
    *("--workers", "2", "--max-disk-bytes", "1GiB"),
]
WORKERS = {"0", "1"}
TOLD = "metrics on "


@contextlib.contextmanager
def metered(directory: Path, certificates: Path | None = None) -> Iterator[str]:
    """Gives the address that the metrics of a server are at, which has done calls of all kinds; ends it afterwards.

    It is encrypted where there are certificates as docker/certificates makes them.
    """
    flags = [*FLAGS, "--data-dir", str(directory / "data")]
    if certificates is not None:
        flags += ["--tls-certificate", str(certificates / "tls.crt"), "--tls-key", str(certificates / "tls.key")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BACKWIRE_")}
    log = directory / "log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "backwire_server", *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**environment, "PYTHONPATH": PACKAGES},
        ) as process,
    ):
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith(PREFIX), log.read_text()
        use(line.removeprefix(PREFIX).strip(), certificates)
        messages = [json.loads(line)["message"] for line in log.read_text().splitlines()]
        (told,) = (message for message in messages if message.startswith(TOLD))
        yield told.removeprefix(TOLD).removesuffix("/metrics")
        process.terminate()


def use(address: str, certificates: Path | None) -> None:
    """Has a server make, train and save a session, call by call and on a Pipeline, and refuse a call."""
    optimizer = optimizer_pb2.Optimizer(learning_rate=0.5, sgd=optimizer_pb2.Sgd())
    inputs = {"x": tensors.encode(np.ones(3))}
    with _channel(address, certificates) as channel:
        stub = pb_grpc.GradientServiceStub(channel)
        request = pb.CreateSessionRequest(graph=dot_graph(), optimizer=optimizer)
        session_id = stub.CreateSession(request, timeout=60).session.session_id
        step = pb.TrainStepRequest(session_id=session_id, inputs=inputs)
        stub.TrainStep(step, timeout=60)
        (answer,) = stub.Pipeline(iter([pb.PipelineRequest(id=1, train_step=step)]), timeout=60)
        assert answer.WhichOneof("kind") == "train_step", answer
        stub.SaveCheckpoint(pb.SaveCheckpointRequest(session_id=session_id, name="first"), timeout=60)
        with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
            stub.GetSession(pb.GetSessionRequest(session_id="no-such-session"), timeout=60)


def _channel(address: str, certificates: Path | None) -> grpc.Channel:
    if certificates is None:
        return grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
    return grpc.secure_channel(address, grpc.ssl_channel_credentials((certificates / "ca.crt").read_bytes()))


def exposed(address: str) -> Mapping[str, frozenset[str]]:
    """Returns the labels that the series of each name have, of the metrics at an address."""
    found: dict[str, frozenset[str]] = {}
    for sample in until(lambda: _samples(address)):
        found[sample.name] = found.get(sample.name, frozenset()) | set(sample.labels)
    return found


def _samples(address: str) -> list[Sample]:
    """Returns all samples; none where a worker has not told its own in time, which a server leaves out then."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return samples if {sample.labels.get("worker") for sample in samples} >= WORKERS else []
