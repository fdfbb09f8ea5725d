"""Files of digits, as arrays of the host."""

from ._digits import digits
from ._mnist import mnist

__all__ = ["digits", "mnist"]
