"""MNIST, from local files or downloaded (LeCun, Cortes and Burges; CC BY-SA 3.0)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import checks
from . import book, idx, npz

Pair = tuple[NDArray[Any], NDArray[Any]]

_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
# The published files, in the order training images, training labels, test images, test labels.
_FILES = {
    "train-images-idx3-ubyte": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
_TIMEOUT = (10, 60)  # seconds to connect, and between two parts of a response
_MOST = 70_000
_VALIDATION = 10_000
_SIDE = 28


def mnist(
    path: str | os.PathLike[str] | None = None,
    *,
    validation: int | None = None,
    download: bool = True,
) -> tuple[Pair, ...]:
    """Return MNIST as pairs ``(x, y)``: training, validation and test.

    ``x`` is ``(n, 784)``, ``uint8`` from 0 to 255 (or ``float32`` below 1, from the book's file),
    and ``y`` holds labels 0…9, ``(n,)``. Supported files are the four IDX files (plain or
    gzipped), the ``mnist.npz`` of Keras, and the book's ``mnist.pkl.gz``; no pickle is ever
    executed.

    Parameters
    ----------
    path
        A folder with such files, or one ``.npz`` or ``.pkl.gz`` file. None searches the folder
        named by the environment variable ``XNN_DATA``, then the user's cache, and otherwise
        downloads the IDX files (11 MB) to the cache.
    validation
        The number of samples, from the end of the training set, in the validation pair. None is as
        in the book: 10,000, which leaves 50,000, or the file's own validation set, if any. 0
        returns only two pairs, training (60,000) and test.
    download
        Whether to download. Each file's SHA-256 is checked.

    Raises
    ------
    ValueError
        If a file, which the message names, is damaged or not MNIST.
    FileNotFoundError
        If no files are found.
    OSError
        If the download fails.
    """
    *training, test = _load(path, download)
    if validation is None and len(training) == 2:
        return *training, test
    x, y = (np.concatenate(parts) for parts in zip(*training, strict=True))
    count = _VALIDATION if validation is None else checks.whole("validation", validation, least=0)
    if count >= len(x):
        raise ValueError(f"validation is {count}, but there are only {len(x)} samples to train on")
    if not count:
        return (x, y), test
    split = len(x) - count
    return (x[:split], y[:split]), (x[split:], y[split:]), test


def _load(path: str | os.PathLike[str] | None, download: bool) -> list[Pair]:
    if path is not None:
        found = _find(Path(path))
        if found is None:
            raise FileNotFoundError(
                f"{os.fspath(path)}: no MNIST there; expected {', '.join(_FILES)} "
                "(plain or .gz), mnist.npz or mnist.pkl.gz"
            )
        return found
    if named := os.environ.get("XNN_DATA"):
        if not Path(named).exists():
            raise FileNotFoundError(f"{named}: no such folder, but XNN_DATA names it")
        for folder in (Path(named), Path(named, "mnist")):
            if (found := _find(folder)) is not None:
                return found
    cache = _cache()
    if (found := _find(cache)) is not None:
        return found
    if not download:
        raise FileNotFoundError(
            f"no MNIST in {cache}, and download is False; "
            "put its files there, or in a folder that XNN_DATA names"
        )
    _download(cache)
    found = _find(cache)
    assert found is not None
    return found


def _find(place: Path) -> list[Pair] | None:
    """Return the pairs in a folder or file; None if there are no files of MNIST."""
    if place.is_file():
        return _read_npz(place) if place.suffix == ".npz" else _checked(place, book.read(place))
    paths = [
        next((p for p in (place / name, place / f"{name}.gz") if p.is_file()), None)
        for name in _FILES
    ]
    complete = [p for p in paths if p is not None]
    if len(complete) == len(paths):
        pairs = []
        for images, labels in (complete[:2], complete[2:]):
            pair = idx.read(images, 3, _MOST), idx.read(labels, 1, _MOST)
            pairs += _checked(images, [pair], labels)
        return pairs
    if (place / "mnist.npz").is_file():
        return _read_npz(place / "mnist.npz")
    if (place / "mnist.pkl.gz").is_file():
        return _checked(place / "mnist.pkl.gz", book.read(place / "mnist.pkl.gz"))
    return None


def _read_npz(path: Path) -> list[Pair]:
    arrays = npz.read(path, ("x_train", "y_train", "x_test", "y_test"), _MOST)
    return _checked(path, [(arrays[0], arrays[1]), (arrays[2], arrays[3])])


def _checked(path: Path, pairs: list[Pair], labels: Path | None = None) -> list[Pair]:
    """Return the pairs as rows of 784 numbers and labels below 10.

    ``labels`` is the file of the labels, if it is a separate one.
    """
    result = []
    for x, y in pairs:
        if x.shape[1:] not in ((_SIDE, _SIDE), (_SIDE * _SIDE,)):
            raise ValueError(f"{path}: has images of shape {x.shape[1:]}, but MNIST's are 28 x 28")
        if y.shape != (len(x),):
            raise ValueError(f"{path}: has {len(x)} images, but labels of shape {y.shape}")
        if y.dtype.kind not in "ui" or (len(y) and not 0 <= y.min() <= y.max() <= 9):
            raise ValueError(f"{labels or path}: has labels that are not whole numbers from 0 to 9")
        result.append((x.reshape(len(x), _SIDE * _SIDE), y.astype(np.int64)))
    return result


def _cache() -> Path:
    import pooch

    return Path(pooch.os_cache("xnn")) / "mnist"


def _download(folder: Path) -> None:
    import sys
    import tempfile

    import pooch

    try:  # before a mirror is blamed
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OSError(
            f"{folder}: MNIST cannot be stored there ({error.strerror}); "
            "put its files in a folder that XNN_DATA names"
        ) from None
    bar = sys.stderr is not None and sys.stderr.isatty()
    fetch = pooch.HTTPDownloader(timeout=_TIMEOUT, progressbar=bar)
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        for name, sha256 in _FILES.items():
            failures = []
            for mirror in _MIRRORS:
                url = f"{mirror}{name}.gz"
                try:
                    pooch.retrieve(url, f"sha256:{sha256}", f"{name}.gz", folder, downloader=fetch)
                    break
                except (OSError, ValueError) as error:  # no response, or not the right file
                    failures.append(f"{url}: {type(error).__name__}")
            else:
                raise OSError(
                    f"MNIST could not be downloaded ({'; '.join(failures)}); "
                    f"put its files in {folder}, or in a folder that XNN_DATA names"
                )
    finally:
        logger.setLevel(level)
