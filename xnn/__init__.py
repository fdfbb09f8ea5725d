"""xnn: neural networks, written once, for the CPU and the GPU."""

from . import datasets, schedules
from .backends import DeviceError
from .callbacks import Callback, EarlyStopping, ReduceOnPlateau
from .history import History
from .layers import Dense, Layer
from .network import Evaluation, Gradients, Network, load
from .optimizers import SGD, Adam, AdamW, Averaged, Optimizer, RMSprop

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Averaged",
    "Callback",
    "Dense",
    "DeviceError",
    "EarlyStopping",
    "Evaluation",
    "Gradients",
    "History",
    "Layer",
    "Network",
    "Optimizer",
    "RMSprop",
    "ReduceOnPlateau",
    "__version__",
    "datasets",
    "load",
    "schedules",
]
