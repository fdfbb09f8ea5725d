"""Averages of the parameters over the steps of training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import checks
from ..backends import Array
from ..parameters import Parameter
from ..schedules import LearningRate
from .base import Optimizer, Subject, Updates, UpdateStep, item
from .sgd import as_optimizer


@dataclass(frozen=True)
class Averaged(Optimizer):
    """Another optimizer, with a moving average of the parameters.

    Training continues with the parameters W themselves. Between epochs and after training the
    network has their averages A, so that these are evaluated, seen by callbacks and kept (Polyak
    and Juditsky 1992). What a callback writes to the network goes into the averages. After step t:

        A ← d · A + (1 - d) · W,  where d = min(decay, (t - 1) / (t + 8))

    So the first A is W after the first step, and averages cover about the last ninth of all steps
    until limited by ``decay``: otherwise the initial parameters, which are far from the final ones,
    would have a share in them for thousands of steps. (With ``num_updates``, TensorFlow's
    ``ExponentialMovingAverage`` has (1 + t) / (10 + t).)

    This is an optimizer rather than a callback because it averages after each step, within compiled
    code. A second `Network.fit` starts from the network's current parameters, the averages, and
    restarts averaging.

    Parameters
    ----------
    optimizer
        The optimizer that trains, which must not average itself; a number is the rate of `SGD`.
    decay
        The final decay rate of the average: at least 0 and less than 1. The average covers about
        the last 1 / (1 - decay) steps.
    warm_up
        Whether d is smaller at first; else it is ``decay`` from the second step on, as in PyTorch.

    Raises
    ------
    ValueError
        For values out of these ranges.
    """

    optimizer: Optimizer | float
    decay: float = 0.999
    warm_up: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.optimizer, Averaged):
            raise ValueError(f"optimizer is {self.optimizer!r}, but must be one without averages")
        object.__setattr__(self, "optimizer", as_optimizer(self.optimizer))
        checks.share("decay", self.decay)
        checks.truth("warm_up", self.warm_up)

    @property
    def learning_rate(self) -> LearningRate:  # type: ignore[override]
        """The learning rate of the other optimizer."""
        return self._of.learning_rate

    @property
    def _of(self) -> Optimizer:
        assert isinstance(self.optimizer, Optimizer)  # since `__post_init__`
        return self.optimizer

    def rates(self, epoch: int, steps: int, epochs: int = 1) -> NDArray[Any]:
        return self._of.rates(epoch, steps, epochs)

    def start(self, subject: Subject) -> Updates:
        inner = self._of.start(subject)
        return _AveragedUpdates(inner, self.decay, self.warm_up)


class _AveragedUpdates(Updates):
    """Holds the averages, or between epochs the trained parameters, besides the network's."""

    def __init__(self, inner: Updates, decay: float, warm_up: bool) -> None:
        super().__init__(inner.subject)
        self.inner, self.decay, self.warm_up = inner, decay, warm_up
        self.aside = self.zeros()
        self.backend.copy(self.flat, self.aside)
        within = np.arange(float(self.backend.chunk_steps))
        self.taken = self.backend.upload(np.zeros(1))  # steps before a chunk, …
        self.each = self.backend.upload(within)  # … and within it

    def state(self) -> dict[str, Array]:
        return {**self.inner.state(), "aside": self.aside, "taken": self.taken}

    def restore(self, saved: Mapping[str, NDArray[Any]]) -> None:
        state = dict(saved)
        if "first" in state:  # in files older than the warm-up: 1 before the first step
            state["taken"] = np.where(state.pop("first") > 0, 0.0, 1e9)
        super().restore(state)

    def swap(self) -> None:
        self.backend.update("t = w; w = a; a = t", w=self.flat, a=self.aside)

    def weigh(self, totals: Array) -> None:
        self.inner.weigh(totals)

    def begin(self, rates: Array, batch: int) -> _AveragedStep:
        backend = self.backend
        keep, each = backend.scratch(rates.shape, rates.dtype), self.each[: len(rates)]
        formula = "minimum(decay, (t + i) / (t + i + 9))" if self.warm_up else "decay * (t + i > 0)"
        backend.elementwise(formula, keep, t=self.taken, i=each, decay=self.decay)
        backend.elementwise("t + n", self.taken, t=self.taken, n=len(rates))
        return _AveragedStep(self, self.inner.begin(rates, batch), keep)


class _AveragedStep(UpdateStep):
    def __init__(self, updates: _AveragedUpdates, inner: UpdateStep, keep: Array) -> None:
        self.updates, self.inner, self.keep = updates, inner, keep

    def gradient(
        self, parameter: Parameter, left: Array, right: Array, factor: float, again: bool = False
    ) -> None:
        self.inner.at = self.at
        self.inner.gradient(parameter, left, right, factor, again)

    def add(self, gradient: Array) -> None:
        self.inner.at = self.at
        self.inner.add(gradient)

    def apply(self) -> None:
        self.inner.at = self.at
        self.inner.apply()
        updates, keep = self.updates, item(self.keep, self.at)
        updates.backend.update("a = w + (a - w) * keep", a=updates.aside, w=updates.flat, keep=keep)
