"""Validation of arguments; errors say what was given and what is expected."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def number(
    argument: str,
    value: Any,
    wanted: str,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    below: float = math.inf,
    most: float = math.inf,
) -> float:
    """Return a finite real ``value`` as a float, if it is within all bounds.

    The bounds are ``above < value < below`` and ``least ≤ value ≤ most``.

    Raises `ValueError`: ``argument`` is …, but must be ``wanted``.
    """
    if isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool):
        try:
            result = float(value)
        except OverflowError:
            result = math.inf
        if math.isfinite(result) and above < result < below and least <= result <= most:
            return result
    raise ValueError(f"{argument} is {value!r}, but must be {wanted}")


def not_negative(argument: str, value: Any) -> float:
    """Return a finite ``value`` of at least 0 as a float, or raise `ValueError`."""
    return number(argument, value, "a number of at least 0", least=0)


def share(argument: str, value: Any) -> float:
    """Return a ``value`` of at least 0 and less than 1 as a float, or raise `ValueError`."""
    return number(argument, value, "a number of at least 0 and less than 1", least=0, below=1)


def positive(argument: str, value: Any) -> float:
    """Return a positive, finite ``value`` as a float, or raise `ValueError`."""
    return number(argument, value, "a positive number", above=0)


def whole(argument: str, value: Any, least: int = 1) -> int:
    """Return an integer ``value`` of at least ``least``, or raise `ValueError`."""
    if isinstance(value, int | np.integer) and not isinstance(value, bool) and value >= least:
        return int(value)
    raise ValueError(f"{argument} is {value!r}, but must be a whole number of at least {least}")


def truth(argument: str, value: Any) -> bool:
    """Return True or False, or raise `ValueError` for anything else."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    raise ValueError(f"{argument} is {value!r}, but must be True or False")


def counted(count: int, noun: str) -> str:
    """Return a number of things in words: "1 row", "2 rows"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
