"""Parts of a step that run at the same time, each in a thread."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import numpy as np

from . import denormals

#: Threads that wait for work. Where a process is copied, the copy has none of them.
_idle: list[_Thread] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)


def together(parts: list[Callable[[], None]]) -> None:
    """Run parts, the first in this thread; return when all are done.

    An exception in one of them is raised then.
    """
    threads = [_idle.pop() if _idle else _Thread() for _ in parts[1:]]
    for thread, part in zip(threads, parts[1:], strict=True):
        thread.begin(part)
    try:
        parts[0]()
    finally:
        errors = [thread.end() for thread in threads]
        _idle.extend(threads)
    for error in errors:
        if error is not None:
            raise error


class _Thread(threading.Thread):
    """Does one thing after another: threads are dear to make, and wake up in some 20 µs."""

    def __init__(self) -> None:
        super().__init__(name="xnn", daemon=True)
        self._part: Callable[[], None] | None = None
        self._error: BaseException | None = None
        self._ready, self._done = threading.Lock(), threading.Lock()
        self._ready.acquire()
        self._done.acquire()
        self.start()

    def begin(self, part: Callable[[], None]) -> None:
        self._part = part
        self._ready.release()

    def end(self) -> BaseException | None:
        """Wait until it is done, and return what it raised."""
        self._done.acquire()
        error, self._part, self._error = self._error, None, None
        return error

    def run(self) -> None:
        flush, _ = denormals.switches()
        with np.errstate(all="ignore"):  # as the replay that a part is of
            flush()
            while True:
                self._ready.acquire()
                assert self._part is not None
                try:
                    self._part()
                except BaseException as error:
                    self._error = error
                self._done.release()
