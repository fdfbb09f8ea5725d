"""Optimizers given by formulas: the gradient in a buffer, then one pass over everything."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from ..backends import Array, Backend
from ..parameters import Parameter
from .base import Subject, Updates, UpdateStep, item

_ROW = 1024


class Summed:
    """Numbers ``(n,)`` and their sum, over rows of 1024 and then over the row sums.

    ``make`` allocates zeros: `Backend.zeros`, or `Backend.scratch` within a step.
    """

    def __init__(self, make: Callable[[tuple[int, ...], Any], Array], n: int, dtype: Any) -> None:
        rows = -(-n // _ROW)
        self._table = make((rows, _ROW), dtype)  # padded with zeros
        self._sums = make((rows,), dtype)
        self.numbers = self._table.reshape(rows * _ROW)[:n]

    def add_up(self, backend: Backend, into: Array) -> None:
        """Write the sum to an array ``(1,)``."""
        backend.row_sums(self._table, self._sums)
        backend.row_sums(self._sums[None, :], into)


class Clips(Protocol):
    """How a gradient is clipped: the part of an optimizer that `Formulas` reads."""

    @property
    def clip_norm(self) -> float | None:
        """The maximum Euclidean norm of the gradient, or None."""

    @property
    def clip_value(self) -> float | None:
        """The maximum absolute value in the gradient, or None."""


class Formulas(Updates):
    """The state of an optimizer that is a program (see `xnn.backends.formulas`).

    Parameters
    ----------
    clips
        The optimizer, with its ``clip_norm`` and ``clip_value``.
    program
        The update of ``w``, the parameters, given ``g``, the clipped gradient of the mini-batch's
        mean cost, including any weight decay; ``rate`` is the learning rate, and ``decays`` the
        decay of each parameter.
    state
        The names of the arrays kept between steps, initially zero.
    decay, decoupled
        The weight decay; and whether the program applies it, instead of adding ``decay`` times the
        weight to the gradient.
    numbers
        Other numbers of the program, by name.
    """

    def __init__(
        self,
        clips: Clips,
        subject: Subject,
        program: str,
        *,
        state: Sequence[str] = (),
        decay: float = 0.0,
        decoupled: bool = False,
        numbers: Mapping[str, float],
    ) -> None:
        super().__init__(subject)
        self.buffer = self.zeros()
        self.clip_norm, self.clip_value = clips.clip_norm, clips.clip_value
        self._state = {name: self.zeros() for name in state}
        self.operands = {"w": self.flat, "gradient": self.buffer, **self._state, **numbers}
        gradient = "gradient"
        if self.clip_norm is not None:
            gradient = "gradient * factor"  # see `FormulasStep.factor`
        elif self.clip_value is not None:
            gradient = "maximum(minimum(gradient, high), low)"
            self.operands |= {"high": self.clip_value, "low": -self.clip_value}
        if decay:
            self.operands["decays"] = self.decaying(decay)
            gradient += "" if decoupled else " + w * decays"
        self.program = f"g = {gradient}; {program}"

    def state(self) -> dict[str, Array]:
        return dict(self._state)

    def begin(self, rates: Array, batch: int) -> FormulasStep:
        return FormulasStep(self, self.changing(rates), batch)

    def changing(self, rates: Array) -> dict[str, Array]:
        """Return numbers that vary by step, ``(steps,)``, by their names in the program."""
        return {"rate": rates}


class FormulasStep(UpdateStep):
    """The gradient goes into a buffer of its own, where it can be clipped."""

    def __init__(self, updates: Formulas, changing: dict[str, Array], batch: int) -> None:
        self.updates, self.changing, self.batch = updates, changing, batch
        self.backend = updates.backend

    def gradient(
        self, parameter: Parameter, left: Array, right: Array, factor: float, again: bool = False
    ) -> None:
        into = parameter.matrix(self.updates.buffer)
        self.backend.gemm(left, right, into, alpha=factor / self.batch, beta=float(again))

    def add(self, gradient: Array) -> None:
        buffer, share = self.updates.buffer, 1 / self.batch
        self.backend.update("b = b + g * share", b=buffer, g=gradient, share=share)

    def apply(self) -> None:
        now = {name: item(values, self.at) for name, values in self.changing.items()}
        if self.updates.clip_norm is not None:
            now["factor"] = self.factor(self.updates.clip_norm)
        self.backend.update(self.updates.program, **self.updates.operands, **now)

    def factor(self, norm: float) -> Array:
        """Return the factor that limits the Euclidean norm of the gradient to ``norm``.

        Clips the gradient's values first, if required. The gradient is divided by its sum of
        absolute values before squaring, to prevent overflow.
        """
        backend, g, most = self.backend, self.updates.buffer, self.updates.clip_value
        summed = Summed(backend.scratch, g.size, g.dtype)
        scaled = summed.numbers
        total, square = (backend.scratch((1,), g.dtype) for _ in range(2))
        tiny = float(backend.xp.finfo(g.dtype).tiny)
        if most is not None:
            cut = "g = maximum(minimum(g, high), low); a = abs(g)"
            backend.update(cut, g=g, a=scaled, high=most, low=-most)
        else:
            backend.elementwise("abs(g)", scaled, g=g)
        summed.add_up(backend, total)
        backend.elementwise("(g / maximum(s, tiny)) ** 2", scaled, g=g, s=total, tiny=tiny)
        summed.add_up(backend, square)
        # The factor is norm / (s √q), and at most 1.
        formula = "minimum(1, c / maximum(s * sqrt(q), tiny))"
        backend.elementwise(formula, total, c=norm, s=total, q=square, tiny=tiny)
        return total.reshape(())
