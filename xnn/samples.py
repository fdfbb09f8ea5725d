"""Samples from users: checked, and prepared for a device.

``uint8`` inputs are pixels: they are kept as they are and scaled by 1/255 batch by batch. All other
real dtypes are used unscaled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from . import checks
from .activations import Activation
from .backends import Array, Backend, DeviceError
from .costs import Cost
from .parameters import Shape

#: How answers are scored: by the largest output, by the side of ½ an output is on, or not at all.
Scoring = Literal["argmax", "threshold"] | None

_BLOCK = 1 << 18  # elements checked at a time: few enough to stay in a cache
_FIRST = 256  # samples from which to guess the kind of all numbers


@dataclass(frozen=True)
class Samples:
    """Inputs and targets, as arrays on the host or on a device."""

    x: Any  # (n, inputs), of any real dtype
    labels: Any | None  # (n,) class numbers, or
    values: Any | None  # (n, outputs) one target per output
    scoring: Scoring
    weights: Any | None = None  # (n,); None if all are 1

    def __len__(self) -> int:
        return len(self.x)

    def arrays(self) -> dict[str, Any]:
        """Return the arrays that are not None, by name."""
        named = {
            "x": self.x,
            "labels": self.labels,
            "values": self.values,
            "weights": self.weights,
        }
        return {name: array for name, array in named.items() if array is not None}

    def __getitem__(self, rows: slice) -> Samples:
        """Return some of the samples, as views."""
        return replace(self, **{name: array[rows] for name, array in self.arrays().items()})

    @property
    def on_host(self) -> bool:
        """Whether the inputs are on the host, not on a device."""
        return isinstance(self.x, np.ndarray | SparseRows)

    @property
    def nbytes(self) -> int:
        """The size of the arrays in bytes."""
        return sum(int(array.nbytes) for array in self.arrays().values())

    def kind(self) -> Any:
        """Return their scoring, and the names, shapes and dtypes of their arrays."""
        arrays = self.arrays().items()
        return self.scoring, *((name, array.shape, array.dtype) for name, array in arrays)

    def none(self) -> Samples:
        """Return zero samples of the same kind, which keep nothing alive."""
        empty: dict[str, Any] = {
            name: np.empty((0, *array.shape[1:]), array.dtype)
            for name, array in self.arrays().items()
        }
        return replace(self, **empty)


class SparseRows:
    """A sparse matrix on the host, ``(n, inputs)``, whose rows become dense on access.

    ``matrix`` is a SciPy matrix or array in CSR format.
    """

    ndim = 2

    def __init__(self, matrix: Any) -> None:
        self.matrix = matrix
        self.shape: tuple[int, int] = matrix.shape
        self.dtype = matrix.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        """Return dense rows, selected by a slice or an array of indices."""
        dense: NDArray[Any] = self.matrix[rows].toarray()
        return dense

    def take(self, rows: NDArray[np.intp], axis: int, out: NDArray[Any], mode: str) -> None:
        """Write rows to ``out``; `numpy.take` calls this."""
        self.matrix[rows].toarray(out=out)


def scale(dtype: Any) -> float:
    """Return the factor for inputs of this dtype: 1/255 for bytes."""
    return 1 / 255 if dtype == np.uint8 else 1.0


def check_samples(
    backend: Backend,
    x: Any,
    y: Any,
    shapes: tuple[Shape, Shape],
    activation: Activation,
    cost: Cost,
    dtype: Any,
    names: tuple[str, str] = ("x", "y"),
) -> Samples:
    """Return inputs and targets checked against each other and the network.

    ``shapes`` are those of a sample before the network's first layer and after its last, ``dtype``
    is the network's, ``activation`` that of its last layer.
    Arrays on the network's device stay there; targets are checked in a copy on the host.
    Raises `ValueError`, which names the argument, what was given and what is expected.
    """
    inputs, outputs = shapes[0], prod(shapes[1])
    x = check_inputs(backend, x, inputs, dtype, names[0])
    if len(x) == 0:
        raise ValueError(f"{names[0]} is empty, but must hold at least one sample")
    y_name = names[1]
    given = _array(backend, y, y_name)
    y = backend.host(given)
    if y.ndim == 0 or len(y) != len(x):
        came = checks.counted(len(y), "row") if y.ndim else "a single number"
        raise ValueError(
            f"{y_name} has {came}, but {names[0]} has {len(x)}: give one target per sample"
        )
    if outputs > 1 and y.ndim == 1:
        _check_labels(y, outputs, y_name)
        return Samples(x, given, None, "argmax")
    values = _target_rows(y, shapes[1], y_name)
    _check_finite(backend, values, dtype, y_name)
    if cost.distribution and abs(sums := values.sum(axis=1, dtype=np.float64) - 1).max() > 1e-3:
        row = int(abs(sums).argmax())
        raise ValueError(
            f"{y_name} has numbers that add up to {sums[row] + 1:g} in row {row}, "
            f"but cost {cost.name} needs rows that add up to 1"
        )
    check_range(values, cost, y_name)
    return Samples(x, None, given.reshape(values.shape), _scoring(values, activation))


def _target_rows(y: NDArray[Any], shape: Shape, name: str) -> NDArray[Any]:
    """Return targets as rows ``(n, outputs)``, for outputs of the given shape.

    Targets of image outputs must have that shape or be rows already; others are flattened to rows.
    """
    outputs = prod(shape)
    ordered = len(shape) == 1 or y.ndim == 1 or y.shape[1:] in _forms(shape)
    if prod(y.shape[1:]) != outputs or not ordered:
        told = f"{'numbers' if outputs == 1 else 'labels'} (n,) or rows (n, {outputs})"
        if len(shape) > 1:
            told += f" or images (n, {', '.join(map(str, shape))})"
        has = checks.counted(outputs, "output")
        raise ValueError(f"{name} has shape {y.shape}, but the network has {has}: give {told}")
    return y.reshape(len(y), outputs)


def advice(backend: Backend, samples: Samples, activation: Activation) -> Iterator[str]:
    """Yield warnings about samples that are valid but would train badly."""
    first = backend.host(samples.x[:_FIRST])
    whole = first.dtype != np.uint8 and (first == np.floor(first)).all()
    if whole and first.min() == 0 and first.max() == 255:
        yield (
            f"x has pixels from 0 to 255 as {first.dtype}, too large to learn from: pass them as "
            "uint8, which is scaled to 0…1, or divide by 255"
        )
    if first.dtype == np.uint8 and first.max() == 1:
        yield (
            "x is uint8 and has only 0 and 1: bytes are taken as pixels and divided by 255; "
            "if these are not pixels, pass x.astype('float32')"
        )
    if samples.values is not None:
        values = backend.host(samples.values)
        low, high = values.min(), values.max()
        if low < activation.least or high > activation.most:
            yield (
                f"y has values from {low:g} to {high:g}, which the last layer's {activation.name} "
                "cannot give"
            )
        elif first.dtype == values.dtype == np.uint8 and values.shape[1] > 1 and high > 1:
            yield (
                f"y has bytes up to {high}, which are not scaled, while those of x are scaled to "
                "0…1: divide y by 255 for the same scale"
            )


def check_inputs(
    backend: Backend, x: Any, shape: Shape, dtype: Any, name: str = "x", finite: bool = True
) -> Any:
    """Return ``x`` as an array ``(n, inputs)`` on host or device; arrays are not copied.

    ``shape`` is that of a sample before the network's first layer. Images ``(height, width,
    channels)`` may also come as rows ``(n, inputs)``, and a single channel may be omitted. For
    vector inputs, samples with more dimensions are flattened to rows.
    Raises `ValueError` if ``x`` is not real numbers of a fitting shape, or, with ``finite``, not
    finite.
    """
    x, inputs = _array(backend, x, name), prod(shape)
    if len(shape) > 1:
        _check_images(x, shape, name)
    elif x.ndim == 1:
        hint = f"; a batch comes first: {name}[None]" if len(x) == inputs else ""
        raise ValueError(
            f"{name} has shape {x.shape}, but must have shape (samples, {inputs}){hint}"
        )
    elif x.ndim == 0 or (found := int(np.prod(x.shape[1:]))) != inputs:
        each = f", {checks.counted(found, 'number')} per sample" if x.ndim else ""
        has = checks.counted(inputs, "input")
        raise ValueError(f"{name} has shape {x.shape}{each}, but the network has {has}")
    if finite:
        _check_finite(backend, x, dtype, name)
    return x.reshape(len(x), inputs)


def check_range(values: NDArray[Any], cost: Cost, name: str = "y") -> None:
    """Raise `ValueError` if targets lie outside the range of a cost."""
    low, high = values.min(), values.max()
    if low < cost.least or high > cost.most:
        wanted = f"{cost.least:g} to {cost.most:g}"
        if np.isinf(cost.most):
            wanted = f"at least {cost.least:g}"
        raise ValueError(
            f"{name} has values from {low:g} to {high:g}, but cost {cost.name} needs {wanted}"
        )


def _check_images(x: Array, shape: Shape, name: str) -> None:
    """Raise `ValueError` unless ``x`` has images of ``shape``: another order would be scrambled."""
    height, width, channels = shape
    fitting = _forms(shape)
    if x.ndim and x.shape[1:] in fitting:
        return
    hint = ""
    if x.shape[1:] == (channels, height, width):
        hint = f"; channels come last: np.moveaxis({name}, 1, 3)"
    elif x.shape in fitting:
        hint = f"; a batch comes first: {name}[None]"
    wanted = " or ".join(f"(n, {', '.join(map(str, form))})" for form in fitting)
    raise ValueError(f"{name} has shape {x.shape}, but must have shape {wanted}{hint}")


def _forms(shape: Shape) -> list[Shape]:
    """Return the shapes an image may have: flat, without its single channel, or in full."""
    return [(prod(shape),), *([shape[:2]] if shape[2] == 1 else []), shape]


def check_weights(
    backend: Backend,
    samples: Samples,
    sample_weight: Any,
    class_weight: Any,
    outputs: int,
    dtype: Any,
    name: str = "sample_weight",
) -> Samples:
    """Return samples with weights: the product of sample and class weights, as far as given.

    ``class_weight`` is a mapping of classes to weights, 1 for classes not named; or ``"balanced"``:
    of n samples, each of the m of a class weighs n / (classes · m). Raises `ValueError` for
    anything else, and for weights that are negative or not finite.
    """
    n, weights = len(samples), None
    if sample_weight is not None:
        weights = backend.host(_array(backend, sample_weight, name))
        if weights.shape != (n,):
            raise ValueError(f"{name} has shape {weights.shape}, but must have shape ({n},)")
        _check_finite(backend, weights, dtype, name)
        if weights.min() < 0:
            raise ValueError(f"{name} has {weights.min():g}, but must not be negative")
        if not weights.astype(dtype).any():
            raise ValueError(f"{name} is 0 for all samples, but must be positive for some")
    if class_weight is not None:
        known = classes(backend, samples)
        if known is None:
            raise ValueError("class_weight is given, but the targets are not classes")
        each = _class_weights(class_weight, known, max(2, outputs))[known]
        weights = each if weights is None else weights * each
    return samples if weights is None else replace(samples, weights=weights.astype(dtype))


def classes(backend: Backend, samples: Samples) -> NDArray[Any] | None:
    """Return each sample's class number ``(n,)``; None if targets are not classes."""
    if samples.scoring is None:
        return None
    targets = samples.values if samples.labels is None else samples.labels
    host = backend.host(targets)
    if samples.labels is not None:
        return np.asarray(host, np.intp)
    if samples.scoring == "argmax":
        return np.asarray(host.argmax(axis=1))
    return np.asarray(host[:, 0] > 0.5, np.intp)


