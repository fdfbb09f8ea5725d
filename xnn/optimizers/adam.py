"""Adam and AdamW: moving averages of the gradient and of its square."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import numpy as np

from .. import checks
from ..backends import Array
from ..schedules import LearningRate
from .base import Optimizer, Subject, Updates, check
from .formulas import Formulas


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam (Kingma and Ba 2015, algorithm 1), with PyTorch's defaults.

    At step t:

        m ← β₁ m + (1 - β₁) g
        v ← β₂ v + (1 - β₂) g²
        W ← W - η m / (1 - β₁ᵗ) / (√(v / (1 - β₂ᵗ)) + ε)

    g is the gradient of the cost averaged over the mini-batch, clipped, plus λ W.

    Parameters
    ----------
    learning_rate
        η: a positive number, a schedule from `xnn.schedules`, or a function of the epoch's number
        that returns a rate.
    betas
        β₁ and β₂, the decay rates of the averages: at least 0 and less than 1.
    eps
        ε, positive.
    weight_decay
        λ. If it is not 0, `AdamW` is usually the better choice.
    clip_norm, clip_value
        As in `SGD`.

    Raises
    ------
    ValueError
        For values out of these ranges.
    """

    learning_rate: LearningRate = 0.001
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    _: KW_ONLY
    weight_decay: float = 0.0
    clip_norm: float | None = None
    clip_value: float | None = None

    _decoupled: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check(self)
        if not isinstance(self.betas, tuple | list) or len(self.betas) != 2:
            raise ValueError(f"betas is {self.betas!r}, but must be a pair such as (0.9, 0.999)")
        for i, beta in enumerate(self.betas):
            checks.share(f"betas[{i}]", beta)
        checks.positive("eps", self.eps)

    def start(self, subject: Subject) -> Updates:
        return AdamUpdates(self, subject)


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2).

    Like `Adam`, but λ W is not part of the gradient; instead weights shrink before each step, as in
    PyTorch: W ← (1 - ηλ) W.
    """

    _: KW_ONLY
    weight_decay: float = 0.01

    _decoupled: ClassVar[bool] = True


class AdamUpdates(Formulas):
    """Adam, with m / (1 - β₁) and v / (1 - β₂) instead of m and v.

    These are plain decaying sums, which saves two passes over memory. Their factors and the bias
    corrections go into numbers of the step (Kingma and Ba, end of section 2): with
    a = (1 - β₁ᵗ) / (1 - β₁) and b = (1 - β₂ᵗ) / (1 - β₂), ``rate`` is η √b / a and ``eps`` is ε √b.
    """

    def __init__(self, adam: Adam, subject: Subject) -> None:
        program = "m = m * keep1 + g; v = v * keep2 + g * g; w = w - rate * m / (sqrt(v) + eps)"
        self.decays_apart = adam._decoupled and adam.weight_decay > 0
        if self.decays_apart:
            program = f"w = w - decay_rate * w * decays; {program}"
        super().__init__(
            adam,
            subject,
            program,
            state=("m", "v"),
            decay=adam.weight_decay,
            decoupled=adam._decoupled,
            numbers={"keep1": adam.betas[0], "keep2": adam.betas[1]},
        )
        self.eps = adam.eps
        backend = self.backend
        # In double precision: 1 - 0.999 has only five correct digits in single precision.
        betas = np.array(adam.betas, np.float64)
        ahead = np.arange(1, backend.chunk_steps + 1)
        self.powers = backend.upload(np.ones(2))  # β₁ᵗ and β₂ᵗ at the start of a chunk, …
        self.ahead = backend.upload(betas ** ahead[:, None])  # … and their factors at its steps
        self.scale = backend.upload(1 / (1 - betas))

    def state(self) -> dict[str, Array]:
        return {**super().state(), "powers": self.powers}

    def changing(self, rates: Array) -> dict[str, Array]:
        backend, steps = self.backend, len(rates)
        sums = backend.scratch((steps, 2), np.float64)
        ahead = self.ahead[:steps]
        backend.elementwise("(1 - p * f) * s", sums, p=self.powers, f=ahead, s=self.scale)
        backend.elementwise("p * f", self.powers, p=self.powers, f=ahead[-1])
        a, b = sums[:, 0], sums[:, 1]
        backend.elementwise("sqrt(b)", b, b=b)
        rate, eps = (backend.scratch(rates.shape, rates.dtype) for _ in range(2))
        backend.elementwise("rate * b / a", rate, rate=rates, a=a, b=b)
        self.floor(b, eps)
        changing = {"rate": rate, "eps": eps}
        return {**changing, "decay_rate": rates} if self.decays_apart else changing

    def floor(self, root: Array, out: Array) -> None:
        """Write the number added to √v at each step, ``(steps,)``; ``root`` is √b."""
        self.backend.elementwise("eps * root", out, eps=self.eps, root=root)
