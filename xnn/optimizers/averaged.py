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
    """Another optimizer, and a moving average of the parameters that it gives.

    Training goes on with the parameters W as they are. Between epochs, and when training has ended,
    the network has their averages A, so that these are what is evaluated, seen by callbacks and
    kept (Polyak and Juditsky 1992). What a callback writes to the network goes into the averages.
    After step t:

        A ← d · A + (1 - d) · W,  where d = min(decay, (t - 1) / (t + 8))

    So the first A is W after the first step, and averages reach back over some ninth of all steps
    until that is as far as ``decay`` says: else what training begins with, which is far from what
    it comes to, would have a share in them for thousands of steps. (With ``num_updates``,
    TensorFlow's ``ExponentialMovingAverage`` has (1 + t) / (10 + t).)

    This is an optimizer and no callback since averages are taken after each step, within what is
    compiled, where callbacks do not come. A second `Network.fit` begins with what the network has,
    the averages, and averages anew.

    Parameters
    ----------
    optimizer
        What gives the parameters: any but one that averages; a number is the rate of `SGD`.
    decay
        What the average keeps of itself at each step, in the end: at least 0 and less than 1. It
        reaches some 1 / (1 - decay) steps back.
    warm_up
        Whether it is less at first; else d is ``decay`` from the second step on, as in PyTorch.

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
        """That of the other optimizer."""
        return self._of.learning_rate

    @property
    def _of(self) -> Optimizer:
        assert isinstance(self.optimizer, Optimizer)  # since it was made
        return self.optimizer

    def rates(self, epoch: int, steps: int) -> NDArray[Any]:
        return self._of.rates(epoch, steps)

    def start(self, subject: Subject) -> Updates:
        inner = self._of.start(subject)
        return _AveragedUpdates(inner, self.decay, self.warm_up)


class _AveragedUpdates(Updates):
    """Beside the network's parameters lie the averages, or between epochs what is trained."""

    def __init__(self, inner: Updates, decay: float, warm_up: bool) -> None:
        super().__init__(inner.subject)
        self.inner, self.decay, self.warm_up = inner, decay, warm_up
        self.aside = self.zeros()
        self.backend.copy(self.flat, self.aside)
        within = np.arange(float(self.backend.chunk_steps))
        self.taken = self.backend.upload(np.zeros(1))  # steps before those of a chunk, …
        self.each = self.backend.upload(within)  # … and of it

    def state(self) -> dict[str, Array]:
        return {**self.inner.state(), "aside": self.aside, "taken": self.taken}

    def restore(self, saved: Mapping[str, NDArray[Any]]) -> None:
        state = dict(saved)
        if "first" in state:  # of files from before there was a warm-up: 1 before the first step
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
