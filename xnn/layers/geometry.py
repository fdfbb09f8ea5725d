"""Windows from users' arguments."""

from __future__ import annotations

from typing import Any

from .. import checks
from ..backends import Window
from ..parameters import Shape
from .base import shown

#: ``"valid"``, ``"same"``, a number of pixels, or a pair (above and below, left and right).
Padding = str | int | tuple[int, int]


def pair(name: str, given: Any, least: int = 1) -> tuple[int, int]:
    """Return a number, or a pair of numbers, as a pair. Raises `ValueError` for anything else."""
    if isinstance(given, tuple | list):
        if len(given) != 2:
            raise ValueError(f"{name} is {given!r}, but must be a number or a pair of numbers")
        down, across = (checks.whole(name, number, least=least) for number in given)
        return down, across
    number = checks.whole(name, given, least=least)
    return number, number


def window(
    size: Any, stride: Any, padding: Any, dilation: Any = 1, name: str = "kernel_size"
) -> Window:
    """Return the window that a layer's arguments describe. Raises `ValueError` if invalid."""
    bare = Window(pair(name, size), pair("stride", stride), pair("dilation", dilation))
    if isinstance(padding, str):
        if padding not in ("valid", "same"):
            raise ValueError(
                f"padding is {padding!r}, but must be 'valid', 'same', a number or a pair"
            )
        total = [(bare.extent(axis) - 1) * (padding == "same") for axis in (0, 1)]
        around = tuple((n // 2, n - n // 2) for n in total)
    else:
        around = tuple((n, n) for n in pair("padding", padding, least=0))
    return Window(bare.size, bare.stride, bare.dilation, around)  # type: ignore[arg-type]


def fitting(window: Window, inputs: Shape, what: str) -> tuple[int, int]:
    """Return height and width of the outputs. Raises `ValueError` if the window does not fit."""
    counts = window.counts(inputs[0], inputs[1])
    if min(counts) < 1:
        spans = shown((window.extent(0), window.extent(1)))
        raise ValueError(
            f"{what}'s window spans {spans} pixels, but the images are {shown(inputs)}"
        )
    return counts
