"""Work that runs concurrently, in threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import numpy as np

from . import denormals

#: Threads that wait for work. A forked process has none of them.
_idle: list[_Thread] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)


def together(lanes: list[Callable[[], None]]) -> None:
    """Run lanes, the first in this thread; return when all are done.

    An exception in one of them is then raised.
    """
    tasks: list[Task] = []
    try:
        tasks.extend(begin(lane) for lane in lanes[1:])
        lanes[0]()
    finally:
        join(tasks)
    for task in tasks:
        if task.error is not None:
            raise task.error


def begin(work: Callable[[], object]) -> Task:
    """Start some work in another thread, without waiting for it."""
    task = Task(work)
    try:
        thread = _idle.pop()
    except IndexError:
        thread = _Thread()
    thread.give(task)
    return task


def join(tasks: list[Task]) -> None:
    """Return when all are done, and only then raise Ctrl-C."""
    interrupt = None
    for task in tasks:
        while not task.over:  # set before done is released: Ctrl-C may come after acquiring
            try:
                task.done.acquire()
            except KeyboardInterrupt as error:
                interrupt = error
    if interrupt is not None:
        raise interrupt


class Task:
    """Work for a thread.

    ``done`` can be acquired when it is ``over``; ``error`` is what was raised in it.
    """

    def __init__(self, work: Callable[[], object]) -> None:
        self.work = work
        self.over = False
        self.error: BaseException | None = None
        self.done = threading.Lock()
        self.done.acquire()


class _Thread(threading.Thread):
    """Runs one task after another: threads are slow to create, and wake up in some 20 to 100 µs."""

    def __init__(self) -> None:
        super().__init__(name="xnn", daemon=True)
        self._task: Task | None = None
        self._ready = threading.Lock()
        self._ready.acquire()
        self.start()

    def give(self, task: Task) -> None:
        self._task = task
        self._ready.release()

    def run(self) -> None:
        flush, _ = denormals.switches()
        with np.errstate(all="ignore"):  # as in the replay that a lane is part of
            flush()
            while True:
                self._ready.acquire()
                task, self._task = self._task, None
                assert task is not None
                try:
                    task.work()
                except BaseException as error:
                    task.error = error
                _idle.append(self)
                task.over = True
                task.done.release()
                del task
