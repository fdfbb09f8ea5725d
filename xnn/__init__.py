"""xnn: neural networks, written once, for the CPU and the GPU."""

from . import datasets, schedules
from .backends import DeviceError
from .callbacks import Callback, EarlyStopping, ReduceOnPlateau
from .checkpoints import Checkpoints
from .ensemble import Ensemble, cross_validate, folds
from .history import History
from .inference import Evaluation
from .layers import (
    Activation,
    AveragePool2D,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    ElasticTransform,
    Flatten,
    GlobalAveragePool2D,
    Layer,
    MaxPool2D,
    RandomAffine,
    RandomErasing,
    Reshape,
)
from .network import Gradients, Network, load
from .optimizers import SGD, Adam, AdamW, Averaged, Optimizer, RMSprop
from .pytorch import from_torch, to_torch
from .stepper import Stepper
from .version import __version__

__all__ = [
    "SGD",
    "Activation",
    "Adam",
    "AdamW",
    "AveragePool2D",
    "Averaged",
    "BatchNorm",
    "Callback",
    "Checkpoints",
    "Conv2D",
    "Dense",
    "DeviceError",
    "Dropout",
    "EarlyStopping",
    "ElasticTransform",
    "Ensemble",
    "Evaluation",
    "Flatten",
    "GlobalAveragePool2D",
    "Gradients",
    "History",
    "Layer",
    "MaxPool2D",
    "Network",
    "Optimizer",
    "RMSprop",
    "RandomAffine",
    "RandomErasing",
    "ReduceOnPlateau",
    "Reshape",
    "Stepper",
    "__version__",
    "cross_validate",
    "datasets",
    "folds",
    "from_torch",
    "load",
    "schedules",
    "to_torch",
]
