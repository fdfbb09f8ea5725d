"""How many threads BLAS has, here and now."""

from __future__ import annotations

import os
import threading
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

from . import blas

# What OpenBLAS calls processors for which it has a way for small products.
_WITH_SMALL = {"SkylakeX", "Cooperlake", "SapphireRapids"}


class _OneThread(AbstractContextManager[None]):
    """Lets BLAS use one thread while anyone is inside, then again as many as before.

    OpenBLAS divides products of 260 thousand multiplications among threads, and they then spin for
    a while in wait of more. Below some millions that makes training slower, by a third where each
    epoch ends with an evaluation.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._inside: list[int] = []  # by their threads
        self._before: list[int] = []  # of each library
        if hasattr(os, "register_at_fork"):  # else a copy may wait for a thread that it has not
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
            except BaseException:  # Ctrl-C, for one
                self.__exit__()
                raise

    def __exit__(self, *_: object) -> None:
        with self._lock:
            own = threading.get_ident()
            self._inside.remove(own)
            for library, before in zip(_libraries(), self._before, strict=True):
                # OpenMP has a number for each thread, others have one for all of them.
                others = own in self._inside if _by_thread(library) else self._inside
                if not others:
                    _limit(library, before)

    def _forked(self) -> None:
        """Go on in a copy of the process, which has no thread but the one that made it."""
        before, self._inside = self._inside, [i for i in self._inside if i == threading.get_ident()]
        if before and not self._inside:
            for library, number in zip(_libraries(), self._before, strict=True):
                _limit(library, number)
        self._lock.release()


#: While anyone is inside, BLAS has one thread.
ONE_THREAD = _OneThread()


@cache
def _libraries() -> list[Any]:
    """Return the BLAS libraries that are loaded, as threadpoolctl has them."""
    from threadpoolctl import ThreadpoolController

    blas.of("f")
    found: list[Any] = ThreadpoolController().select(user_api="blas").lib_controllers
    return found


@cache
def quick_where_small() -> bool:
    """Return whether BLAS has a way of its own for small products.

    OpenBLAS has one for processors with AVX-512, as far as it knows them. It takes those that it
    does not know for older ones.
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
    """Let a library have so many threads.

    From 3.8 on threadpoolctl ignores all threads but the first that sets a limit, until that one
    has taken it back. Who enters first here may leave before others do.
    """
    give_up = getattr(library, "clear_controlling_thread", None)
    if give_up is not None:
        give_up(force=True)
    library.set_num_threads(threads)
    if give_up is not None:
        give_up(force=True)
