"""Replays with kernels: consecutive kernels are one call, lanes run in threads.

There is no Python between the kernels of a replay, so it does not need Python's lock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

from . import compiler, cpu_replays, threads
from . import cpp_source as source
from .base import Call, Replay

#: Kernels that play others.
PLAYERS = (source.PLAY, source.LANES, source.SERVE)


@dataclass(frozen=True)
class Kernel:
    """A placeholder for a function until all kernels of a step are compiled together."""

    text: str

    def __call__(self, *_: Any) -> None:
        raise AssertionError("a kernel that has not been compiled")


def divided(lanes: list[Callable[[], None]]) -> None:
    """Act as `threads.together`, for lanes that one operation is divided into."""
    threads.together(lanes)


def undivided(tape: list[Call]) -> list[Call]:
    """Return a tape on which the parts of divided operations run one after another."""
    return [call for one in tape for call in (chain(*one[1][0]) if one[0] is divided else [one])]


def texts(tape: list[Call]) -> set[str]:
    """Return the text of each kernel on a tape, and on those of its lanes."""
    found = set()
    for function, arguments in tape:
        if isinstance(function, Kernel):
            found.add(function.text)
        elif function in (threads.together, divided):
            found.update(*map(texts, arguments[0]))
    return found


def replay(tape: list[Call], kept: list[Any]) -> Replay:
    """Return the replay of a tape with kernels; it keeps their arguments and data alive.

    Its attribute ``call`` is the one call that is all of it, or None if there is more.
    """
    functions = compiler.load({*texts(tape), *PLAYERS})
    assembly = _Assembly(functions, kept)
    calls = assembly.calls(tape)
    play = functions[source.PLAY]
    alone = [function for function, _ in calls] == [play]
    # Library calls beside kernels are to treat denormals as zero, as these do.
    beside = any(function is play for function, _ in calls) or cpu_replays.loud(calls)
    made: Any = cpu_replays.replay(calls, kept, beside and not alone)
    if assembly.boxes:
        made = _served(made, functions[source.SERVE], assembly.boxes)
    else:
        made.call = calls[0] if alone else None
    return made  # type: ignore[no-any-return]


class _Assembly:
    """Merges consecutive kernels, and lanes of kernels alone, into one call."""

    def __init__(self, functions: dict[str, Any], owners: list[Any]) -> None:
        self.boxes: list[Any] = []  # of lanes, for threads that serve them
        self._functions = functions
        self._owners = owners  # of what is pointed to

    def calls(self, tape: list[Call]) -> list[Call]:
        """Return the calls of a tape as they are to be made."""
        calls: list[Call] = []
        run: list[Any] = []

        def close() -> None:
            if run:
                arguments = compiler.pointers(run), compiler.integers([len(run) // 3])
                calls.append((self._functions[source.PLAY], arguments))
                run.clear()

        for function, arguments in tape:
            if isinstance(function, Kernel):
                run.extend([self._functions[function.text], *arguments])
                continue
            if function not in (threads.together, divided):
                close()
                calls.append((function, arguments))
                continue
            lanes = [self.calls(lane) for lane in arguments[0]]
            served = self._lanes(lanes)
            if served is not None:
                run.extend([self._functions[source.LANES], *served])
            else:
                close()
                calls.append((function, ([cpu_replays.player(lane) for lane in lanes],)))
        close()
        return calls

    def _lanes(self, lanes: list[list[Call]]) -> tuple[Any, Any] | None:
        """Return the arguments of a call of `LANES`; None if a lane is more than kernels."""
        play = self._functions[source.PLAY]
        if any(len(lane) != 1 or lane[0][0] is not play for lane in lanes):
            return None
        while len(self.boxes) < len(lanes) - 1:
            self.boxes.append(compiler.integers([0, 0]))
        each = [value for lane in lanes for value in (play, *lane[0][1])]
        made = compiler.pointers([*self.boxes[: len(lanes) - 1], *each])
        told = compiler.integers([len(lanes)])
        self._owners += [*each, made, told]
        return made, told


def _served(replay: Replay, serve: Any, boxes: list[Any]) -> Replay:
    """Return a replay during which threads serve the boxes."""

    def served() -> None:
        over = compiler.integers([0])  # of this replay: a late thread sees it later
        tasks = []
        try:
            for box in boxes:
                place = compiler.pointers([box, over])
                # With its box, which the thread may read once more when all is over.
                tasks.append(threads.begin(partial(_serve, serve, place, over, box)))
            replay()
        finally:
            over[0] = 1
            threads.join(tasks)

    return served


def _serve(serve: Any, place: Any, over: Any, box: Any) -> None:
    serve(place, over)
