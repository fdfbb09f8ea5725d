"""Initial weights, drawn on the host from the network's generator."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Weights, with the outputs first, and biases (outputs,), both float64.
Drawn = tuple[NDArray[np.float64], NDArray[np.float64]]
#: A name in `INITIALIZERS`, or the arrays themselves: weights, or a pair of weights and biases.
Initializer = str | ArrayLike | tuple[ArrayLike, ArrayLike]
# Of weights (outputs, inputs), or of kernels (filters, height, width, channels).
_Shape = tuple[int, ...]


def normal(rng: np.random.Generator, shape: _Shape) -> Drawn:
    """Weights and biases N(0, 1): the book's first choice (Nielsen, chapter 1)."""
    biases = rng.standard_normal(shape[0])
    return rng.standard_normal(shape), biases


def scaled_normal(rng: np.random.Generator, shape: _Shape) -> Drawn:
    """Weights N(0, 1/inputs), biases N(0, 1): the book's second choice (Nielsen, chapter 3)."""
    weights, biases = normal(rng, shape)
    return weights / np.sqrt(_inputs(shape)), biases


def glorot(rng: np.random.Generator, shape: _Shape) -> Drawn:
    """Weights uniform in ±√(6 / (inputs + outputs)), biases 0 (Glorot and Bengio 2010, eq. 16)."""
    bound = np.sqrt(6 / (_inputs(shape) + shape[0] * prod(shape[1:-1])))
    return rng.uniform(-bound, bound, shape), np.zeros(shape[0])


def he(rng: np.random.Generator, shape: _Shape) -> Drawn:
    """Weights N(0, 2/inputs), biases 0, for rectified linear units (He et al. 2015, eq. 10)."""
    return rng.standard_normal(shape) * np.sqrt(2 / _inputs(shape)), np.zeros(shape[0])


def zeros(rng: np.random.Generator, shape: _Shape) -> Drawn:
    """All weights and biases 0."""
    return np.zeros(shape), np.zeros(shape[0])


def _inputs(shape: _Shape) -> int:
    """Return the number of inputs of each output."""
    return prod(shape[1:])


INITIALIZERS: dict[str, Callable[[np.random.Generator, _Shape], Drawn]] = {
    "normal": normal,
    "scaled_normal": scaled_normal,
    "glorot": glorot,
    "he": he,
    "zeros": zeros,
}


def check(initializer: Any, bias: bool) -> None:
    """Raise `ValueError` for an unknown name, or for initial biases if ``bias`` is False."""
    if isinstance(initializer, str) and initializer not in (*INITIALIZERS, "auto"):
        known = ", ".join(INITIALIZERS)
        raise ValueError(f"initializer is {initializer!r}, but must be auto, {known}, or arrays")
    if isinstance(initializer, tuple) and not bias:
        raise ValueError("initializer has biases, but bias is False; give only weights")


def draw(
    initializer: Initializer, activation: str, rng: np.random.Generator, shape: _Shape, bias: bool
) -> dict[str, NDArray[Any]]:
    """Return initial ``weights`` of a shape and, if ``bias``, ``biases``.

    Raises `ValueError` if given arrays have other shapes or are not finite.
    """
    if isinstance(initializer, str):
        if initializer == "auto":
            initializer = "he" if "relu" in activation else "glorot"
        pair: Any = INITIALIZERS[initializer](rng, shape)
    else:
        pair = initializer if isinstance(initializer, tuple) else (initializer, np.zeros(shape[0]))
        if len(pair) != 2:
            raise ValueError(
                f"initializer is a tuple of {len(pair)}, but must be weights, or (weights, biases)"
            )
    weights, biases = pair
    drawn = {"weights": as_given("initializer's weights", weights, shape)}
    if bias:
        drawn["biases"] = as_given("initializer's biases", biases, shape[:1])
    return drawn


def as_given(
    argument: str, values: ArrayLike, shape: tuple[int, ...], dtype: Any = np.float64
) -> NDArray[Any]:
    """Return ``values`` as an array of ``shape``. Arrays of float32 or float64 are not copied.

    Raises `ValueError` for another shape, and for values that are not finite as ``dtype``.
    """
    try:
        array = np.asarray(values)
    except ValueError:
        raise ValueError(f"{argument} must be numbers of shape {shape}") from None
    if array.dtype.kind not in "buif":
        raise ValueError(f"{argument} have dtype {array.dtype}, but must be real numbers")
    if array.shape != shape:
        raise ValueError(f"{argument} have shape {array.shape}, but must have shape {shape}")
    if array.dtype.kind == "f" and not (np.abs(array) <= np.finfo(dtype).max).all():
        raise ValueError(f"{argument} hold NaN or infinity, but must be finite as {dtype}")
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)
