"""The kinds of layers."""

from __future__ import annotations

from typing import Any

from .base import Gradient, Layer, Memory
from .dense import Dense

__all__ = ["Dense", "Gradient", "Layer", "Memory", "from_description"]

_KINDS = {"dense": Dense}


def from_description(description: dict[str, Any]) -> Layer:
    """Return the layer that `Layer.describe` described.

    Raises `ValueError` where it describes none.
    """
    try:
        fields = dict(description)
        return _KINDS[fields.pop("kind")](**fields)
    except (KeyError, TypeError) as error:
        raise ValueError(f"no layer is described by {description!r}: {error}") from None
