"""Memory layouts of arrays as kernels take them: in elements, not in bytes."""

from __future__ import annotations

from .base import Array
from .windows import Window

#: The layout of images or of what lies on them: height, width and channels, then the strides of an
#: image, a row and a pixel.
Placement = tuple[int, int, int, int, int, int]


def flattened(
    shape: tuple[int, ...], arrays: list[Array]
) -> tuple[tuple[int, int], list[tuple[int, int]]]:
    """Return a shape of two axes for a kernel, and each array's strides along them, in elements.

    Arrays broadcast to ``shape``, with strides of 0. Axes are merged where no array has a gap.
    """
    each = [_strides(array, shape) for array in arrays]
    joined: list[tuple[int, list[int]]] = []  # axes from the last to the first
    for axis in reversed(range(len(shape))):
        steps = [stride[axis] for stride in each]
        if shape[axis] == 1:
            continue
        if joined and all(
            a == joined[-1][0] * b for a, b in zip(steps, joined[-1][1], strict=True)
        ):
            joined[-1] = (shape[axis] * joined[-1][0], joined[-1][1])
        else:
            joined.append((shape[axis], steps))
    if len(joined) > 2:
        raise ValueError(f"arrays of shape {shape} have gaps along too many axes")
    joined += [(1, [0] * len(arrays))] * (2 - len(joined))
    (columns, inner), (rows, outer) = joined
    return (rows, columns), list(zip(outer, inner, strict=True))


def _strides(array: Array, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides, in elements, by which ``array`` is read as ``shape``."""
    missing = len(shape) - array.ndim
    extents = (1,) * missing + array.shape
    steps = (0,) * missing + tuple(stride // array.itemsize for stride in array.strides)
    if missing < 0 or any(e not in (1, n) for e, n in zip(extents, shape, strict=True)):
        raise ValueError(f"an operand of shape {array.shape} does not broadcast to {shape}")
    return tuple(0 if e == 1 else s for e, s in zip(extents, steps, strict=True))


def placement(images: Array) -> Placement:
    """Return the layout of images; their channels must be contiguous."""
    _, height, width, channels = images.shape
    *steps, item = (stride // images.itemsize for stride in images.strides)
    if channels > 1 and item != 1:
        raise ValueError(f"images of strides {images.strides} have gaps between channels")
    return (height, width, channels, steps[0], steps[1], steps[2])


def named(window: Window, image: Placement, place: Placement) -> list[tuple[str, int]]:
    """Return a kernel's constants: of a window, images (I) and what is at its places (O)."""
    names = ("HEIGHT", "WIDTH", "CHANNELS", "IMAGE", "ROW", "PIXEL")
    return [
        *zip(("HIGH", "WIDE"), window.size, strict=True),
        *zip(("STEP_R", "STEP_C"), window.stride, strict=True),
        *zip(("GAP_R", "GAP_C"), window.dilation, strict=True),
        ("TOP", window.padding[0][0]),
        ("LEFT", window.padding[1][0]),
        *((f"I_{name}", value) for name, value in zip(names, image, strict=True)),
        *((f"O_{name}", value) for name, value in zip(names, place, strict=True)),
    ]


def row(array: Array) -> int:
    """Return the row stride of ``array`` in elements; its rows must be contiguous."""
    if array.ndim > 1 and array.shape[1] > 1 and array.strides[1] != array.itemsize:
        raise ValueError(f"strides {array.strides} are not row-major")
    return int(array.strides[0] // array.itemsize)


def by_columns(matrix: Array) -> bool:
    """Return whether neighbours in memory are neighbours in a column."""
    return bool(matrix.strides[1] != matrix.itemsize and matrix.shape[1] > 1)


def matrix(array: Array) -> tuple[int, int]:
    """Return the row and column strides of a matrix, in elements; one of the two is 1."""
    if not by_columns(array):
        return row(array), 1
    if array.shape[0] > 1 and array.strides[0] != array.itemsize:
        raise ValueError(f"strides {array.strides} are neither row-major nor column-major")
    return 1, int(array.strides[1] // array.itemsize)


def transposed(matrix: Array) -> tuple[bool, int]:
    """Return whether BLAS must transpose a matrix to get its transpose, and the leading dimension.

    BLAS is column-major: to it, a row-major array already is its transpose.
    """
    rows, columns = matrix.shape
    item = matrix.itemsize
    if matrix.strides[1] == item or columns == 1:
        turn, length, step = False, columns, matrix.strides[0] // item if rows > 1 else columns
    elif matrix.strides[0] == item or rows == 1:
        turn, length, step = True, rows, matrix.strides[1] // item if columns > 1 else rows
    else:
        raise ValueError(f"gemm: strides {matrix.strides} are neither row-major nor column-major")
    if step < length:
        raise ValueError(f"gemm: an array with strides {matrix.strides} overlaps itself")
    return turn, max(1, step)


def places(columns: Array, images: Array, window: Window) -> Placement:
    """Return the layout of `unfold`'s rows: as images of a window's pixels."""
    down, across = window.counts(*images.shape[1:3])
    row = columns.strides[0] // columns.itemsize
    return (down, across, columns.shape[1], down * across * row, across * row, row)
