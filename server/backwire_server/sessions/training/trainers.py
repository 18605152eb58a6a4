"""Makes the trainer of a session, of the kind that its executor has."""

from backwire_server.engine.stopping import NEVER, Stop
from backwire_server.sessions.budget import Account
from backwire_server.sessions.executors import Executor
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.spec import SessionSpec
from backwire_server.sessions.training.models import model_of
from backwire_server.sessions.training.parameters import ParameterStore
from backwire_server.sessions.training.trainer import Trainer
from backwire_server.sessions.training.versions import MemoryVersion


def make_trainer(
    spec: SessionSpec,
    limits: Limits,
    account: Account,
    parameters: ParameterStore | None = None,
    memory: MemoryVersion | None = None,
    stop: Stop = NEVER,
) -> Trainer:
    """Returns the trainer of a session; see Trainer. `stop` ends the check of its graph."""
    model = model_of(spec.graph, stop, spec.executor)
    if spec.executor is Executor.NUMPY:
        return Trainer(spec, model, limits, account, parameters, memory)
    from backwire_server.sessions.training.cohort_trainer import CohortTrainer  # they take an extra
    from backwire_server.sessions.training.device_trainer import DeviceTrainer

    kind = CohortTrainer if spec.grouped else DeviceTrainer
    return kind(spec, model, limits, account, parameters, memory)
