"""Where the windows of a convolution or pooling lie on images."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """A window that moves over images ``(n, height, width, channels)``; pairs: down, across."""

    size: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    #: Rows of padding above and below, then columns left and right.
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))

    def extent(self, axis: int) -> int:
        """Return how many pixels the window spans along an axis."""
        return (self.size[axis] - 1) * self.dilation[axis] + 1

    def count(self, axis: int, length: int) -> int:
        """Return how many places the window has along an axis of ``length`` pixels."""
        return (length + sum(self.padding[axis]) - self.extent(axis)) // self.stride[axis] + 1

    def counts(self, height: int, width: int) -> tuple[int, int]:
        """Return how many places the window has, down and across."""
        return self.count(0, height), self.count(1, width)

    def meets(self, axis: int, offset: int, length: int) -> tuple[slice, slice]:
        """Return which pixels one row or column of the window meets, and from which places.

        Both slices have the same length; what meets padding is left out.
        """
        stride = self.stride[axis]
        shift = offset * self.dilation[axis] - self.padding[axis][0]
        first = max(0, -(shift // stride))
        last = min(self.count(axis, length) - 1, (length - 1 - shift) // stride)
        if last < first:
            return slice(0, 0), slice(0, 0)
        begin = first * stride + shift
        return slice(begin, last * stride + shift + 1, stride), slice(first, last + 1)
