"""Stochastic gradient descent."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np

from .. import checks
from ..backends import Array, Backend
from ..parameters import Parameter
from ..schedules import LearningRate
from .base import Optimizer, Subject, Updates, UpdateStep, check, item
from .formulas import Clips, Formulas


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent, optionally with momentum, weight decay and clipping.

    At each step, by Nielsen's equations 20 and 93, 107 and 108, and by Sutskever et al. 2013 and
    Bengio 2012:

        plain       W ← (1 - ηd) W - η g
        momentum    v ← μ v - η (g + d W),  W ← W + v
        Nesterov    v as above,  W ← W + μ v - η (g + d W)

    g is the gradient of the cost averaged over the mini-batch, clipped; d is ``weight_decay`` or
    λ/n. η is part of the velocity, as in the book; in PyTorch it is not, which makes a difference
    if the rate changes from step to step.

    Parameters
    ----------
    learning_rate
        η: a positive number, a schedule from `xnn.schedules`, or a function of the epoch's number
        that returns a rate.
    momentum
        μ, at least 0 and less than 1.
    nesterov
        Whether to use Nesterov momentum, which looks ahead.
    lmbda
        λ as the book defines it: at each step weights shrink by ηλ/n, with n training samples.
    weight_decay
        λ/n, as other optimizers and PyTorch define it: at each step weights shrink by η times this.
        Give only one of the two.
    clip_norm
        The maximum Euclidean norm of the gradient of all parameters together, which is scaled down
        to it (Pascanu et al. 2013).
    clip_value
        Each number of the gradient is clipped to ± this, before its norm is taken.

    Raises
    ------
    ValueError
        For values out of these ranges.

    Examples
    --------
    >>> import numpy as np
    >>> import xnn
    >>> rate = xnn.schedules.Cosine(0.1, epochs=20)
    >>> rate(0), round(rate(10), 6), rate(20)
    (0.1, 0.05, 0.0)
    >>> optimizer = xnn.SGD(rate, momentum=0.9, lmbda=5.0)
    >>> net = xnn.Network([2, 8, 1], seed=0)
    >>> x, y = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.array([0, 1, 1, 0])
    >>> history = net.fit(x, y, epochs=20, batch_size=4, optimizer=optimizer)
    >>> history.cost[-1] < history.cost[0]
    True
    """

    learning_rate: LearningRate
    momentum: float = 0.0
    _: KW_ONLY
    nesterov: bool = False
    lmbda: float = 0.0
    weight_decay: float = 0.0
    clip_norm: float | None = None
    clip_value: float | None = None

    def __post_init__(self) -> None:
        check(self)
        checks.share("momentum", self.momentum)
        checks.truth("nesterov", self.nesterov)
        checks.not_negative("lmbda", self.lmbda)
        if self.lmbda and self.weight_decay:
            raise ValueError("lmbda and weight_decay are both given, but are the same: λ/n")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov is True, but momentum is 0; give a momentum such as 0.9")

    def start(self, subject: Subject) -> Updates:
        if self.lmbda and subject.examples is None:
            raise ValueError(
                f"lmbda is {self.lmbda!r}, but λ/n needs the number n of training samples, which "
                "is unknown here: give λ/n as weight_decay"
            )
        decay = self.weight_decay or self.lmbda / (subject.examples or 1)
        clips = self.clip_norm is not None or self.clip_value is not None
        if not self.momentum and not clips and not subject.parts:
            return _Plain(subject, decay)
        if not self.nesterov and not clips:
            return _Momentum(subject, decay, self.momentum)
        kind = self.momentum, self.nesterov
        return SGDUpdates(self, subject, *kind, decay)


def as_optimizer(given: Any) -> Optimizer:
    """Return an optimizer as given, or `SGD` for a rate. Raises `ValueError` for anything else."""
    if isinstance(given, Optimizer):
        return given
    if isinstance(given, int | float | np.number):
        return SGD(given)  # type: ignore[arg-type]
    raise ValueError(
        f"optimizer is {given!r}, but must be one such as xnn.SGD(3.0) or xnn.Adam(), or a rate"
    )


