"""Data sets of handwritten digits, as NumPy arrays."""

from ._digits import digits
from ._mnist import mnist

__all__ = ["digits", "mnist"]
