"""Requests on a Pipeline stream."""

from typing import Any

import numpy as np

from backwire_api import tensors
from backwire_api.v1 import gradient_service_pb2 as pb

X = {"x": tensors.encode(np.array([1.0, -2.0, 4.0]))}


def forward(session: str, forward_id: str = "", **fields: Any) -> pb.ForwardRequest:
    return pb.ForwardRequest(session_id=session, inputs=X, forward_id=forward_id, **fields)


def backward(session: str, forward_id: str, **fields: Any) -> pb.BackwardRequest:
    return pb.BackwardRequest(session_id=session, forward_id=forward_id, **fields)


def step(session: str, request_id: str = "", **options: Any) -> pb.StepRequest:
    return pb.StepRequest(session_id=session, options=pb.StepOptions(**options), request_id=request_id)


def train(session: str, **fields: Any) -> pb.TrainStepRequest:
    return pb.TrainStepRequest(session_id=session, inputs=X, **fields)


def zero(session: str) -> pb.ZeroGradientsRequest:
    return pb.ZeroGradientsRequest(session_id=session)


def kinds(answers: list[pb.PipelineResponse]) -> list[tuple[int, str | None]]:
    return [(answer.id, answer.WhichOneof("kind")) for answer in answers]
