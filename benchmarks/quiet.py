"""Wait for a quiet machine: the host of a virtual one may give its processors away for minutes.

Linux reports stolen time ("steal", proc_stat(5)), but only for processors that have work. So all
processors are kept busy for a moment to measure it. On other systems nothing is known or waited
for.
"""

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STAT = Path("/proc/stat")
ENOUGH = 0.03  # the share of time that may be stolen before a measurement, …
SPOILT = 0.1  # … and while it is under way
PAUSE = 5.0  # seconds between looks
_LOOK = 0.4  # seconds that a look takes


class Stolen:
    """The share of stolen time in the time requested, or None if unknown."""

    share: float | None = None


@contextmanager
def watched() -> Iterator[Stolen]:
    """Return an object that holds, after the block, the share of its time that was stolen."""
    found, before = Stolen(), _ticks()
    yield found
    after = _ticks()
    if before is not None and after is not None:
        stolen, wanted = (new - old for new, old in zip(after, before, strict=True))
        found.share = stolen / wanted if wanted else 0.0


def wait(patience: float) -> float:
    """Wait until little time is stolen, at most ``patience`` seconds; return how long it took."""
    began = time.monotonic()
    while time.monotonic() - began < patience:
        with watched() as stolen:
            _work()
        if stolen.share is None or stolen.share <= ENOUGH:
            break
        time.sleep(PAUSE)
    return time.monotonic() - began


def _ticks() -> tuple[int, int] | None:
    """Return the stolen time and the requested time of all processors so far."""
    try:
        told = STAT.read_text().split("\n", 1)[0].split()[1:9]
        user, nice, system, _, _, irq, soft_irq, stolen = map(int, told)
    except (OSError, ValueError):
        return None
    return stolen, user + nice + system + irq + soft_irq + stolen


def _work() -> None:
    """Keep all processors busy for a moment."""
    until, block = time.monotonic() + _LOOK, bytes(1 << 20)

    def one() -> None:
        while time.monotonic() < until:
            hashlib.sha256(block)  # without Python's lock

    threads = [threading.Thread(target=one) for _ in range(os.cpu_count() or 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
