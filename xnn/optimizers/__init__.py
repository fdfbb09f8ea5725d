"""Steps on the flat buffer of parameters, from simple to general, one kind a file."""

from .adam import Adam, AdamW
from .base import Optimizer, Updates, UpdateStep
from .rmsprop import RMSprop
from .sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "RMSprop", "UpdateStep", "Updates"]
