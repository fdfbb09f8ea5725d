"""Cost functions, and the error of the output layer for each.

A cost is the mean over samples of a sum over outputs. ``value`` is a summand and ``gradient`` its
derivative ∂C/∂a, as formulas in the outputs ``a``, their weighted inputs ``z`` and the targets
``y``; ``k`` is the number of outputs, ``tiny`` the smallest normal number, to which arguments of
logarithms are clipped, and ``eps`` the distance from 1 to the next number.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any

from .activations import Activation
from .backends import Array, Backend
from .parameters import Rows


@dataclass(frozen=True)
class Cost:
    """A cost for output layers of one kind."""

    name: str
    value: str
    gradient: str | None  # None if only the simplified delta is used
    simplifies: str | None = None  # the activation after which ∂C/∂z is a - y
    least: float = -inf  # the range of the targets, …
    most: float = inf
    distribution: bool = False  # … and whether those of a sample must add up to 1

    def values(self, backend: Backend, z: Array, a: Array, y: Array, out: Array) -> None:
        """``out ←`` each output's share of its sample's cost; all ``(batch, outputs)``."""
        info = backend.xp.finfo(out.dtype)
        limits = {"tiny": float(info.tiny), "eps": float(info.eps)}
        backend.elementwise(self.value, out, z=z, a=a, y=y, k=float(a.shape[1]), **limits)

    def output_delta(
        self, backend: Backend, activation: Activation, a: Rows, y: Rows, out: Rows
    ) -> None:
        """``out ← ∂C/∂z`` of the output layer, for each sample (BP1 in Nielsen, chapter 2)."""
        if activation.name == self.simplifies:
            backend.elementwise("a - y", out.whole, a=a.whole, y=y.whole)
        else:
            assert self.gradient is not None
            outputs = float(a.values.shape[1])
            activation.backward(backend, a, out, self.gradient, y=y, k=outputs)


_QUADRATIC = Cost("quadratic", "0.5 * (a - y)**2", "a - y", simplifies="linear")
_SQUARED = Cost("mean_squared_error", "(a - y)**2 / k", "2 * (a - y) / k")
_ABSOLUTE = Cost("mean_absolute_error", "abs(a - y) / k", "sign(a - y) / k")
# Each output is a separate yes or no (Nielsen, eq. 63) …
_BERNOULLI = Cost(
    "cross_entropy",
    # -y ln a - (1 - y) ln(1 - a) with a = σ(z), rearranged to stay accurate for large |z|
    "maximum(z, 0) - y * z + log1p(exp(-abs(z)))",
    None,
    simplifies="sigmoid",
    least=0.0,
    most=1.0,
)
# … or all outputs together are one choice (Nielsen, eq. 80).
_CATEGORICAL = Cost(
    "log_likelihood",
    "-y * log(maximum(a, tiny))",
    None,
    simplifies="softmax",
    least=0.0,
    most=1.0,
    distribution=True,
)
# Both as in scikit-learn: probabilities are clipped to [ε, 1 - ε].
_CUT = "maximum(minimum(a, 1 - eps), eps)"
_CUT_BERNOULLI = Cost(
    "log_loss",
    f"-y * log({_CUT}) - (1 - y) * log(1 - {_CUT})",
    None,
    simplifies="sigmoid",
    least=0.0,
    most=1.0,
)
_CUT_CATEGORICAL = Cost(
    "log_loss",
    f"-y * log({_CUT})",
    None,
    simplifies="softmax",
    least=0.0,
    most=1.0,
    distribution=True,
)
_POISSON = Cost(
    "poisson",
    "y * (log(maximum(y, tiny)) - log(maximum(a, tiny))) - y + a",
    None,
    simplifies="exp",
    least=0.0,
)

NAMES = (
    "quadratic",
    "cross_entropy",
    "log_likelihood",
    "log_loss",
    "mean_squared_error",
    "mean_absolute_error",
    "poisson",
)


def get(name: Any, activation: Activation) -> Cost:
    """Return the cost called ``name`` for an output layer with ``activation``.

    ``"cross_entropy"`` depends on the distribution that the outputs describe: after sigmoid, each
    output is a separate yes or no; after softmax, all are one choice, and it is the same as
    ``"log_likelihood"``. ``"log_loss"`` is the same with probabilities clipped to [ε, 1 - ε],
    with ε the dtype's distance from 1 to the next number. ``"poisson"`` is half the Poisson
    deviance, after exp. ``None`` gives log-likelihood after softmax, else the quadratic cost.

    Raises `ValueError` for an unknown name, and for a cost that does not fit the activation.
    """
    softmax = activation.name == "softmax"
    match name:
        case None:
            return _CATEGORICAL if softmax else _QUADRATIC
        case "quadratic":
            return _QUADRATIC
        case "mean_squared_error":
            return _SQUARED
        case "mean_absolute_error":
            return _ABSOLUTE
        case "cross_entropy" if activation.name == "sigmoid":
            return _BERNOULLI
        case "cross_entropy" | "log_likelihood" if softmax:
            return _CATEGORICAL
        case "log_loss" if softmax:
            return _CUT_CATEGORICAL
        case "log_loss" if activation.name == "sigmoid":
            return _CUT_BERNOULLI
        case "poisson" if activation.name == "exp":
            return _POISSON
        case "cross_entropy" | "log_likelihood" | "log_loss" | "poisson":
            wanted = {"log_likelihood": "softmax", "poisson": "exp"}.get(name, "sigmoid or softmax")
            raise ValueError(
                f"cost is {name!r}, which needs a last layer with activation {wanted}, "
                f"but it has {activation.name}"
            )
    raise ValueError(f"cost is {name!r}, but must be one of {', '.join(NAMES)}")