def _class_weights(given: Any, classes: NDArray[Any], count: int) -> NDArray[np.float64]:
    """Return the weight of each of ``count`` classes."""
    weights = np.ones(count)
    if isinstance(given, str) and given == "balanced":
        found = np.bincount(classes, minlength=count)
        there = found > 0
        weights[there] = len(classes) / (there.sum() * found[there])
    elif isinstance(given, Mapping):
        for name, weight in given.items():
            which = checks.whole("class_weight's classes", name, least=0)
            if which >= count:
                raise ValueError(f"class_weight has class {which}, but there are {count} classes")
            weights[which] = checks.not_negative(f"class_weight[{which}]", weight)
    else:
        raise ValueError(
            f"class_weight is {given!r}, but must be 'balanced' or a mapping of classes to weights"
        )
    return weights


def _array(backend: Backend, values: Any, name: str) -> Array:
    """Return ``values`` as an array: on the device if it is there, else on the host."""
    try:
        array = backend.adopt(values)
        if array is None:
            array = np.asarray(values) if _finite_length(values) else np.empty((), object)
    except DeviceError:
        raise
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        # Rows of different lengths, a tensor that cannot be converted, …
        why = str(error).splitlines()[0]
        raise ValueError(
            f"{name} is not an array of numbers and cannot be converted to one: {why}"
        ) from None
    if np.ma.is_masked(values):
        raise ValueError(f"{name} has masked elements, but must have none")
    if array.dtype.kind not in "buif":
        if not array.ndim:  # it could not be converted
            hint = f": {name}.toarray()" if hasattr(values, "toarray") else ""
            what = f"a {type(values).__name__}" if values is not None else None
            raise ValueError(f"{name} is {what}, but must be an array of numbers{hint}")
        hint = "; labels are the whole numbers 0, 1, 2, …" if name.startswith("y") else ""
        raise ValueError(f"{name} has dtype {array.dtype}, but must hold real numbers{hint}")
    return array


