"""Windows over images on the CPU, as NumPy calls that write into preallocated arrays.

Each function yields calls, as `Backend.compile` records them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from .base import Array, Call
from .windows import Window

Scratch = Callable[[tuple[int, ...], Any], Array]


def unfold(x: Array, out: Array, window: Window, scratch: Scratch) -> Iterator[Call]:
    """``out[place] ← the window's pixels there``; see `Backend.unfold`."""
    n, height, width, channels = x.shape
    down, across = window.counts(height, width)
    (top, bottom), (left, right) = window.padding
    if top or bottom or left or right:
        room = scratch((n, height + top + bottom, width + left + right, channels), x.dtype)
        yield np.copyto, (room[:, top : top + height, left : left + width], x)
        x = room
    s, r, c, k = x.strides
    (high, wide), (step_r, step_c), (gap_r, gap_c) = window.size, window.stride, window.dilation
    windows = as_strided(
        x,
        (n, down, across, high, wide, channels),
        (s, r * step_r, c * step_c, r * gap_r, c * gap_c, k),
        writeable=False,
    )
    yield np.copyto, (_places(out, windows.shape), windows)


def fold(columns: Array, out: Array, window: Window) -> Iterator[Call]:
    """``out ← sum over places of what lies on each pixel``; see `Backend.fold`."""
    n, height, width, channels = out.shape
    down, across = window.counts(height, width)
    places = _places(columns, (n, down, across, *window.size, channels))
    yield out.fill, (0,)
    if window.dilation[1] == 1 and out.strides[2] == channels * out.itemsize:
        # A row of the window covers adjacent pixels: they are added in one go.
        for i in range(window.size[0]):
            rows, at = window.meets(0, i, height)
            for k in range(across):
                left = k * window.stride[1] - window.padding[1][0]
                first, stop = max(0, -left), min(window.size[1], width - left)
                if first < stop:
                    pixels = out[:, rows, left + first : left + stop]
                    yield np.add, (pixels, places[:, at, k, i, first:stop], pixels)
        return
    for i, j, inside, place in _meetings(window, height, width):
        pixels = out[inside]
        yield np.add, (pixels, places[place][:, :, :, i, j], pixels)


def max_pool(
    x: Array, out: Array, index: Array, window: Window, scratch: Scratch
) -> Iterator[Call]:
    """``out ← the largest of each window``, ``index`` which; see `Backend.max_pool`."""
    greater, mine = scratch(out.shape, np.bool_), scratch(out.shape, index.dtype)
    yield index.fill, (0,)
    meetings = _meetings(window, *x.shape[1:3])
    if _covers(meetings[0][3], out):
        yield np.copyto, (out, x[meetings[0][2]])
        del meetings[0]
    else:
        yield out.fill, (-np.inf,)
    for i, j, inside, place in meetings:
        number = np.array(i * window.size[1] + j, index.dtype)
        pixels, best, is_greater = x[inside], out[place], greater[place]
        yield np.greater, (pixels, best, is_greater)
        yield _maximum, (pixels, best, best)
        # The numbers increase, so the largest of those that won is the last.
        yield np.multiply, (is_greater, number, mine[place])
        yield _maximum, (index[place], mine[place], index[place])


def max_pool_backward(
    delta: Array, index: Array, out: Array, window: Window, scratch: Scratch
) -> Iterator[Call]:
    """``out ← delta where each largest came from``; see `Backend.max_pool_backward`."""
    chosen = scratch(delta.shape, np.bool_)
    apart = all(window.stride[a] >= window.extent(a) for a in (0, 1))
    part = None if apart else scratch(delta.shape, delta.dtype)
    yield out.fill, (0,)
    for i, j, inside, place in _meetings(window, *out.shape[1:3]):
        number = np.array(i * window.size[1] + j, index.dtype)
        pixels, mine = out[inside], chosen[place]
        yield np.equal, (index[place], number, mine)
        if part is None:
            yield np.multiply, (delta[place], mine, pixels)
        else:
            yield np.multiply, (delta[place], mine, part[place])
            yield np.add, (pixels, part[place], pixels)


