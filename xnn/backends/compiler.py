"""A C++ compiler, if the machine has one: text in, functions out.

A *kernel* is the text of one function ``void NAME(void** p, const long long* v)``: ``p`` points to
what it reads and writes, ``v`` holds sizes and strides. Kernels are compiled once per machine, for
its own processor, and kept in the user's cache; a step's missing kernels are compiled together,
but long ones separately.
"""

from __future__ import annotations

import atexit
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
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import threads

# Results may differ in the last bit, as a product and a sum may share one rounding; NaN and
# infinity are respected.
_FLAGS = [
    *("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd"),
    *("-fPIC", "-shared", "-w"),
]
_SECONDS = 120  # for a compiler that hangs
_LONG = 10_000  # characters

_MOST = 1000  # libraries in the cache

_functions: dict[str, Any] = {}
_lock = threading.RLock()  # held while compiling: other threads may want the same
_making = threading.Lock()


def _unlock() -> None:
    global _lock, _making
    _lock, _making = threading.RLock(), threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock)  # the thread that held them is not in the child


class CompilerError(RuntimeError):
    """The compiler failed, or its library cannot be loaded; the message says why."""


@cache
def command() -> tuple[str, ...] | None:
    """Return the compiler's command: ``XNN_CXX``, ``CXX`` or what is installed; None if none is.

    An empty ``XNN_CXX`` says to use none.
    """
    told = os.environ.get("XNN_CXX")
    if told is None:
        told = os.environ.get("CXX") or next(filter(shutil.which, ("c++", "g++", "clang++")), "")
    try:
        words = tuple(shlex.split(told))
    except ValueError:
        return None
    return words if words and shutil.which(words[0]) else None


def load(kernels: Iterable[str]) -> dict[str, Any]:
    """Return the function of each kernel, as a C pointer ``void (*)(void **, long long *)``.

    Raises `CompilerError`.
    """
    texts = set(kernels)
    if texts - _functions.keys():
        with _lock:
            _functions.update(_load(sorted(texts - _functions.keys())))
    return {text: _functions[text] for text in texts}


def address(array: Any) -> int:
    """Return where a NumPy array begins."""
    return int(array.__array_interface__["data"][0])


def pointer(array: Any) -> Any:
    """Return that address as a pointer."""
    return _ffi().cast("void *", address(array))


def pointers(values: Sequence[Any]) -> Any:
    """Return a kernel's argument ``p`` of addresses; keep it, and the arrays there, alive."""
    return _ffi().new("void *[]", [_ffi().cast("void *", value) for value in values])


def integers(values: Sequence[int]) -> Any:
    """Return a kernel's argument ``v`` of integers; keep it alive."""
    return _ffi().new("long long[]", list(values) or [0])


def numbers(made: Any) -> NDArray[Any]:
    """Return what `pointers` or `integers` returned as an array of integers, without a copy."""
    return np.frombuffer(_ffi().buffer(made), np.int64)


def _ffi() -> Any:
    with _making:
        return _made_ffi()


@cache
def _made_ffi() -> Any:
    from cffi import FFI

    return FFI()


def _load(kernels: list[str]) -> dict[str, Any]:
    # Long ones separately: other networks need them too, and compilers run in parallel.
    # Not in a pool of concurrent.futures, which accepts no work once the main thread has ended.
    short = [text for text in kernels if len(text) < _LONG]
    lots = [[text] for text in kernels if len(text) >= _LONG] + ([short] if short else [])
    paths: dict[int, Path] = {}

    def compiled(number: int) -> None:
        paths[number] = _compiled(_source(lots[number]))

    if lots:
        threads.together([partial(compiled, number) for number in range(len(lots))])
    ffi, functions = _ffi(), dict[str, Any]()
    for number, lot in enumerate(lots):
        names = {_name(text): text for text in lot}
        declared = "\n".join(f"void {name}(void **, long long *);" for name in names)
        ffi.cdef(declared, override=True)
        try:
            library = _opened(paths[number])
        except OSError:  # a cached one, for another machine or removed by others
            paths[number].unlink(missing_ok=True)
            try:
                library = _opened(_compiled(_source(lot)))
            except OSError as error:
                raise CompilerError(str(error)) from None
        functions |= {text: ffi.addressof(library, name) for name, text in names.items()}
    return functions


