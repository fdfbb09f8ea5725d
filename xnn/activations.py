"""Activation functions a = σ(z), each with its derivative.

The derivative is written in terms of a, not z, which takes less arithmetic for these functions.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from .backends import Array, Backend
from .parameters import Rows


@dataclass(frozen=True)
class Activation:
    """An elementwise function, as formulas of ``xnn.backends.formulas``."""

    name: str
    value: str
    derivative: str | None  # σ'(z) in terms of a; None if it is 1
    one: float = 1.0  # a z for which a is exactly 1
    least: float = -inf  # the infimum of a, and …
    most: float = inf  # … its supremum

    def forward(self, backend: Backend, z: Rows, out: Rows) -> None:
        """``out ← σ(z)``."""
        backend.elementwise(self.value, out.whole, z=z.whole)

    def backward(
        self, backend: Backend, a: Rows, out: Rows, error: str, **operands: float | Rows
    ) -> None:
        """``out ← ∂C/∂z = ∂C/∂a ⊙ σ'(z)``, where ``error`` is the formula of ∂C/∂a.

        The formula may read ``a`` and ``operands``; all have the shape ``(batch, units)``.
        """
        formula = error if self.derivative is None else f"({error}) * ({self.derivative})"
        if formula != "e" or operands["e"] is not out:
            arrays = {name: _whole(operand) for name, operand in operands.items()}
            backend.elementwise(formula, out.whole, a=a.whole, **arrays)


class Softmax(Activation):
    """a_i = exp(z_i) / Σ_j exp(z_j) over a sample's units (Bridle 1990)."""

    def forward(self, backend: Backend, z: Rows, out: Rows) -> None:
        backend.softmax(z.values, out.values)

    def backward(
        self, backend: Backend, a: Rows, out: Rows, error: str, **operands: float | Rows
    ) -> None:
        """``out ← a ⊙ (e - Σ_j e_j a_j)``, the product of the Jacobian and the error e = ∂C/∂a."""
        batch, units = out.values.shape
        weighted = backend.scratch((batch, units), out.values.dtype)
        sums = backend.scratch((batch,), out.values.dtype)
        arrays = {name: _values(operand) for name, operand in operands.items()}
        backend.elementwise(f"({error}) * a", weighted, a=a.values, **arrays)
        backend.row_sums(weighted, sums)
        backend.elementwise("w - a * s", out.values, w=weighted, a=a.values, s=sums[:, None])


def _whole(operand: float | Rows) -> float | Array:
    return operand.whole if isinstance(operand, Rows) else operand


def _values(operand: float | Rows) -> float | Array:
    return operand.values if isinstance(operand, Rows) else operand


LEAK = 0.01  # slope below zero (Maas, Hannun and Ng 2013)

ACTIVATIONS = {
    activation.name: activation
    for activation in (
        Activation("sigmoid", "sigmoid(z)", "a * (1 - a)", one=40.0, least=0.0, most=1.0),
        Activation("tanh", "tanh(z)", "1 - a**2", one=40.0, least=-1.0, most=1.0),
        Activation("relu", "maximum(z, 0)", "a > 0", least=0.0),
        Activation("leaky_relu", f"maximum(z, {LEAK} * z)", f"{LEAK} + {1 - LEAK} * (a > 0)"),
        Activation("linear", "z", None),
        Activation("exp", "exp(z)", "a", one=0.0, least=0.0),
        Softmax("softmax", "", "", least=0.0, most=1.0),
    )
}


def get(name: str) -> Activation:
    """Return the activation called ``name``. Raises `ValueError` if there is none."""
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise ValueError(f"activation is {name!r}, but must be one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]
