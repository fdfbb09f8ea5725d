"""Data in the book's form, converted to arrays of rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BLOCK = 64  # columns converted at a time, few enough to stay in the cache for checking


def are_arrays(data: Any) -> bool:
    """Return whether ``data`` is a pair of arrays ``(x, y)``, not pairs of columns."""
    return isinstance(data, tuple | list) and len(data) == 2 and hasattr(data[0], "ndim")


def lay_out(
    name: str, data: Any, sizes: tuple[int, int], dtype: Any, labels: bool
) -> tuple[Any, Any]:
    """Return inputs ``(n, inputs)`` and targets: rows ``(n, outputs)``, or ``labels`` ``(n,)``.

    ``data`` is a list, zip or generator of pairs ``(x, y)`` of a column ``(inputs, 1)`` and a
    column ``(outputs, 1)`` or a label; or a pair of arrays of such rows, in which ``uint8`` are
    pixels. ``sizes`` are the network's inputs and outputs, ``dtype`` its dtype.

    Raises `ValueError`, which describes the book's form, for anything else.
    """
    inputs, outputs = sizes
    if labels and outputs == 1:
        raise ValueError(f"{name} has labels, which need several outputs, but the network has one")
    wanted = "the label itself, such as 7" if labels else f"a one-hot column ({outputs}, 1)"
    form = f"the book's form is a list of pairs (x, y): x a column ({inputs}, 1), y {wanted}"
    if are_arrays(data):
        return data[0], _targets(name, data[1], outputs, labels)
    try:
        pairs = list(data)
        lengths = set(map(len, pairs))
    except TypeError:
        raise ValueError(f"{name} has no pairs (x, y); {form}") from None
    if not pairs:
        raise ValueError(
            f"{name} is empty, or an exhausted zip or generator; {form}, "
            "which list(zip(xs, ys)) makes"
        )
    if lengths != {2}:
        raise ValueError(f"{name} has entries of length {max(lengths - {2})}; {form}")
    xs, ys = zip(*pairs, strict=True)
    _check(name, "x", xs, (inputs, 1), f"np.reshape(x, ({inputs}, 1)) makes one; {form}")
    _check(name, "y", ys, () if labels else (outputs, 1), form)
    try:
        y = np.array(ys) if labels else _rows([np.asarray(y) for y in ys])
        columns = [np.asarray(x) for x in xs]
    except TypeError as error:
        raise ValueError(f"{name} has pairs that NumPy cannot convert: {error}; {form}") from None
    return _pixels(columns, dtype), y


def column(name: str, values: Any, size: int) -> Any:
    """Return ``values`` as one column ``(size, 1)``, or raise `ValueError`."""
    array = values if hasattr(values, "ndim") else np.asarray(values)
    if array.shape != (size, 1):
        raise ValueError(
            f"{name} has shape {array.shape}, but the book's form is a column ({size}, 1)"
        )
    return array


def _targets(name: str, y: Any, outputs: int, labels: bool) -> Any:
    """Return the targets of a pair of arrays."""
    shape = tuple(getattr(y, "shape", None) or np.shape(y))
    if labels:
        if len(shape) != 1:
            raise ValueError(f"{name} has y of shape {shape}, but must have labels (n,)")
        return y
    if shape[1:] not in ((outputs,), (outputs, 1)):
        hint = "; np.eye makes such rows of labels" if len(shape) == 1 else ""
        raise ValueError(
            f"{name} has y of shape {shape}, but must have one-hot rows (n, {outputs}){hint}"
        )
    return y.reshape(shape[0], outputs) if hasattr(y, "reshape") else np.reshape(y, shape[:2])


def _check(name: str, which: str, values: Sequence[Any], shape: tuple[int, ...], form: str) -> None:
    """Raise `ValueError` unless all values have the given shape."""
    if set(map(np.shape, values)) != {shape}:
        i, came = next((i, v) for i, v in enumerate(values) if np.shape(v) != shape)
        what = f"shape {np.shape(came)}" if np.shape(came) else f"the single number {came}"
        raise ValueError(f"{name} has {which} of {what} in pair {i}; {form}")


def _rows(columns: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(columns).reshape(len(columns), -1)


def _pixels(columns: Sequence[NDArray[Any]], dtype: Any) -> NDArray[Any]:
    """Return the columns as rows, and as bytes if they are bytes divided by 255.

    A network scales bytes by 1/255 itself, and a mini-batch of them is an eighth of the size in
    float64. Dividing them again shows whether the conversion is exact.
    """
    kind = np.result_type(*{column.dtype for column in columns})
    if kind.kind != "f" or kind.itemsize < np.dtype(dtype).itemsize:
        rows = _rows(columns)
        return rows.astype(dtype) if rows.dtype == np.uint8 else rows  # as numbers, not as pixels
    pixels = np.empty((len(columns), columns[0].size), np.uint8)
    for start in range(0, len(columns), _BLOCK):
        block = _rows(columns[start : start + _BLOCK]).astype(kind, copy=False)
        into = pixels[start : start + _BLOCK]
        with np.errstate(invalid="ignore", over="ignore"):
            np.copyto(into, np.rint(block * 255), "unsafe")
        if not (into / kind.type(255) == block).all():
            return _rows(columns)
    return pixels