def sum_pool(x: Array, out: Array, window: Window) -> Iterator[Call]:
    """``out ← the sum of each window``; see `Backend.sum_pool`."""
    if window == Window(x.shape[1:3]):
        yield np.add.reduce, (x, (1, 2), None, out, True)
        return
    yield out.fill, (0,)
    for _, _, inside, place in _meetings(window, *x.shape[1:3]):
        yield np.add, (out[place], x[inside], out[place])


def sum_pool_backward(delta: Array, out: Array, window: Window) -> Iterator[Call]:
    """``out ← the sum of delta over a pixel's windows``; see `Backend.sum_pool_backward`."""
    yield out.fill, (0,)
    for _, _, inside, place in _meetings(window, *out.shape[1:3]):
        yield np.add, (out[inside], delta[place], out[inside])


def resample(x: Array, rows: Array, columns: Array, out: Array, scratch: Scratch) -> Iterator[Call]:
    """``out[pixel] ← x`` interpolated between four pixels; see `Backend.resample`."""
    n, height, width, channels = x.shape
    high, wide = height + 2, width + 2  # with a border of zeros, to which all outside is clamped
    room = scratch((n, high, wide, channels), x.dtype)
    yield np.copyto, (room[:, 1:-1, 1:-1], x)
    shape = rows.shape
    low, parts, whole = [], [], scratch(shape, np.float64)
    for places, length in ((rows, height), (columns, width)):
        part, first = scratch(shape, x.dtype), scratch(shape, np.intp)
        # The position, counted from the border, and clamped to have a neighbour on either side.
        yield np.add, (places, x.dtype.type(1), part)
        yield _maximum, (part, x.dtype.type(0), part)
        yield _minimum, (part, x.dtype.type(length + 1), part)
        yield np.floor, (part, whole)
        yield np.subtract, (part, whole, part)
        yield np.copyto, (first, whole, "unsafe")
        low.append(first)
        parts.append(part)
    (row, column), (down, across) = low, parts
    yield np.multiply, (row, wide, row)
    yield np.add, (row, column, row)
    yield np.add, (row, np.arange(n)[:, None] * (high * wide), row)
    pixels = room.reshape(-1, channels)
    corner, weight = scratch((*shape, channels), x.dtype), scratch(shape, x.dtype)
    total, one = out.reshape(*shape, channels), x.dtype.type(1)
    yield total.fill, (0,)
    for step, right, below in ((0, 0, 0), (1, 1, 0), (wide - 1, 0, 1), (1, 1, 1)):
        # In turn the pixel, the one right of it, the one below it, and the one right of that.
        yield np.add, (row, step, row)
        yield pixels.take, (row, 0, corner, "clip")
        yield (np.copyto, (weight, across)) if right else (np.subtract, (one, across, weight))
        yield np.multiply, (corner, weight[:, :, None], corner)
        yield (np.copyto, (weight, down)) if below else (np.subtract, (one, down, weight))
        yield np.multiply, (corner, weight[:, :, None], corner)
        yield np.add, (total, corner, total)


_Slices = tuple[slice, slice, slice]


def _meetings(window: Window, height: int, width: int) -> list[tuple[int, int, _Slices, _Slices]]:
    """Return for each pixel of the window which pixels it meets, and from which places."""
    every = slice(None)
    return [
        (i, j, (every, rows, columns), (every, down, across))
        for i in range(window.size[0])
        for j in range(window.size[1])
        for rows, down in [window.meets(0, i, height)]
        for columns, across in [window.meets(1, j, width)]
    ]


def _places(columns: Array, shape: tuple[int, ...]) -> Array:
    """Return rows of windows as ``(n, down, across, height, width, channels)``, a view."""
    _, down, across, _, wide, channels = shape
    row, item = columns.strides
    strides = (
        down * across * row,
        across * row,
        row,
        wide * channels * item,
        channels * item,
        item,
    )
    return as_strided(columns, shape, strides)


def _covers(place: _Slices, out: Array) -> bool:
    return bool(out[place].shape == out.shape)


def _maximum(a: Array, b: Array, out: Array) -> None:
    # Its third positional argument is deprecated in NumPy 2.4.
    np.maximum(a, b, out=out)


def _minimum(a: Array, b: Array, out: Array) -> None:
    np.minimum(a, b, out=out)
