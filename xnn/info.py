"""What xnn runs on: versions, BLAS, GPUs, and what is missing."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy as np

from . import backends, checks
from .version import __version__


def facts() -> dict[str, Any]:
    """Return what xnn finds on this machine, by human-readable names.

    ``"GPUs"`` is a list of the usable GPUs, each a dict of ``device``, ``name``,
    ``compute_capability``, ``memory`` and ``free`` in bytes, and ``graphs``: True, or why steps
    are not captured into CUDA graphs. If it is empty, ``"missing"`` says what to do.
    """
    import scipy

    found: dict[str, Any] = {
        "xnn": __version__,
        "Python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "NumPy": np.__version__,
        "SciPy": scipy.__version__,
        "BLAS": _blas(),
        "kernels": _kernels(),
    }
    return found | backends.gpus()


def _kernels() -> str:
    """Return the compiler of CPU kernels, or what to install for them."""
    command = backends.compiler_command()
    if command is not None:
        return f"by {' '.join(command)}"
    return "none; with a C++ compiler (c++, g++ or clang++) training is two to five times as fast"


def _blas() -> str:
    """Return the name, version and threads of the BLAS that SciPy calls."""
    import scipy.linalg.blas  # noqa: F401 - loads it
    import threadpoolctl

    libraries = [
        library for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"
    ]
    # NumPy's own is called "libscipy_openblas64_", and is elsewhere.
    of_scipy = [
        library
        for library in libraries
        if {"scipy", "scipy.libs"} & set(Path(library["filepath"]).parts)
    ]
    for library in of_scipy or libraries:
        threads = library["num_threads"]
        parts = [library["internal_api"], library["version"], library.get("architecture")]
        named = " ".join(part for part in parts if part)
        return f"{named}, {checks.counted(threads, 'thread')}"
    return "unknown"
