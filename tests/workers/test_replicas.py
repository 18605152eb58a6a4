"""A replica with several workers names itself in ids, and knows another's sessions whichever worker would have them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

import backwire as bw
from backwire_api.v1 import gradient_service_pb2 as pb

SECONDS = 30.0

ELSEWHERE = ("d_000another~a", "d_001another~a.tenant", "s_12345678another~a")
"""Durable sessions with slots of either worker, and one that is not durable."""


def reason_of(error: Any) -> tuple[grpc.StatusCode, str]:
    status, info = rpc_status.from_call(error), error_details_pb2.ErrorInfo()
    assert status is not None, error
    return error.code(), next(info.reason for detail in status.details if detail.Unpack(info))


def test_ids_tell_the_replica_and_those_of_another_are_refused_in_calls_and_streams(
    start: Callable[..., Any], tmp_path: Path
) -> None:
    server = start("--replica", "backwire-1", "--data-dir", str(tmp_path))
    loss = bw.squared_error(bw.parameter("w", 0.0), 1.0)
    with bw.connect(server.address, timeout=SECONDS) as client:
        for durability in ("memory", "journal"):
            session = client.create_session(loss, bw.SGD(0.1), durability=durability)
            assert session.id.endswith("~backwire-1")
            assert client.session(session.id).train_step({}).step == 1
    for session_id in ELSEWHERE:
        request = pb.GetSessionRequest(session_id=session_id)
        with pytest.raises(grpc.RpcError) as caught:
            server.stub.GetSession(request, timeout=SECONDS)
        assert reason_of(caught.value) == (grpc.StatusCode.UNAVAILABLE, "WRONG_REPLICA")
        stream = server.stub.Pipeline(iter([pb.PipelineRequest(id=1, get_session=request)]), timeout=SECONDS)
        with pytest.raises(grpc.RpcError) as caught:
            next(stream)
        assert reason_of(caught.value) == (grpc.StatusCode.UNAVAILABLE, "WRONG_REPLICA")
