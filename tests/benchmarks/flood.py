"""A process that calls a server more often than it can answer: `python -m tests.benchmarks.flood ADDRESS MODEL ...`.

It makes its sessions, says so in a line, waits for a line, and calls for some seconds: at a rate, whatever is answered,
or with a rate of 0 so that a few calls are always in progress. Then it tells in JSON what came of the calls.
"""

import argparse
import json
import sys
import threading
import time
from collections import Counter
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from tests.benchmarks import backwire_models, values

import backwire as bw
from backwire_api import tensors
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_api.v1 import gradient_service_pb2_grpc as pb_grpc

DEADLINE = 5.0
"""Seconds after which nobody waits for an answer any more."""

IN_PROGRESS = 8
"""How many calls are in progress at a time where there is no rate."""


class Flood:
    """Calls TrainStep on several sessions in turn, and counts what comes of it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._client = bw.connect(options.address, token=options.token)
        self._sessions = [
            self._client.create_session(backwire_models.graph(options.model), bw.Adam(values.LEARNING_RATE)).id
            for _ in range(options.sessions)
        ]
        inputs = {name: tensors.encode(array) for name, array in values.batch(options.model).items()}
        self._requests = [pb.TrainStepRequest(session_id=each, inputs=inputs) for each in self._sessions]
        self._metadata = (("authorization", f"Bearer {options.token}"),) if options.token else None
        self._stub = pb_grpc.GradientServiceStub(grpc.insecure_channel(options.address))
        for request in self._requests:
            self._stub.TrainStep(request, metadata=self._metadata)  # the first of a session takes longer
        self._counts: Counter[str] = Counter()
        self._done = threading.Condition()
        self._open = 0
        self._sent = 0

    def run(self, rate: float, seconds: float) -> dict[str, int]:
        """Calls for so many seconds, and returns how many calls ended in which way before that."""
        begin = time.perf_counter()
        while (now := time.perf_counter() - begin) < seconds:
            if rate:
                for _ in range(min(int(now * rate) - self._sent, 64)):
                    self._call()
                time.sleep(0.001)
            else:
                with self._done:
                    self._done.wait_for(lambda: self._open < IN_PROGRESS, 1.0)
                self._call()
        counts = dict(self._counts)
        self._client.close()
        return {**counts, "sent": self._sent}

    def _call(self) -> None:
        request = self._requests[self._sent % len(self._requests)]
        self._sent += 1
        with self._done:
            self._open += 1
        call: Any = self._stub.TrainStep.future(request, timeout=DEADLINE, metadata=self._metadata)
        call.add_done_callback(self._ended)

    def _ended(self, call: Any) -> None:
        with self._done:
            self._open -= 1
            self._counts[_outcome(call)] += 1
            self._done.notify()


def _outcome(call: Any) -> str:
    if call.code() is grpc.StatusCode.OK:
        return "ok"
    if call.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
        return str(call.code().name)
    status = rpc_status.from_call(call)
    details = {} if status is None else {each.type_url.rpartition(".")[2] for each in status.details}
    told = {error_details_pb2.RetryInfo.DESCRIPTOR.name, error_details_pb2.QuotaFailure.DESCRIPTOR.name}
    return "refused" if told <= set(details) else "refused without a word"


def main() -> int:
    """Runs the flood that the arguments describe."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.flood", description=(__doc__ or "").partition(":")[0]
    )
    parser.add_argument("address")
    parser.add_argument("model")
    parser.add_argument("--sessions", type=int, default=8)
    parser.add_argument("--token")
    parser.add_argument("--rate", type=float, default=0.0, help="calls in a second; 0 for a few in progress at a time")
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    flood = Flood(options)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    sys.stdout.write(json.dumps(flood.run(options.rate, options.seconds)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
