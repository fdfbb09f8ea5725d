"""The base class of pooling layers."""

from __future__ import annotations

from functools import cached_property

from ..backends import Window
from ..parameters import Shape
from . import geometry
from .base import Layer, image
from .geometry import Padding, fitting, pair


class Pool2D(Layer):
    """Reduces each window to one pixel, channel by channel."""

    size: int | tuple[int, int]
    stride: int | tuple[int, int] | None
    padding: Padding

    def __post_init__(self) -> None:
        made = self.window
        if any(2 * n > size for n, size in zip(map(max, made.padding), made.size, strict=True)):
            raise ValueError(
                f"padding is {self.padding!r}, but must be at most half of size, {self.size!r}"
            )

    @cached_property
    def window(self) -> Window:
        """The window that the arguments describe."""
        stride = self.size if self.stride is None else self.stride
        return geometry.window(pair("size", self.size), stride, self.padding)

    def outputs(self, inputs: Shape) -> Shape:
        name = type(self).__name__
        return (*fitting(self.window, inputs, name), image(inputs, name)[2])
