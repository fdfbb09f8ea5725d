"""The book's ``expand_mnist.py``: MNIST's training images, also shifted by a pixel four ways.

``python -m xnn.book.expand_mnist`` writes the book's file, ``../data/mnist_expanded.pkl.gz``, or
the file given; `expand` makes the same images in memory.
"""

from __future__ import annotations

import gzip
import os
import pickle
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import saving
from .mnist_loader import load_data

__all__ = ["expand", "write"]

_PATH = "../data/mnist_expanded.pkl.gz"
_SIDE = 28


def expand(x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return images ``(5 n, 784)`` and targets: each image, then shifted down, up, right and left.

    ``x`` is ``(n, 784)`` of any dtype, which is kept, and ``y`` has n entries. Pixels shifted in at
    an edge are 0.

    Raises `ValueError` for other shapes.
    """
    x, y = np.asarray(x), np.asarray(y)
    if x.shape != (len(y), _SIDE * _SIDE):
        raise ValueError(
            f"x has shape {x.shape}, but must be images ({len(y)}, {_SIDE * _SIDE}), one for each y"
        )
    images = x.reshape(-1, _SIDE, _SIDE)
    moved = np.zeros((len(x), 5, _SIDE, _SIDE), x.dtype)
    moved[:, 0] = images
    moved[:, 1, 1:] = images[:, :-1]
    moved[:, 2, :-1] = images[:, 1:]
    moved[:, 3, :, 1:] = images[:, :, :-1]
    moved[:, 4, :, :-1] = images[:, :, 1:]
    return moved.reshape(-1, _SIDE * _SIDE), np.repeat(y, 5, axis=0)


def write(path: str | os.PathLike[str] = _PATH) -> None:
    """Write MNIST with its training images expanded and shuffled, as the book's gzipped pickle.

    Images are float32 from 0 to 1; the shuffle is Python's ``random.shuffle``, as in the book.
    `xnn.datasets.mnist` reads the file. Writing it takes 2 GB of memory.

    Raises `OSError` if it cannot be written; an existing file is then left as it was.
    """
    training, *others = ((x.astype(np.float32), y) for x, y in load_data())
    x, y = expand(*training)
    order = list(range(len(x)))
    random.shuffle(order)
    data = ((x[order], y[order]), *others)
    # Level 1 is by far the fastest. Protocol 5 writes arrays without copying them.
    with saving.replacing(path) as file, gzip.GzipFile("", "wb", 1, file, 0) as zipped:
        pickle.dump(data, zipped, 5)


def main() -> None:
    """Write the file, as the book's program does."""
    path = Path(sys.argv[1] if len(sys.argv) > 1 else _PATH)
    print("Expanding the MNIST training set")
    if path.exists():
        print("The expanded training set already exists.  Exiting.")
        return
    print("Saving expanded data. This may take a few minutes.")
    write(path)


if __name__ == "__main__":
    main()
