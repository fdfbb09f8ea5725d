"""Learning rate schedules.

Each is called with the time in epochs, a number that increases with every step. All raise
`ValueError` for values out of range.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import checks

__all__ = ["Cosine", "OneCycle", "Schedule", "Step", "WarmUp"]


class Schedule:
    """Base class of learning rates that vary over time."""

    def __call__(self, epoch: float) -> float:
        """Return the learning rate at ``epoch``, counted from 0."""
        raise NotImplementedError

    def rates(self, epoch: int, steps: int) -> NDArray[np.float64]:
        """Return the learning rate of each step of an epoch, shape ``(steps,)``."""
        times = (epoch + step / steps for step in range(steps))
        return np.array([checks.not_negative("learning_rate", self(time)) for time in times])


@dataclass(frozen=True)
class Step(Schedule):
    """``rate``, multiplied by ``factor`` every ``every`` epochs."""

    rate: float
    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        checks.positive("rate", self.rate)
        checks.positive("every", self.every)
        checks.positive("factor", self.factor)

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
        checks.positive("rate", self.rate)
        checks.positive("epochs", self.epochs)
        checks.not_negative("final", self.final)

    def __call__(self, epoch: float) -> float:
        along = min(epoch / self.epochs, 1.0)
        return _half_cosine(self.rate, self.final, along)


def _half_cosine(start: float, end: float, along: float) -> float:
    """Interpolate between ``start`` (``along`` is 0) and ``end`` (``along`` is 1)."""
    return end + (start - end) * (1 + math.cos(math.pi * along)) / 2


@dataclass(frozen=True)
class OneCycle(Schedule):
    """From ``initial`` up to ``rate``, then down to ``final`` at the end of ``epochs``.

    The maximum is reached after a share ``peak`` of the epochs. Smith 2018 (arXiv 1803.09820), with
    half cosines instead of straight lines, as in PyTorch; momentum is not changed. ``initial``
    defaults to ``rate`` / 25.
    """

    rate: float
    epochs: float
    peak: float = 0.3
    initial: float | None = None
    final: float = 0.0

    def __post_init__(self) -> None:
        checks.positive("rate", self.rate)
        checks.positive("epochs", self.epochs)
        checks.number("peak", self.peak, "a number above 0 and below 1", above=0, below=1)
        if self.initial is not None:
            checks.positive("initial", self.initial)
        checks.not_negative("final", self.final)

    def __call__(self, epoch: float) -> float:
        initial = self.rate / 25 if self.initial is None else self.initial
        along = min(epoch / self.epochs, 1.0)
        if along < self.peak:
            return _half_cosine(initial, self.rate, along / self.peak)
        return _half_cosine(self.rate, self.final, (along - self.peak) / (1 - self.peak))


@dataclass(frozen=True)
class WarmUp(Schedule):
    """``then`` (a rate, schedule or function), times a factor rising from 0 to 1 over ``epochs``.

    ``WarmUp(Cosine(0.1, epochs=20), epochs=2)`` is a cosine with warm-up. The other schedule starts
    at epoch 0, not after the warm-up (Goyal et al. 2017, 2.2).
    """

    then: LearningRate
    epochs: float

    def __post_init__(self) -> None:
        checks.positive("epochs", self.epochs)
        check(self.then, "then")

    def __call__(self, epoch: float) -> float:
        then = self.then
        if isinstance(then, Schedule):
            rate = then(epoch)
        else:
            rate = then(int(epoch)) if callable(then) else then
        return rate * min(epoch / self.epochs, 1.0)

    def rates(self, epoch: int, steps: int) -> NDArray[np.float64]:
        times = epoch + np.arange(steps) / steps
        return rates(self.then, epoch, steps) * np.minimum(times / self.epochs, 1.0)


#: A rate, a schedule, or a function of the epoch's number (0, 1, 2, …) that returns a rate.
LearningRate = float | Schedule | Callable[[int], float]


def check(learning_rate: Any, name: str = "learning_rate") -> None:
    """Raise `ValueError` if ``learning_rate`` is neither a positive number nor a function."""
    if isinstance(learning_rate, type) or not callable(learning_rate):
        wanted = "a positive number, a schedule or a function of the epoch"
        checks.number(name, learning_rate, wanted, above=0)


def rates(
    learning_rate: LearningRate, epoch: int, steps: int, epochs: int = 1
) -> NDArray[np.float64]:
    """Return the learning rate of each step of an epoch, or of several from ``epoch`` on.

    Shape ``(epochs * steps,)``. Raises `ValueError` if a function returns anything but a number of
    at least 0.
    """
    if not callable(learning_rate):
        return np.full(epochs * steps, float(learning_rate))
    of_each = [_rates(learning_rate, at, steps) for at in range(epoch, epoch + epochs)]
    return np.concatenate(of_each)


def _rates(
    learning_rate: Schedule | Callable[[int], float], epoch: int, steps: int
) -> NDArray[np.float64]:
    if isinstance(learning_rate, Schedule):
        return learning_rate.rates(epoch, steps)
    rate = learning_rate(epoch)
    return np.full(steps, checks.not_negative(f"learning_rate({epoch})", rate))