def _finite_length(values: Any) -> bool:
    """Return whether NumPy can convert a value without indexing its items one by one.

    It would index until an `IndexError`, which data sets that generate items may never raise.
    """
    if not hasattr(values, "__getitem__") or isinstance(values, Sequence | Mapping):
        return True
    protocols = ("__array__", "__array_interface__", "__array_struct__", "__dlpack__")
    if any(hasattr(values, name) for name in protocols):
        return True
    try:
        memoryview(values)
    except TypeError:
        return False
    return True


def _check_finite(backend: Backend, array: Array, dtype: Any, name: str) -> None:
    """Raise `ValueError` for what is not finite, or would not be as ``dtype``."""
    if array.dtype.kind != "f":
        return
    most = np.finfo(dtype).max
    if not isinstance(array, np.ndarray):
        if backend.finite(array, float(most)):
            return
        array = backend.download(array)  # to say where
    rows = max(1, _BLOCK // max(1, array[0].size)) if len(array) else 1
    for start in range(0, len(array), rows):
        block = array[start : start + rows]
        if not (-most <= block.min() and block.max() <= most):  # true for NaN too
            at = tuple(np.argwhere(~(np.abs(block) <= most))[0])
            row, value = start + int(at[0]), float(block[at])
            what = f"{value:g}, too large for {dtype}," if np.isfinite(value) else "NaN or infinity"
            raise ValueError(f"{name} has {what} in row {row}, but must be finite numbers")


def _check_labels(y: NDArray[Any], outputs: int, name: str) -> None:
    if y.dtype.kind not in "uib":
        raise ValueError(
            f"{name} has shape {y.shape} and dtype {y.dtype}, "
            f"but the network has {checks.counted(outputs, 'output')}: "
            f"give labels as integers from 0 to {outputs - 1}, or rows of {outputs} numbers"
        )
    low, high = int(y.min()), int(y.max())
    if low < 0:
        raise ValueError(f"{name} has labels down to {low}, but they count from 0")
    if high >= outputs:
        has = checks.counted(outputs, "output")
        raise ValueError(f"{name} has labels up to {high}, but the network has {has}")


def _scoring(values: NDArray[Any], activation: Activation) -> Scoring:
    """Distinguish rows that encode a class from regression values."""
    if values.shape[1] == 1:
        yes_or_no = activation.name == "sigmoid" and np.isin(values, (0, 1)).all()
        return "threshold" if yes_or_no else None
    one_hot = (np.count_nonzero(values, axis=1) == 1).all() and (values.max(axis=1) == 1).all()
    return "argmax" if one_hot else None
