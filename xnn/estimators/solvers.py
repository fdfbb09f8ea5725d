"""SGD and Adam as in scikit-learn, where a penalty on the weights is part of the cost.

The cost of a mini-batch of m samples includes α/2m · Σ w², and is recorded with it; if samples have
weights, m is their sum. `SGD` divides by all n samples instead, and does not record the penalty.
Adam's ε is added to √v itself; Kingma and Ba's algorithm 1, used by `Adam`, adds it to the
corrected √(v / (1 - β₂ᵗ)).
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends import Array, DeviceError
from ..optimizers import Adam, Optimizer, Subject, Updates, UpdateStep
from ..optimizers.adam import AdamUpdates
from ..optimizers.base import item
from ..optimizers.formulas import Formulas, FormulasStep, Summed
from ..optimizers.sgd import SGDUpdates
from ..parameters import Parameter


class Solver(Optimizer):
    """An optimizer that keeps its state from one training to the next.

    Parameters
    ----------
    rate
        The learning rate of the first epoch.
    alpha
        α, the strength of the penalty.

    Attributes
    ----------
    learning_rate
        The rate of the next epoch.
    """

    learning_rate: float
    clip_norm = clip_value = None

    def __init__(self, rate: float, alpha: float) -> None:
        self.learning_rate = float(rate)
        self.alpha = float(alpha)
        # The state kept between trainings: on the device, or on the host.
        self._updates: _Penalised | None = None
        self._saved: Mapping[str, NDArray[Any]] | None = None

    def rates(self, epoch: int, steps: int, epochs: int = 1) -> NDArray[Any]:
        return np.full(epochs * steps, self.learning_rate)

    def start(self, subject: Subject) -> Updates:
        self.pause()
        updates = _Penalised(self.formulas(subject), self.alpha)
        if self._saved is not None:
            updates.restore(self._saved)
        self._updates = updates
        return updates

    @abstractmethod
    def formulas(self, subject: Subject) -> Formulas:
        """Return the state for a training run, without the penalty."""

    def penalty(self) -> float:
        """Return the penalty times samples, summed over mini-batches since the last call."""
        assert self._updates is not None
        return self._updates.penalty()

    def pause(self) -> None:
        """Copy the last training's state to the host; if it is lost, keep the one before."""
        updates, self._updates = self._updates, None
        if updates is not None:
            with suppress(DeviceError):  # already reported
                self._saved = updates.saved()

    def paused(self) -> Solver:
        """Return a copy that would continue like this one, and holds nothing on a device."""
        twin = copy.copy(self)
        twin.pause()
        return twin


class SGDSolver(Solver):
    """v ← μ v - η g, and then W ← W + v or, with Nesterov's momentum, W ← W + μ v - η g."""

    def __init__(self, rate: float, alpha: float, momentum: float, nesterov: bool) -> None:
        super().__init__(rate, alpha)
        self.momentum, self.nesterov = float(momentum), nesterov

    def formulas(self, subject: Subject) -> Formulas:
        kind = self.momentum, self.nesterov
        return SGDUpdates(self, subject, *kind)


class AdamSolver(Solver):
    """W ← W - η √(1 - β₂ᵗ) / (1 - β₁ᵗ) · m / (√v + ε)."""

    def __init__(self, rate: float, alpha: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(rate, alpha)
        self.betas, self.eps = betas, float(eps)

    def formulas(self, subject: Subject) -> Formulas:
        adam = Adam(self.learning_rate, (self.betas[0], self.betas[1]), self.eps)
        return _AdamUpdates(adam, subject)


class _AdamUpdates(AdamUpdates):
    """Adam with v / (1 - β₂) instead of v, and so with ε / √(1 - β₂)."""

    def __init__(self, adam: Adam, subject: Subject) -> None:
        super().__init__(adam, subject)
        self.eps = adam.eps / np.sqrt(1 - adam.betas[1])

    def floor(self, root: Array, out: Array) -> None:
        self.backend.elementwise("eps", out, eps=self.eps)


class _Penalised(Updates):
    """Adds the penalty's gradient to that of formulas, and sums the penalty."""

    def __init__(self, inner: Formulas, alpha: float) -> None:
        super().__init__(inner.subject)
        self.inner, self.alpha = inner, alpha
        self._totals: Array | None = None
        if not alpha:
            return
        backend, dtype = self.backend, self.flat.dtype
        self.summed = Summed(backend.zeros, self.flat.size, dtype)  # the terms α w²
        self.sum = backend.zeros((1,), dtype)
        self.total = backend.zeros((1,), np.float64)
        inner.operands["alphas"] = self.decaying(alpha)
        inner.operands["p"] = self.summed.numbers
        penalise = "d = w * alphas; p = w * d; gradient = gradient + d * share"
        inner.program = f"{penalise}; {inner.program}"

    def state(self) -> dict[str, Array]:
        return self.inner.state()

    def penalty(self) -> float:
        if not self.alpha:
            return 0.0
        found = float(self.backend.download(self.total)[0])
        self.backend.elementwise("0", self.total)
        return found

    def weigh(self, totals: Array) -> None:
        self._totals = totals

    def begin(self, rates: Array, batch: int) -> UpdateStep:
        step = self.inner.begin(rates, batch)
        if not self.alpha:
            return step
        share = self.backend.scratch(rates.shape, rates.dtype)
        of = float(batch) if self._totals is None else self._totals
        # If all weights are 0, so is the penalty.
        self.backend.elementwise("sign(of) ** 2 / (of + (1 - sign(of) ** 2))", share, of=of)
        step.changing["share"] = share
        return _PenalisedStep(self, step)


class _PenalisedStep(UpdateStep):
    def __init__(self, updates: _Penalised, inner: FormulasStep) -> None:
        self.updates, self.inner = updates, inner

    def gradient(
        self, parameter: Parameter, left: Array, right: Array, factor: float, again: bool = False
    ) -> None:
        self.inner.gradient(parameter, left, right, factor, again)

    def add(self, gradient: Array) -> None:
        self.inner.add(gradient)

    def apply(self) -> None:
        self.inner.at = self.at
        self.inner.apply()
        updates, backend = self.updates, self.updates.backend
        updates.summed.add_up(backend, updates.sum)
        formula = "t + s * share * half"
        share, half = item(self.inner.changing["share"], self.at), self.inner.batch / 2
        total = updates.total
        backend.elementwise(formula, total, t=total, s=updates.sum, share=share, half=half)
