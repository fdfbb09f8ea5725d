"""Steps on the flat buffer of parameters.

An optimizer is a description of how to step; `Optimizer.start` makes the state of one training run
(a velocity, a buffer for gradients). While a mini-batch runs backward, each layer hands over two
matrices whose product is the gradient of its parameters, and the optimizer says where that product
lands: straight in the weights, in the velocity, or in a buffer of its own. That is why plain SGD
costs one matrix product a layer and not a pass over memory more.

η is the learning rate, m the mini-batch's size, n the number of training samples, λ the weight
decay, μ the momentum. Biases do not decay.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import checks, schedules
from .backends import Array, Backend
from .parameters import Parameter
from .schedules import LearningRate


class Updates(ABC):
    """The state of an optimizer in one training run."""

    def __init__(
        self, run: Backend, flat: Array, parameters: Sequence[Parameter], examples: int
    ) -> None:
        self.run = run
        self.flat = flat
        self.parameters = parameters
        self.examples = examples

    @abstractmethod
    def begin(self, rates: Array, batch: int) -> UpdateStep:
        """Begin a step for each of ``rates`` ``(steps,)``, on mini-batches of ``batch`` samples.

        Called while compiling: what it does is repeated at each replay.
        """


class UpdateStep(ABC):
    """One training step of an optimizer, or several compiled in a row."""

    at: int = 0  # which of them

    @abstractmethod
    def gradient(self, parameter: Parameter, left: Array, right: Array, factor: float) -> None:
        """Take ``factor · left @ right``, a parameter's gradient summed over the mini-batch."""

    def apply(self) -> None:  # noqa: B027 - where the gradient lands in the weights, that was all
        """Change the parameters, when all gradients are there."""


class Optimizer(ABC):
    """How to step: what `Network.fit` takes as ``optimizer``."""

    learning_rate: LearningRate

    def rates(self, epoch: int, steps: int) -> NDArray[np.float64]:
        """Return the learning rate of each step of an epoch, shape ``(steps,)``."""
        return schedules.rates(self.learning_rate, epoch, steps)

    @abstractmethod
    def start(
        self, run: Backend, flat: Array, parameters: Sequence[Parameter], examples: int
    ) -> Updates:
        """Return the state for a training run over ``examples`` samples."""


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent, from plain to with everything.

    ==========  ==================================================================
    plain       W ← (1 - ηλ/n) W - η g         (Nielsen, eq. 20 and 93)
    momentum    v ← μ v - η (g + λ/n W),  W ← W + v         (Nielsen, eq. 107 and 108)
    Nesterov    v as above,  W ← W + μ v - η (g + λ/n W)    (Sutskever et al. 2013; Bengio 2012)
    ==========  ==================================================================

    g is the gradient of the cost averaged over the mini-batch. η is part of the velocity, as in the
    book; in PyTorch it is not, which differs where the rate changes from step to step.

    Parameters
    ----------
    learning_rate
        η: a positive number, a schedule from `xnn.schedules`, or a function from the epoch's number
        to a rate.
    momentum
        μ, at least 0 and less than 1.
    nesterov
        Whether momentum looks ahead.
    weight_decay
        λ as the book defines it: at each step weights shrink by ηλ/n. It is n times what PyTorch
        calls ``weight_decay``.
    clip_norm
        The gradient of all parameters together is scaled down to this Euclidean norm
        (Pascanu et al. 2013).
    clip_value
        Each number of the gradient is cut off at ± this.

    Raises `ValueError` for values out of these ranges.
    """

    learning_rate: LearningRate
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    clip_norm: float | None = None
    clip_value: float | None = None

    def __post_init__(self) -> None:
        schedules.check(self.learning_rate)
        wanted = "a number of at least 0 and less than 1"
        checks.number("momentum", self.momentum, wanted, least=0, below=1)
        checks.number("weight_decay", self.weight_decay, "a number of at least 0", least=0)
        for name in ("clip_norm", "clip_value"):
            value = getattr(self, name)
            if value is not None:
                checks.number(name, value, "a positive number or None", above=0)
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov is True, but momentum is 0; give a momentum such as 0.9")

    def start(
        self, run: Backend, flat: Array, parameters: Sequence[Parameter], examples: int
    ) -> Updates:
        kind: type[_SGDUpdates]
        if self.nesterov or self.clip_norm is not None or self.clip_value is not None:
            kind = _General
        else:
            kind = _Momentum if self.momentum else _Plain
        return kind(self, run, flat, parameters, examples)


class _SGDUpdates(Updates):
    def __init__(
        self,
        sgd: SGD,
        run: Backend,
        flat: Array,
        parameters: Sequence[Parameter],
        examples: int,
    ) -> None:
        super().__init__(run, flat, parameters, examples)
        self.sgd = sgd
        self.decay = sgd.weight_decay / examples

    def decaying(self) -> Array:
        """Return a buffer with λ/n where a weight lies and 0 where a bias does."""
        rates = self.run.zeros(self.flat.shape, self.flat.dtype)
        for parameter in self.parameters:
            parameter.matrix(rates)[:, : parameter.weights] = self.decay
        return rates


class _Plain(_SGDUpdates):
    """The gradient lands in the weights."""

    def begin(self, rates: Array, batch: int) -> UpdateStep:
        return _PlainStep(self, rates, batch)


class _PlainStep(UpdateStep):
    def __init__(self, updates: _Plain, rates: Array, batch: int) -> None:
        self.run, self.flat, self.decay = updates.run, updates.flat, updates.decay
        self.minus = _Minus(self.run, rates, batch)
        self.keep = self.run.scratch(rates.shape, rates.dtype)
        if self.decay:
            self.run.elementwise("1 - rate * decay", self.keep, rate=rates, decay=self.decay)

    def gradient(self, parameter: Parameter, left: Array, right: Array, factor: float) -> None:
        matrix, minus = parameter.matrix(self.flat), self.minus(self.at, factor)
        if not self.decay:
            self.run.gemm(left, right, matrix, alpha=minus, beta=1.0)
            return
        n, keep = parameter.weights, _item(self.keep, self.at)
        self.run.gemm(left, right[:, :n], matrix[:, :n], alpha=minus, beta=keep)
        if parameter.bias:
            self.run.gemm(left, right[:, n:], matrix[:, n:], alpha=minus, beta=1.0)


class _Momentum(_SGDUpdates):
    """The gradient lands in the velocity."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.velocity = self.run.zeros(self.flat.shape, self.flat.dtype)
        self.decays = self.decaying() if self.decay else None

    def begin(self, rates: Array, batch: int) -> UpdateStep:
        return _MomentumStep(self, rates, batch)


