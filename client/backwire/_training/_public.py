"""What training is told: optimizers, schedules, callbacks and the measures that it tells of, in one place."""

from backwire._builder._metrics import accuracy, top_k_accuracy
from backwire._training._callbacks import BestCheckpoint, Callback, EarlyStopping, ReduceOnPlateau, Training
from backwire._training._history import Epoch, History
from backwire._training._optimizers import SGD, Adam, AdamW, Optimizer, ParameterGroup
from backwire._training._optimizers_adaptive import Adadelta, Adagrad, Adamax, NAdam, RAdam, RMSprop
from backwire._training._optimizers_layerwise import LAMB, Lion, Muon
from backwire._training._schedules import (
    ConstantSchedule,
    CosineRestartsSchedule,
    CosineSchedule,
    ExponentialSchedule,
    LinearSchedule,
    MultiStepSchedule,
    OneCycleSchedule,
    PolynomialSchedule,
    Schedule,
    StepSchedule,
)
from backwire._training._schedules_combined import ChainedSchedule, SequentialSchedule
from backwire._training._tensorboard import TensorBoard

__all__ = [
    "LAMB",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "BestCheckpoint",
    "Callback",
    "ChainedSchedule",
    "ConstantSchedule",
    "CosineRestartsSchedule",
    "CosineSchedule",
    "EarlyStopping",
    "Epoch",
    "ExponentialSchedule",
    "History",
    "LinearSchedule",
    "Lion",
    "MultiStepSchedule",
    "Muon",
    "NAdam",
    "OneCycleSchedule",
    "Optimizer",
    "ParameterGroup",
    "PolynomialSchedule",
    "RAdam",
    "RMSprop",
    "ReduceOnPlateau",
    "Schedule",
    "SequentialSchedule",
    "StepSchedule",
    "TensorBoard",
    "Training",
    "accuracy",
    "top_k_accuracy",
]
