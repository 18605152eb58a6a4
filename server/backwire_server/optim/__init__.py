"""Optimizers over flat vectors: plain data in, plain data out; knows NumPy only.

An `Optimizer` says how to step. `init` makes its state, `apply` steps. Vectors are laid out by a `FlatLayout`.
"""

from backwire_server.optim.adam import Adam, AdamW
from backwire_server.optim.adam_variants import Adamax, NAdam, RAdam
from backwire_server.optim.adaptive import Adadelta, Adagrad, RMSprop
from backwire_server.optim.annealing import (
    CosineRestartsSchedule,
    CosineSchedule,
    LinearSchedule,
    OneCycleSchedule,
    PolynomialSchedule,
)
from backwire_server.optim.errors import OptimizerError
from backwire_server.optim.gradients import Clipping, first_non_finite, global_norm
from backwire_server.optim.groups import ParameterGroup
from backwire_server.optim.layerwise import Lamb, Muon, MuonScaling
from backwire_server.optim.layout import FlatLayout, Slot, Vectors, Views
from backwire_server.optim.optimizer import Optimizer, OptimizerState, averages, copy_state, init
from backwire_server.optim.rule import Rule
from backwire_server.optim.schedule_chains import ChainedSchedule, SequentialSchedule
from backwire_server.optim.schedules import (
    ConstantSchedule,
    ExponentialSchedule,
    MultiStepSchedule,
    Schedule,
    StepSchedule,
)
from backwire_server.optim.sgd import Lion, Sgd
from backwire_server.optim.stepping import Stepper, apply

__all__ = [
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "ChainedSchedule",
    "Clipping",
    "ConstantSchedule",
    "CosineRestartsSchedule",
    "CosineSchedule",
    "ExponentialSchedule",
    "FlatLayout",
    "Lamb",
    "LinearSchedule",
    "Lion",
    "MultiStepSchedule",
    "Muon",
    "MuonScaling",
    "NAdam",
    "OneCycleSchedule",
    "Optimizer",
    "OptimizerError",
    "OptimizerState",
    "ParameterGroup",
    "PolynomialSchedule",
    "RAdam",
    "RMSprop",
    "Rule",
    "Schedule",
    "SequentialSchedule",
    "Sgd",
    "Slot",
    "StepSchedule",
    "Stepper",
    "Vectors",
    "Views",
    "apply",
    "averages",
    "copy_state",
    "first_non_finite",
    "global_norm",
    "init",
]