def _opened(path: Path) -> Any:
    ffi = _ffi()
    # Never closed: a thread may be in it when the interpreter exits.
    return ffi.dlopen(str(path), ffi.RTLD_NOW | getattr(ffi, "RTLD_NODELETE", 0))


def _source(kernels: Iterable[str]) -> str:
    named = {_name(text): text for text in kernels}
    return "\n".join(
        f"namespace n{name} {{{text.replace('NAME', name)}}}" for name, text in named.items()
    )


def _name(kernel: str) -> str:
    return f"k{_hash(kernel)}"


def _compiled(source: str) -> Path:
    """Return the shared library of a source, compiled if it is not in the cache."""
    try:
        path = _found(source)
        if path.exists():
            with suppress(OSError):
                os.utime(path)
            return path
        _prune(path.parent)
        # If the process ends meanwhile, the compiler may still be writing.
        with tempfile.TemporaryDirectory(dir=path.parent, ignore_cleanup_errors=True) as work:
            made = _made(source, Path(work))
            with made.open("rb") as file:
                os.fsync(file.fileno())
            size = made.stat().st_size
            return made.replace(path.with_name(f"{path.stem.partition('-')[0]}-{size}.so"))
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CompilerError(str(error)) from None


def _found(source: str) -> Path:
    """Return the path of a source's library, if complete: its name contains its size."""
    name = _hash(source, *(command() or ()), *_FLAGS, _processor())
    for path in _folder().glob(f"{name}-*.so"):
        if path.stem == f"{name}-{path.stat().st_size}":
            return path
    return _folder() / f"{name}-0.so"


def _prune(folder: Path) -> None:
    """Remove the least recently used libraries if there are too many."""
    with suppress(OSError):  # another process may be doing the same
        libraries = sorted(folder.glob("*.so"), key=lambda path: path.stat().st_mtime)
        for path in libraries[: max(0, len(libraries) - _MOST)]:
            path.unlink(missing_ok=True)


def _made(source: str, folder: Path) -> Path:
    """Return a source's library, compiled in a folder."""
    text, made = folder / "kernels.cpp", folder / "kernels.so"
    text.write_text(source)
    said = ""
    for flags in (_FLAGS, [flag for flag in _FLAGS if flag != "-march=native"]):
        done = subprocess.run(
            [*(command() or ()), *flags, "-o", str(made), str(text)],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode == 0 and made.exists():
            return made
        said = said or done.stderr
    found = next((line for line in said.splitlines() if "error" in line), "it produced no library")
    raise CompilerError(f"{(command() or ('',))[0]}: {found}")


def _folder() -> Path:
    """Return the folder for compiled kernels: the user's own, as it holds code that is run."""
    base = os.environ.get("XDG_CACHE_HOME") or ""
    try:
        cache_home = Path(base) if Path(base).is_absolute() else Path.home() / ".cache"
        folder = cache_home / "xnn" / "kernels"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _own(folder.stat()) and os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):
        pass
    return _own_folder()


def _own(found: os.stat_result) -> bool:
    if not hasattr(os, "getuid"):
        return True
    return found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


@cache
def _own_folder() -> Path:
    """Return a folder for this process alone."""
    folder = tempfile.mkdtemp(prefix="xnn-kernels-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@cache
def _processor() -> str:
    """Return a name for this kind of processor: machines may share a folder."""
    told = [platform.machine(), platform.processor()]
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        told += [line for line in lines if line.startswith(("flags", "Features"))][:1]
    except OSError:
        pass
    return " ".join(told)


def _hash(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:24]
