"""The kinds of layers."""

from __future__ import annotations

from typing import Any

from .activation import Activation
from .augmentation import Augmentation
from .average_pool2d import AveragePool2D
from .base import Gradient, Layer, Meeting, Memory, Site, shown
from .batch_norm import BatchNorm
from .conv2d import Conv2D
from .dense import Dense
from .dropout import Dropout
from .elastic import ElasticTransform
from .flatten import Flatten
from .global_average_pool2d import GlobalAveragePool2D
from .max_pool2d import MaxPool2D
from .random_affine import RandomAffine
from .random_erasing import RandomErasing
from .reshape import Reshape

__all__ = [
    "Activation",
    "Augmentation",
    "AveragePool2D",
    "BatchNorm",
    "Conv2D",
    "Dense",
    "Dropout",
    "ElasticTransform",
    "Flatten",
    "GlobalAveragePool2D",
    "Gradient",
    "Layer",
    "MaxPool2D",
    "Meeting",
    "Memory",
    "RandomAffine",
    "RandomErasing",
    "Reshape",
    "Site",
    "from_description",
    "shown",
]

_KINDS: dict[str, type[Layer]] = {
    kind.__name__.lower(): kind
    for kind in (
        Activation,
        AveragePool2D,
        BatchNorm,
        Conv2D,
        Dense,
        Dropout,
        ElasticTransform,
        Flatten,
        GlobalAveragePool2D,
        MaxPool2D,
        RandomAffine,
        RandomErasing,
        Reshape,
    )
}


# Arguments renamed since older files were written.
_NOW = {"kernel": "kernel_size", "epsilon": "eps"}


def from_description(description: dict[str, Any]) -> Layer:
    """Return the layer that `Layer.describe` described.

    Raises `ValueError` if the description is invalid.
    """
    try:
        fields: dict[str, Any] = {
            _NOW.get(name, name): tuple(value) if isinstance(value, list) else value
            for name, value in description.items()
        }
        return _KINDS[fields.pop("kind")](**fields)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"no layer is described by {description!r}: {error}") from None
