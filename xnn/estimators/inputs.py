"""Checks of inputs and targets: by scikit-learn's rules or, for arrays on a device, by xnn's."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_array, check_consistent_length, validate_data

from ..backends import Array, Backend
from ..samples import SparseRows, check_inputs

#: Dtypes of inputs that are kept; others become the first of these.
DTYPES = (np.float64, np.float32)


def check_training(
    estimator: Any, backend: Backend, X: Any, y: Any, reset: bool, numeric: bool
) -> tuple[Any, NDArray[Any]]:
    """Return inputs ``(n, features)`` on host or device, and targets on the host.

    Sparse inputs are `SparseRows`. Raises `ValueError` as scikit-learn does.
    """
    there = backend.adopt(X)
    if there is not None:
        on_device = backend.adopt(y)
        y = y if on_device is None else backend.download(on_device)
        if reset:
            estimator.n_features_in_ = int(there.shape[-1])
            vars(estimator).pop("feature_names_in_", None)
        X = _on_device(estimator, backend, there)
        y = check_array(y, ensure_2d=False, dtype="numeric" if numeric else None, input_name="y")
        check_consistent_length(X, y)
        return X, y
    X, y = validate_data(
        estimator,
        X,
        y,
        accept_sparse=["csr", "csc"],
        multi_output=True,
        y_numeric=numeric,
        dtype=DTYPES,
        reset=reset,
    )
    return _by_rows(X), y


def check_prediction(estimator: Any, backend: Backend, X: Any) -> Any:
    """Return inputs as `check_training` does, for prediction."""
    there = backend.adopt(X)
    if there is not None:
        return _on_device(estimator, backend, there)
    options = {"accept_sparse": ["csr", "csc"], "dtype": DTYPES, "reset": False}
    return _by_rows(validate_data(estimator, X, **options))


def some(backend: Backend, X: Any, index: NDArray[np.intp]) -> Any:
    """Return the rows of checked inputs that ``index`` selects, where the inputs are."""
    if isinstance(X, SparseRows):
        return SparseRows(X.matrix[index])
    if isinstance(X, np.ndarray):
        return X[index]
    rows = backend.zeros((len(index), X.shape[1]), X.dtype)
    backend.gather(X, backend.upload(index), rows)
    return rows


def _on_device(estimator: Any, backend: Backend, X: Array) -> Array:
    """Return a checked array on the device, converted to one of `DTYPES`."""
    dtype = X.dtype if X.dtype.kind == "f" else np.dtype(DTYPES[0])
    X = check_inputs(backend, X, (estimator.n_features_in_,), dtype, "X")
    return X if X.dtype in DTYPES else X.astype(DTYPES[0])


def _by_rows(X: Any) -> Any:
    """Return arrays as they are, sparse matrices as `SparseRows`."""
    return SparseRows(X.tocsr()) if hasattr(X, "tocsr") else X