class SGDUpdates(Formulas):
    """All kinds as formulas, for when the gradient must be in a buffer."""

    def __init__(
        self,
        clips: Clips,
        subject: Subject,
        momentum: float,
        nesterov: bool,
        decay: float = 0.0,
    ) -> None:
        program = "w = w - rate * g"
        if momentum:
            change = "mu * v - rate * g" if nesterov else "v"
            program = f"v = mu * v - rate * g; w = w + {change}"
        super().__init__(
            clips,
            subject,
            program,
            state=["v"] if momentum else [],
            decay=decay,
            numbers={"mu": momentum} if momentum else {},
        )


class _Plain(Updates):
    """The gradient goes straight into the weights."""

    def __init__(self, subject: Subject, decay: float) -> None:
        super().__init__(subject)
        self.decay = decay

    def begin(self, rates: Array, batch: int) -> UpdateStep:
        return _PlainStep(self, rates, batch)


class _PlainStep(UpdateStep):
    def __init__(self, updates: _Plain, rates: Array, batch: int) -> None:
        self.backend, self.flat, self.decay = updates.backend, updates.flat, updates.decay
        self.minus = _Minus(self.backend, rates, batch)
        self.keep = self.backend.scratch(rates.shape, rates.dtype)
        if self.decay:
            self.backend.elementwise("1 - rate * decay", self.keep, rate=rates, decay=self.decay)

    def gradient(
        self, parameter: Parameter, left: Array, right: Array, factor: float, again: bool = False
    ) -> None:
        matrix, minus = parameter.matrix(self.flat), self.minus(self.at, factor)
        n = parameter.weights
        if again or not self.decay or not n:
            self.backend.gemm(left, right, matrix, alpha=minus, beta=1.0)
            return
        keep = item(self.keep, self.at)
        self.backend.gemm(left, right[:, :n], matrix[:, :n], alpha=minus, beta=keep)
        if parameter.biases:
            self.backend.gemm(left, right[:, n:], matrix[:, n:], alpha=minus, beta=1.0)

    def add(self, gradient: Array) -> None:
        raise TypeError("gradients that come in parts must not go straight into the weights")


class _Momentum(Updates):
    """The gradient goes straight into the velocity."""

    def __init__(self, subject: Subject, decay: float, momentum: float) -> None:
        super().__init__(subject)
        self.momentum = momentum
        self.velocity = self.zeros()
        self.decays = self.decaying(decay) if decay else None

    def state(self) -> dict[str, Array]:
        return {"v": self.velocity}

    def begin(self, rates: Array, batch: int) -> UpdateStep:
        return _MomentumStep(self, rates, batch)


class _MomentumStep(UpdateStep):
    def __init__(self, updates: _Momentum, rates: Array, batch: int) -> None:
        self.updates, self.backend, self.rates = updates, updates.backend, rates
        self.minus = _Minus(self.backend, rates, batch)

    def gradient(
        self, parameter: Parameter, left: Array, right: Array, factor: float, again: bool = False
    ) -> None:
        self.backend.gemm(
            left,
            right,
            parameter.matrix(self.updates.velocity),
            alpha=self.minus(self.at, factor),
            beta=1.0 if again else self.updates.momentum,
        )

    def add(self, gradient: Array) -> None:
        v, minus = self.updates.velocity, self.minus(self.at, 1.0)
        self.backend.update("v = v + minus * g", v=v, g=gradient, minus=minus)

    def apply(self) -> None:
        w, v, decays = self.updates.flat, self.updates.velocity, self.updates.decays
        if decays is None:
            self.backend.elementwise("w + v", w, w=w, v=v)
            return
        program, rate = "v = v - w * decays * rate; w = w + v", item(self.rates, self.at)
        self.backend.update(program, v=v, w=w, decays=decays, rate=rate)


class _Minus:
    """-η/m of each step, times the factor of a gradient."""

    def __init__(self, backend: Backend, rates: Array, batch: int) -> None:
        self._backend, self._rates, self._batch = backend, rates, batch
        self._made: dict[float, Array] = {}

    def __call__(self, at: int, factor: float) -> Array:
        if factor not in self._made:
            self._made[factor] = self._backend.scratch(self._rates.shape, self._rates.dtype)
            by = factor / self._batch
            self._backend.elementwise("-rate * by", self._made[factor], rate=self._rates, by=by)
        return item(self._made[factor], at)
