"""The 8 × 8 digits that come with scikit-learn (Alpaydin and Kaynak 1998)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_TEST = 300


def digits() -> tuple[tuple[NDArray[Any], NDArray[Any]], ...]:
    """Return scikit-learn's 1,797 digits as pairs ``(x, y)``: training, validation and test.

    ``x`` is ``(n, 64)``, ``float32`` from 0 to 1, and ``y`` holds labels 0…9, ``(n,)``, with n of
    1,197, 300 and 300, always in the same shuffled order. Nothing is downloaded.

    Raises `ImportError` if scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ImportError("the digits are part of scikit-learn: pip install scikit-learn") from None
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = (x[order] / 16).astype(np.float32), y[order]
    cuts = [len(x) - 2 * _TEST, len(x) - _TEST]
    return tuple(zip(np.split(x, cuts), np.split(y, cuts), strict=True))