class _MomentumStep(UpdateStep):
    def __init__(self, updates: _Momentum, rates: Array, batch: int) -> None:
        self.updates, self.run, self.rates = updates, updates.run, rates
        self.minus = _Minus(self.run, rates, batch)

    def gradient(self, parameter: Parameter, left: Array, right: Array, factor: float) -> None:
        self.run.gemm(
            left,
            right,
            parameter.matrix(self.updates.velocity),
            alpha=self.minus(self.at, factor),
            beta=self.updates.sgd.momentum,
        )

    def apply(self) -> None:
        w, v, decays = self.updates.flat, self.updates.velocity, self.updates.decays
        if decays is not None:
            rate = _item(self.rates, self.at)
            self.run.elementwise("v - w * decays * rate", v, v=v, w=w, decays=decays, rate=rate)
        self.run.elementwise("w + v", w, w=w, v=v)


class _General(_SGDUpdates):
    """The gradient lands in a buffer of its own, where it can be clipped."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.buffer = self.run.zeros(self.flat.shape, self.flat.dtype)
        self.velocity = self.run.zeros(self.flat.shape, self.flat.dtype)
        self.decays = self.decaying() if self.decay else None

    def begin(self, rates: Array, batch: int) -> UpdateStep:
        return _GeneralStep(self, rates, batch)


class _GeneralStep(UpdateStep):
    def __init__(self, updates: _General, rates: Array, batch: int) -> None:
        self.updates, self.run, self.rates, self.batch = updates, updates.run, rates, batch

    def gradient(self, parameter: Parameter, left: Array, right: Array, factor: float) -> None:
        into = parameter.matrix(self.updates.buffer)
        self.run.gemm(left, right, into, alpha=factor / self.batch)

    def apply(self) -> None:
        run, sgd = self.run, self.updates.sgd
        w, v, g = self.updates.flat, self.updates.velocity, self.updates.buffer
        rate = _item(self.rates, self.at)
        if sgd.clip_value is not None:
            run.elementwise("maximum(minimum(g, c), -c)", g, g=g, c=sgd.clip_value)
        if sgd.clip_norm is not None:
            self.clip(g, sgd.clip_norm)
        if self.updates.decays is not None:
            run.elementwise("g + w * decays", g, g=g, w=w, decays=self.updates.decays)
        run.elementwise("mu * v - rate * g", v, mu=sgd.momentum, v=v, rate=rate, g=g)
        if sgd.nesterov:
            run.elementwise("w + mu * v - rate * g", w, w=w, mu=sgd.momentum, v=v, rate=rate, g=g)
        else:
            run.elementwise("w + v", w, w=w, v=v)

    def clip(self, g: Array, norm: float) -> None:
        """Scale ``g`` down to a Euclidean norm of at most ``norm``.

        The squares are of g over its sum of absolute values, which do not overflow where g's would.
        """
        run = self.run
        scaled, total = run.scratch(g.shape, g.dtype), run.scratch((1,), g.dtype)
        square = run.scratch((1, 1), g.dtype)
        tiny = float(run.xp.finfo(g.dtype).tiny)
        run.elementwise("abs(g)", scaled, g=g)
        run.row_sums(scaled[None, :], total)
        run.elementwise("g / maximum(s, tiny)", scaled, g=g, s=total, tiny=tiny)
        run.gemm(scaled[None, :], scaled[:, None], square)
        # The factor is norm / (s √q), and at most 1.
        run.elementwise(
            "minimum(1, c / maximum(s * sqrt(q), tiny))",
            total,
            c=norm,
            s=total,
            q=square[0],
            tiny=tiny,
        )
        run.elementwise("g * f", g, g=g, f=total)


class _Minus:
    """-η/m of each step, times the factors that gradients come with."""

    def __init__(self, run: Backend, rates: Array, batch: int) -> None:
        self._run, self._rates, self._batch = run, rates, batch
        self._made: dict[float, Array] = {}

    def __call__(self, at: int, factor: float) -> Array:
        if factor not in self._made:
            self._made[factor] = self._run.scratch(self._rates.shape, self._rates.dtype)
            by = factor / self._batch
            self._run.elementwise("-rate * by", self._made[factor], rate=self._rates, by=by)
        return _item(self._made[factor], at)


def _item(values: Array, at: int) -> Array:
    """Return ``values[at]`` as a view of shape ``()``, not as a copy."""
    return values[at : at + 1].reshape(())
