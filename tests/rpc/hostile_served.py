"""A server in a process of its own that hostile clients connect to, and what it is like afterwards."""

from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.e2e.conftest import ServerProcess
from tests.graphs import dot_graph
from tests.rpc.conftest import SGD, TIMEOUT

from backwire_api import tensors
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_api.v1 import gradient_service_pb2_grpc as pb_grpc

FLAGS = (
    "--max-message-bytes=8MiB",
    "--max-connections=60",
    "--keepalive=3s",  # which those have, too, who call it beside an attack: longer than one waits for a processor
    "--patience=0.2s",
    "--max-concurrent-calls=8",
    "--max-concurrent-streams=4",
    "--max-concurrent-pipelines=4",
)


class Served:
    """A server with a session that no attack may change, another that is trained meanwhile, and a client of both."""

    def __init__(self, workers: int) -> None:
        self.process = ServerProcess("--listen", "127.0.0.1:0", f"--workers={workers}", *FLAGS)
        self.address = self.process.wait_until_ready()
        self.channel = grpc.insecure_channel(self.address, [("grpc.use_local_subchannel_pool", 1)])
        self.stub = pb_grpc.GradientServiceStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)
        request = pb.CreateSessionRequest(graph=dot_graph(), optimizer=SGD)
        made = [self.stub.CreateSession(request, timeout=TIMEOUT) for _ in range(2)]
        self.session, self.trained = (each.session.session_id for each in made)
        self.train()
        self.digest = self.look()
        self.before = self.resident()

    def look(self) -> str:
        request = pb.GetSessionRequest(session_id=self.session, digest=True)
        return self.stub.GetSession(request, timeout=TIMEOUT).digest

    def train(self) -> None:
        inputs = {"x": tensors.encode([1.0, -2.0, 4.0])}
        self.stub.TrainStep(pb.TrainStepRequest(session_id=self.trained, inputs=inputs), timeout=TIMEOUT)

    def download(self) -> None:
        request = pb.GetParametersRequest(session_id=self.session)
        assert len(list(self.stub.GetParameters(request, timeout=TIMEOUT))) == 2

    def converse(self) -> None:
        request = pb.PipelineRequest(id=1, get_session=pb.GetSessionRequest(session_id=self.session))
        [answer] = self.stub.Pipeline(iter([request]), timeout=TIMEOUT)
        assert answer.WhichOneof("kind") == "get_session"

    def serves(self) -> None:
        """Sees that health and lookups are answered."""
        self.health.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)
        assert self.look() == self.digest

    def resident(self) -> int:
        """Returns the resident memory of the largest of its processes."""
        first = self.process.process.pid
        children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in (first, *children)]
        return max(pages) * 4096

    def end(self) -> None:
        self.channel.close()
        self.process.signal()
        status = self.process.wait()
        self.process.end()
        assert status == 0
        assert [line for line in self.process.errors if "Traceback" in line or '"level": "error"' in line] == []
