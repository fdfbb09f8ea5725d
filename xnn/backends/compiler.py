"""A C++ compiler, where the machine has one: text in, functions out.

A *kernel* is the text of one function ``void NAME(void** p, const long long* v)``: what it reads
and writes lies at ``p``, sizes and strides are in ``v``. Kernels are compiled once on a machine,
for its own processor, and then lie in the user's cache.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

# What is computed may differ in the last bit, for a product and a sum may be one rounding; NaN and
# infinity are what they are.
_FLAGS = [
    *("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd"),
    *("-fPIC", "-shared", "-w"),
]
_SECONDS = 120  # for a compiler that does not come back

_functions: dict[str, Any] = {}
_lock = threading.Lock()


class CompilerError(RuntimeError):
    """The compiler did not do what it was to; the message is its first line."""


@cache
def command() -> tuple[str, ...] | None:
    """Return how the compiler is called: ``XNN_CXX``, ``CXX``, or what there is; None for none.

    An empty ``XNN_CXX`` says that none is to be used.
    """
    told = os.environ.get("XNN_CXX")
    if told is None:
        told = os.environ.get("CXX") or next(filter(shutil.which, ("c++", "g++", "clang++")), "")
    words = tuple(shlex.split(told))
    return words if words and shutil.which(words[0]) else None


def load(kernels: Iterable[str]) -> dict[str, Any]:
    """Return the function of each kernel, as a C pointer ``void (*)(void **, long long *)``.

    Raises `CompilerError`.
    """
    texts = set(kernels)
    with _lock:
        missing = sorted(texts - _functions.keys())
        if missing:
            _functions.update(_load(missing))
        return {text: _functions[text] for text in texts}


def pointer(array: Any) -> Any:
    """Return where a NumPy array lies."""
    return _ffi().cast("void *", array.ctypes.data)


def pointers(values: Sequence[Any]) -> Any:
    """Return what a kernel takes as ``p``; it must be kept, and what lies there."""
    return _ffi().new("void *[]", [_ffi().cast("void *", value) for value in values])


def integers(values: Sequence[int]) -> Any:
    """Return what a kernel takes as ``v``; it must be kept."""
    return _ffi().new("long long[]", list(values) or [0])


@cache
def _ffi() -> Any:
    from cffi import FFI

    return FFI()


def _load(kernels: list[str]) -> dict[str, Any]:
    named = {f"k{_hash(text)}": text for text in kernels}
    ffi = _ffi()
    source = "\n".join(
        f"namespace n{name} {{{text.replace('NAME', name)}}}" for name, text in named.items()
    )
    path = _compiled(source)
    for name in named:
        ffi.cdef(f"void {name}(void **, long long *);", override=True)
    try:
        library = ffi.dlopen(str(path))
    except OSError as error:
        raise CompilerError(str(error)) from None
    return {text: ffi.addressof(library, name) for name, text in named.items()}


def _compiled(source: str) -> Path:
    """Return the shared library of a source, compiled where it is not in the cache."""
    words = command()
    assert words is not None
    folder = _folder()
    path = folder / f"{_hash(source, *words, *_FLAGS, _processor())}.so"
    if path.exists():
        return path
    with tempfile.TemporaryDirectory(dir=folder) as work:
        text, made = Path(work, "kernels.cpp"), Path(work, "kernels.so")
        text.write_text(source)
        try:
            done = subprocess.run(
                [*words, *_FLAGS, "-o", str(made), str(text)],
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CompilerError(str(error)) from None
        if done.returncode or not made.exists():
            lines = done.stderr.splitlines()
            found = next((line for line in lines if "error" in line), "it made no library")
            raise CompilerError(f"{words[0]}: {found}")
        made.replace(path)
    return path


@cache
def _folder() -> Path:
    """Return the folder for what has been compiled: the user's own, as it is code that is run."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        folder = Path(base).expanduser() / "xnn" / "kernels"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
        own = found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if own and os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):
        pass
    return Path(tempfile.mkdtemp(prefix="xnn-kernels-"))


@cache
def _processor() -> str:
    """Return what tells processors apart: a folder may be shared by machines."""
    told = [platform.machine(), platform.processor()]
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        told += [line for line in lines if line.startswith(("flags", "Features"))][:1]
    except OSError:
        pass
    return " ".join(told)


def _hash(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:24]
