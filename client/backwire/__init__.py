"""Trains computation graphs on a Backwire server: build a graph, connect, then forward, backward, step.

import backwire as bw

x = bw.input("x", ("batch", 64))
y = bw.input("y", ("batch",), dtype="int64")
hidden = bw.relu(bw.dense(x, 128, name="hidden"))
loss = bw.softmax_cross_entropy(bw.dense(hidden, 10, name="logits"), y)

with bw.connect("embedded") as client:
    session = client.create_session(loss, optimizer=bw.Adam(1e-3))
    for batch in batches:
        forward = session.forward({"x": batch.x, "y": batch.y})
        forward.backward()
        session.step()
"""

from backwire import aio as aio
from backwire._allocator import tune_allocator
from backwire._builder import _public as _building
from backwire._builder._graph import Graph, graph
from backwire._builder._public import *  # noqa: F403 - the names in its __all__, which are added to ours below
from backwire._builder._value import Value
from backwire._client import Client
from backwire._connect import connect
from backwire._errors import (
    BackwireError,
    DTypeError,
    GraphError,
    InvalidExportError,
    InvalidRequestError,
    MissingInputError,
    OptimizerError,
    RequestIdReusedError,
    ShapeError,
    TensorError,
    UnknownNameError,
)
from backwire._errors_service import (
    AuthenticationError,
    CancelledError,
    ClientClosedError,
    DeadlineExceededError,
    DiskQuotaExceededError,
    MissingExtraError,
    OverloadedError,
    PermissionDeniedError,
    RecoveringError,
    ResourceExhaustedError,
    ServerError,
    ServerStartError,
    SessionQuarantinedError,
    StorageFailedError,
    TooLargeError,
    UnavailableError,
    UnsupportedCallError,
)
from backwire._errors_session import (
    AbortedError,
    AlreadyExistsError,
    CheckpointNotFoundError,
    DependencyFailedError,
    ExecutorUnavailableError,
    FailedPreconditionError,
    LeaseHeldError,
    NoGradientsError,
    NoLossError,
    NonFiniteGradientError,
    NoOptimizerError,
    NotDurableError,
    NotFoundError,
    PassExpiredError,
    PassNotFoundError,
    ResultNotRetainedError,
    SessionLostError,
    SessionNotFoundError,
    StalePassError,
    StepMismatchError,
    WriterFencedError,
)
from backwire._forward import Forward
from backwire._info import (
    CheckpointInfo,
    InputInfo,
    LeaseInfo,
    ParameterInfo,
    SessionInfo,
    SessionLimits,
    StepResult,
    TrainStepResult,
)
from backwire._inspection import (
    GradientCheck,
    GraphDescription,
    NodeCost,
    OpAttribute,
    OpInfo,
    OpInput,
    ParameterCheck,
    ValueInfo,
    WireBytes,
)
from backwire._lease import Lease
from backwire._pipeline import ForwardFuture, Pipeline
from backwire._session import Session
from backwire._session_description import SessionDescription
from backwire._status import ServerLoad, ServerStatus, SessionHistory, SessionStatus, StepRecord, Usage
from backwire._training import _public as _looping
from backwire._training._public import *  # noqa: F403 - likewise
from backwire._version import __version__
from backwire._wire._channel import TLS
from backwire._wire._pipeline_stream import PipelineFuture
from backwire._wire._retry import Retry
from backwire._wire._timeout import Timeout
from backwire_api.reasons import Reason

__all__ = [
    "TLS",
    "AbortedError",
    "AlreadyExistsError",
    "AuthenticationError",
    "BackwireError",
    "CancelledError",
    "CheckpointInfo",
    "CheckpointNotFoundError",
    "Client",
    "ClientClosedError",
    "DTypeError",
    "DeadlineExceededError",
    "DependencyFailedError",
    "DiskQuotaExceededError",
    "ExecutorUnavailableError",
    "FailedPreconditionError",
    "Forward",
    "ForwardFuture",
    "GradientCheck",
    "Graph",
    "GraphDescription",
    "GraphError",
    "InputInfo",
    "InvalidExportError",
    "InvalidRequestError",
    "Lease",
    "LeaseHeldError",
    "LeaseInfo",
    "MissingExtraError",
    "MissingInputError",
    "NoGradientsError",
    "NoLossError",
    "NoOptimizerError",
    "NodeCost",
    "NonFiniteGradientError",
    "NotDurableError",
    "NotFoundError",
    "OpAttribute",
    "OpInfo",
    "OpInput",
    "OptimizerError",
    "OverloadedError",
    "ParameterCheck",
    "ParameterInfo",
    "PassExpiredError",
    "PassNotFoundError",
    "PermissionDeniedError",
    "Pipeline",
    "PipelineFuture",
    "Reason",
    "RecoveringError",
    "RequestIdReusedError",
    "ResourceExhaustedError",
    "ResultNotRetainedError",
    "Retry",
    "ServerError",
    "ServerLoad",
    "ServerStartError",
    "ServerStatus",
    "Session",
    "SessionDescription",
    "SessionHistory",
    "SessionInfo",
    "SessionLimits",
    "SessionLostError",
    "SessionNotFoundError",
    "SessionQuarantinedError",
    "SessionStatus",
    "ShapeError",
    "StalePassError",
    "StepMismatchError",
    "StepRecord",
    "StepResult",
    "StorageFailedError",
    "TensorError",
    "Timeout",
    "TooLargeError",
    "TrainStepResult",
    "UnavailableError",
    "UnknownNameError",
    "UnsupportedCallError",
    "Usage",
    "Value",
    "ValueInfo",
    "WireBytes",
    "WriterFencedError",
    "__version__",
    "connect",
    "graph",
    "tune_allocator",
]
__all__ += _building.__all__
__all__ += _looping.__all__
