"""Pictures of digits, converted to images like MNIST's.

MNIST's digits were scaled to fit a box of 20 × 20 pixels, keeping their aspect ratio, and placed on
28 × 28 pixels with their centre of mass in the middle; ink is bright (yann.lecun.com/exdb/mnist).
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIDE = 28
_BOX = 20
_INK = 0.25  # of the darkest ink: anything less is paper and its grain
_MOST = 50_000_000  # pixels


def digit(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Return the digit in a picture as ``(28, 28)``, with bright ink whatever the paper.

    Raises `ImportError` if Pillow is not installed, `ValueError`, naming the file, if it is not a
    picture or is blank, `OSError` if it cannot be read.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise ImportError("reading pictures needs Pillow: pip install pillow") from None
    name = os.fsdecode(path)
    with open(path, "rb") as file:  # an OSError from here on is due to its contents
        try:
            with Image.open(file) as picture:
                if picture.width * picture.height > _MOST:
                    raise ValueError(f"{picture.width} × {picture.height} pixels are too many")
                light = _light(ImageOps.exif_transpose(picture))  # upright
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(f"{name}: not a picture that can be read: {error}") from None
    return _fitted(_ink(light, name), Image)


def _light(picture: Any) -> NDArray[np.float64]:
    """Return the lightness of each pixel, from 0 to 1; transparent pixels are white paper."""
    picture = picture.convert("RGBA")
    paper = picture.copy()
    paper.paste((255, 255, 255, 255), (0, 0, *picture.size))
    paper.alpha_composite(picture)
    return np.asarray(paper.convert("L"), np.float64) / 255


def _ink(light: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    """Return the bounding box of the ink, from 0 (paper) to 1. The picture's edge is paper."""
    edge = np.concatenate([light[0], light[-1], light[:, 0], light[:, -1]])
    ink = light - np.median(edge)
    if -ink.min() > ink.max():  # dark on light
        ink = -ink
    most = ink.max()
    if most < 0.1:
        raise ValueError(f"{name}: no digit found in this picture")
    ink = np.clip(ink / most, 0, 1)
    rows, columns = (np.flatnonzero((ink > _INK).any(axis)) for axis in (1, 0))
    box = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.where(box > _INK / 2, box, 0)


def _fitted(ink: NDArray[np.float64], image: Any) -> NDArray[np.uint8]:
    """Return the ink scaled to the box, with its centre of mass in the middle of the image."""
    height, width = ink.shape
    scale = _BOX / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = np.asarray(
        image.fromarray(ink.astype(np.float32)).resize(size, image.Resampling.BILINEAR)
    )
    small = small / small.max()
    starts = []
    for axis in (0, 1):
        mass = small.sum(1 - axis)
        middle = (mass * np.arange(len(mass))).sum() / mass.sum()
        starts.append(int(np.clip(round(SIDE / 2 - middle), 0, SIDE - len(mass))))
    result = np.zeros((SIDE, SIDE), np.uint8)
    down, across = starts
    result[down : down + size[1], across : across + size[0]] = np.rint(255 * small)
    return result
