"""RMSprop: learning rates scaled by the size of recent gradients."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

from .. import checks
from ..schedules import LearningRate
from .base import Optimizer, Subject, Updates, check
from .formulas import Formulas


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """RMSprop (Tieleman and Hinton 2012, lecture 6.5), with PyTorch's defaults.

    At each step, ``centered`` as in Graves 2013:

        always      v ← α v + (1 - α) g²,  W ← W - η g / (√v + ε)
        centered    c ← α c + (1 - α) g,  with √(v - c²) instead of √v
        momentum    b ← μ b + g / (√v + ε),  W ← W - η b

    g is the gradient of the cost averaged over the mini-batch, clipped, plus λ W.

    Parameters
    ----------
    learning_rate
        η: a positive number, a schedule from `xnn.schedules`, or a function of the epoch's number
        that returns a rate.
    alpha
        α, the decay rate of the averages: at least 0 and less than 1.
    eps
        ε, positive.
    momentum
        μ, at least 0 and less than 1.
    centered
        Whether to use the gradient's variance instead of its mean square.
    weight_decay
        λ.
    clip_norm, clip_value
        As in `SGD`.

    Raises
    ------
    ValueError
        For values out of these ranges.
    """

    learning_rate: LearningRate = 0.01
    _: KW_ONLY
    alpha: float = 0.99
    eps: float = 1e-8
    momentum: float = 0.0
    centered: bool = False
    weight_decay: float = 0.0
    clip_norm: float | None = None
    clip_value: float | None = None

    def __post_init__(self) -> None:
        check(self)
        checks.share("alpha", self.alpha)
        checks.positive("eps", self.eps)
        checks.share("momentum", self.momentum)
        checks.truth("centered", self.centered)

    def start(self, subject: Subject) -> Updates:
        program, state, size = "v = v + (g * g - v) * rest; ", ["v"], "sqrt(v)"
        numbers = {"rest": 1 - self.alpha, "eps": self.eps}
        if self.centered:
            program += "c = c + (g - c) * rest; "
            state.append("c")
            # Rounding may make this negative if all gradients are equal.
            size = "sqrt(maximum(v - c * c, 0))"
        if self.momentum:
            program += f"b = mu * b + g / ({size} + eps); w = w - rate * b"
            state.append("b")
            numbers["mu"] = self.momentum
        else:
            program += f"w = w - rate * g / ({size} + eps)"
        return Formulas(
            self,
            subject,
            program,
            state=state,
            decay=self.weight_decay,
            numbers=numbers,
        )
