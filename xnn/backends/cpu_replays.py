"""Replays on the CPU: the calls that a step consists of, made again."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from . import denormals, threads
from .base import Call, Replay

# Functions that never make NumPy warn of overflow or of an invalid value.
_SILENT = {"expit", "tanh"}


def finished(tape: list[Call]) -> list[Call]:
    """Return the calls of a tape as they are to be made, with a player for each lane."""
    return [
        (function, ([player(finished(lane)) for lane in arguments[0]],))
        if function is threads.together
        else (function, arguments)
        for function, arguments in tape
    ]


def player(calls: list[Call]) -> Replay:
    """Return a function that makes the calls."""
    if len(calls) == 1:
        function, arguments = calls[0]
        return partial(function, *arguments)

    def play() -> None:
        for function, arguments in calls:
            function(*arguments)

    return play


def replay(calls: list[Call], kept: list[Any], loud: bool) -> Replay:
    """Return a function that makes the calls, and keeps what raw pointers point to."""
    play = player(calls)
    flush, leave = denormals.switches()

    def quietly() -> None:
        # If training diverges, the cost shows it, which is reported once.
        with np.errstate(all="ignore"):
            flush()
            try:
                play()
            finally:
                leave()

    # That takes 2.5 µs: a lot where classifying one sample takes as long.
    chosen: Any = quietly if loud else play
    chosen.kept = kept
    return chosen  # type: ignore[no-any-return]


def loud(calls: list[Call]) -> bool:
    """Return whether NumPy may warn in one of the calls, or one needs denormals to be zero."""
    return any(
        function.__name__ not in _SILENT
        if isinstance(function, np.ufunc)
        else function is threads.together
        for function, _ in calls
    )
