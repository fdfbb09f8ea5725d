"""Optimizers, which update the flat buffer of parameters; one kind per file."""

from .adam import Adam, AdamW
from .averaged import Averaged
from .base import Optimizer, Subject, Updates, UpdateStep
from .rmsprop import RMSprop
from .sgd import SGD, as_optimizer

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Averaged",
    "Optimizer",
    "RMSprop",
    "Subject",
    "UpdateStep",
    "Updates",
    "as_optimizer",
]
