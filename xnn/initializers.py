"""First weights, drawn on the host from the network's one generator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Weights (outputs, inputs) and biases (outputs,), both float64.
Drawn = tuple[NDArray[np.float64], NDArray[np.float64]]
#: A name in `NAMES`, or the arrays themselves: weights, or a pair of weights and biases.
Initializer = str | ArrayLike | tuple[ArrayLike, ArrayLike]


def normal(rng: np.random.Generator, outputs: int, inputs: int) -> Drawn:
    """Weights and biases N(0, 1): the book's first (Nielsen, chapter 1)."""
    biases = rng.standard_normal(outputs)
    return rng.standard_normal((outputs, inputs)), biases


def scaled_normal(rng: np.random.Generator, outputs: int, inputs: int) -> Drawn:
    """Weights N(0, 1/inputs), biases N(0, 1): the book's second (Nielsen, chapter 3)."""
    weights, biases = normal(rng, outputs, inputs)
    return weights / np.sqrt(inputs), biases


def glorot(rng: np.random.Generator, outputs: int, inputs: int) -> Drawn:
    """Weights uniform in ±√(6 / (inputs + outputs)), biases 0 (Glorot and Bengio 2010, eq. 16)."""
    bound = np.sqrt(6 / (inputs + outputs))
    return rng.uniform(-bound, bound, (outputs, inputs)), np.zeros(outputs)


def he(rng: np.random.Generator, outputs: int, inputs: int) -> Drawn:
    """Weights N(0, 2/inputs), biases 0, for rectified linear units (He et al. 2015, eq. 10)."""
    return rng.standard_normal((outputs, inputs)) * np.sqrt(2 / inputs), np.zeros(outputs)


def zeros(rng: np.random.Generator, outputs: int, inputs: int) -> Drawn:
    """All weights and biases 0."""
    return np.zeros((outputs, inputs)), np.zeros(outputs)


NAMES: dict[str, Callable[[np.random.Generator, int, int], Drawn]] = {
    "normal": normal,
    "scaled_normal": scaled_normal,
    "glorot": glorot,
    "he": he,
    "zeros": zeros,
}


def check(initializer: Any) -> None:
    """Raise `ValueError` where ``initializer`` is a name that is not known."""
    if isinstance(initializer, str) and initializer not in (*NAMES, "auto"):
        known = ", ".join(NAMES)
        raise ValueError(f"initializer is {initializer!r}, but must be auto, {known}, or arrays")


def draw(initializer: Initializer, rng: np.random.Generator, outputs: int, inputs: int) -> Drawn:
    """Return first weights ``(outputs, inputs)`` and biases ``(outputs,)``.

    Raises `ValueError` where given arrays have other shapes or hold NaN.
    """
    if isinstance(initializer, str):
        return NAMES[initializer](rng, outputs, inputs)
    given = initializer if isinstance(initializer, tuple) else (initializer, np.zeros(outputs))
    if len(given) != 2:
        raise ValueError(
            f"initializer is a tuple of {len(given)}, but must be weights, or (weights, biases)"
        )
    return (
        as_given("initializer's weights", given[0], (outputs, inputs)),
        as_given("initializer's biases", given[1], (outputs,)),
    )


def as_given(
    argument: str, values: ArrayLike, shape: tuple[int, ...], dtype: Any = np.float64
) -> NDArray[np.float64]:
    """Return ``values`` as float64, refused where they are not of ``shape``, or not finite.

    Finite they must be as ``dtype``.
    """
    try:
        array = np.asarray(values)
    except ValueError:
        raise ValueError(f"{argument} must be numbers of shape {shape}") from None
    if array.dtype.kind not in "buif":
        raise ValueError(f"{argument} have dtype {array.dtype}, but must be real numbers")
    if array.shape != shape:
        raise ValueError(f"{argument} have shape {array.shape}, but must have shape {shape}")
    if not (np.abs(array.astype(np.float64)) <= np.finfo(dtype).max).all():
        raise ValueError(f"{argument} hold NaN or infinity, but must be finite as {dtype}")
    return array.astype(np.float64)
