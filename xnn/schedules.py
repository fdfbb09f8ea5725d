"""Learning rates that change as training goes on.

Each is called with the time in epochs, a number that grows within an epoch from step to step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Schedule:
    """A learning rate for each moment of training."""

    def __call__(self, epoch: float) -> float:
        """Return the learning rate at ``epoch``, counted from 0."""
        raise NotImplementedError


@dataclass(frozen=True)
class Step(Schedule):
    """``rate``, multiplied by ``factor`` every ``every`` epochs."""

    rate: float
    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        _positive("rate", self.rate)
        _positive("every", self.every)
        _positive("factor", self.factor)

    def __call__(self, epoch: float) -> float:
        return self.rate * math.pow(self.factor, epoch // self.every)


@dataclass(frozen=True)
class Cosine(Schedule):
    """From ``rate`` down to ``final`` along half a cosine over ``epochs``, then ``final``.

    Loshchilov and Hutter 2017, eq. 5, without restarts.
    """

    rate: float
    epochs: float
    final: float = 0.0

    def __post_init__(self) -> None:
        _positive("rate", self.rate)
        _positive("epochs", self.epochs)
        if not 0 <= self.final < math.inf:
            raise ValueError(f"final is {self.final!r}, but must be a number of at least 0")

    def __call__(self, epoch: float) -> float:
        along = min(epoch / self.epochs, 1.0)
        return self.final + (self.rate - self.final) * (1 + math.cos(math.pi * along)) / 2


@dataclass(frozen=True)
class WarmUp(Schedule):
    """``then`` (a rate or another schedule), reached in a straight line from 0 over ``epochs``."""

    then: float | Schedule
    epochs: float

    def __post_init__(self) -> None:
        _positive("epochs", self.epochs)
        if not isinstance(self.then, Schedule):
            _positive("then", self.then)

    def __call__(self, epoch: float) -> float:
        rate = self.then(epoch) if isinstance(self.then, Schedule) else self.then
        return rate * min(epoch / self.epochs, 1.0)


#: A rate, a schedule, or a function from the epoch's number (0, 1, 2, …) to a rate.
LearningRate = float | Schedule | Callable[[int], float]


def check(learning_rate: Any) -> None:
    """Raise `ValueError` where ``learning_rate`` is neither a positive number nor a function."""
    if not callable(learning_rate):
        _positive("learning_rate", learning_rate)


def rates(learning_rate: LearningRate, epoch: int, steps: int) -> NDArray[np.float64]:
    """Return the rate of each of the ``steps`` of an epoch, shape ``(steps,)``.

    Raises `ValueError` where a function gives anything but a number of at least 0.
    """
    if isinstance(learning_rate, Schedule):
        values: Any = [learning_rate(epoch + step / steps) for step in range(steps)]
    else:
        values = learning_rate(epoch) if callable(learning_rate) else learning_rate
    try:
        result = np.full(steps, values, np.float64)
        if (result >= 0).all() and np.isfinite(result).all():
            return result
    except (TypeError, ValueError):
        pass
    raise ValueError(
        f"learning_rate gave {values!r} at epoch {epoch}, but must give a number of at least 0"
    )


def _positive(argument: str, value: Any) -> None:
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not (number and 0 < value < math.inf):
        raise ValueError(f"{argument} is {value!r}, but must be a positive number")
