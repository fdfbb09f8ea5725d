"""How many threads BLAS uses."""

from __future__ import annotations

import os
import threading
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

from . import blas

# OpenBLAS's names of the processors for which it has a path for small products.
_WITH_SMALL = {"SkylakeX", "Cooperlake", "SapphireRapids"}


class _OneThread(AbstractContextManager[None]):
    """Limits BLAS to one thread while anyone is inside, then restores the number.

    OpenBLAS divides products of 260 thousand multiplications among threads, which then spin for a
    while, waiting for more. Below a few million that slows training, by a third if each epoch ends
    with an evaluation.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._inside: list[int] = []  # the threads' identifiers
        self._before: list[int] = []  # each library's thread count
        if hasattr(os, "register_at_fork"):  # else a child may wait for a thread that it lacks
            lock = self._lock
            os.register_at_fork(
                before=lock.acquire, after_in_parent=lock.release, after_in_child=self._forked
            )

    def outside(self) -> int:
        """Return how many threads BLAS has while nobody is inside."""
        with self._lock:
            return max(self._before, default=1) if self._inside else _threads()

    def __enter__(self) -> None:
        with self._lock:
            own, libraries = threading.get_ident(), _libraries()
            if not self._inside:
                self._before = [library.num_threads for library in libraries]
            self._inside.append(own)
            try:
                for library in libraries:
                    _limit(library, 1)
            except BaseException:  # such as Ctrl-C
                self.__exit__()
                raise

    def __exit__(self, *_: object) -> None:
        with self._lock:
            own = threading.get_ident()
            self._inside.remove(own)
            for library, before in zip(_libraries(), self._before, strict=True):
                # OpenMP has a number for each thread, others one for all.
                others = own in self._inside if _by_thread(library) else self._inside
                if not others:
                    _limit(library, before)

    def _forked(self) -> None:
        """Continue in a forked process, whose only thread is the one that forked."""
        before, self._inside = self._inside, [i for i in self._inside if i == threading.get_ident()]
        if before and not self._inside:
            for library, number in zip(_libraries(), self._before, strict=True):
                _limit(library, number)
        self._lock.release()


#: While anyone is inside, BLAS has one thread.
ONE_THREAD = _OneThread()


@cache
def _libraries() -> list[Any]:
    """Return the BLAS libraries that are loaded, as threadpoolctl sees them."""
    from threadpoolctl import ThreadpoolController

    blas.of("f")
    found: list[Any] = ThreadpoolController().select(user_api="blas").lib_controllers
    return found


@cache
def quick_where_small() -> bool:
    """Return whether BLAS has a path of its own for small products.

    OpenBLAS has one for the processors with AVX-512 that it knows. It treats those that it does not
    know as older ones.
    """
    return all(
        library.internal_api != "openblas" or library.architecture in _WITH_SMALL
        for library in _libraries()
    )


def _threads() -> int:
    return max((library.num_threads for library in _libraries()), default=1)


def _by_thread(library: Any) -> bool:
    return getattr(library, "threading_layer", None) == "openmp"


def _limit(library: Any, threads: int) -> None:
    """Set a library's number of threads.

    Since its version 3.8, threadpoolctl ignores all threads but the first that sets a limit, until
    that one lifts it. The first to enter here may leave before others do.
    """
    give_up = getattr(library, "clear_controlling_thread", None)
    if give_up is not None:
        give_up(force=True)
    library.set_num_threads(threads)
    if give_up is not None:
        give_up(force=True)
