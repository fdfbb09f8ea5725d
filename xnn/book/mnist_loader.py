"""The book's ``mnist_loader.py``: MNIST as pairs of columns."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..datasets import mnist

__all__ = ["load_data", "load_data_wrapper", "vectorized_result"]

Pair = tuple[NDArray[Any], NDArray[Any]]


def load_data() -> tuple[Pair, Pair, Pair]:
    """Return training, validation and test data: pairs of images ``(n, 784)`` and labels ``(n,)``.

    Images are numbers from 0 to 1, float64, or as stored in the book's file. MNIST is found, and
    errors are raised, as by `xnn.datasets.mnist`.
    """
    training, validation, test = (
        (x / 255 if x.dtype == np.uint8 else x, y) for x, y in mnist(validation=None)
    )
    return training, validation, test


def load_data_wrapper() -> tuple[list[Any], list[Any], list[Any]]:
    """Return training, validation and test data as lists of pairs ``(x, y)``.

    ``x`` is a column ``(784, 1)``. ``y`` is a one-hot column ``(10, 1)`` in the training data, and
    a label from 0 to 9 in the others.
    """
    training, validation, test = load_data()
    targets = np.eye(10)[training[1]]
    return (
        _pairs(training[0], targets[:, :, None]),
        _pairs(*validation),
        _pairs(*test),
    )


def vectorized_result(j: int) -> NDArray[np.float64]:
    """Return the one-hot column ``(10, 1)`` of the digit ``j``."""
    e = np.zeros((10, 1))
    e[j] = 1.0
    return e


def _pairs(x: NDArray[Any], y: NDArray[Any]) -> list[Any]:
    return list(zip(x[:, :, None], y, strict=True))
