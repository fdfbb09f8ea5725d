"""Replays with kernels: consecutive kernels are one call, repeats are loops, lanes run in threads.

There is no Python between the kernels of a replay, so it does not need Python's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import compiler, cpu_replays, threads
from . import cpp_source as source
from .base import Call, Replay

#: Kernels that play others.
PLAYERS = (source.PLAY, source.EACH, source.LANES, source.SERVE)


@dataclass(frozen=True)
class Kernel:
    """A placeholder for a function until all kernels of a step are compiled together."""

    text: str

    def __call__(self, *_: Any) -> None:
        raise AssertionError("a kernel that has not been compiled")


def divided(lanes: list[Callable[[], None]]) -> None:
    """Act as `threads.together`, for lanes that one operation is divided into."""
    threads.together(lanes)


@dataclass(frozen=True)
class Loop:
    """A placeholder for a tape of kernels that is played several times."""

    tape: list[Call]
    times: int
    #: Where those of its kernels' pointers are stored that grow from one time to the next, …
    addresses: list[int]
    #: … and by how many bytes each grows.
    growth: list[int]

    def __call__(self, *_: Any) -> None:
        raise AssertionError("a loop that has not been compiled")


def loop(
    tape: list[Call],
    following: list[Call],
    last: list[Call],
    times: int,
    constants: Iterable[int] = (),
) -> Loop | None:
    """Return the loop whose first time, second and last of ``times`` are these tapes.

    It is None if they are more than kernels, or differ in more than pointers that grow evenly.
    ``constants`` are the addresses of numbers that pointers cannot move to.
    """
    fixed = set(constants)
    tapes = [list(_kernels(each)) for each in (tape, following, last)]
    if not tapes[0] or any(None in each or len(each) != len(tapes[0]) for each in tapes):
        return None
    addresses: list[int] = []
    growth: list[int] = []
    for first, second, final in zip(*tapes, strict=True):
        assert None not in (first, second, final)
        if any(told != first[0] for told in (second[0], final[0])):
            return None
        by = second[1] - first[1]
        if any(final[1] - first[1] != (times - 1) * by):
            return None
        grows = np.flatnonzero(by)
        if not fixed.isdisjoint(first[1][grows].tolist()):
            return None
        addresses += (compiler.address(first[1]) + first[1].itemsize * grows).tolist()
        growth += by[grows].tolist()
    return Loop(tape, times, addresses, growth)


def _kernels(tape: list[Call]) -> Iterator[tuple[Any, NDArray[Any]] | None]:
    """Yield what each kernel does, and its pointers; None for any other call."""
    for function, arguments in tape:
        if isinstance(function, Kernel):
            pointers, values = map(compiler.numbers, arguments)
            yield (function.text, *values.tolist()), pointers
        elif function in (threads.together, divided) and all(arguments[0]):  # none is empty
            yield (function, len(arguments[0])), np.zeros(0, np.intp)
            for lane in arguments[0]:
                yield from _kernels(lane)
        else:
            yield None


def undivided(tape: list[Call]) -> list[Call]:
    """Return a tape on which the parts of divided operations run one after another."""
    calls: list[Call] = []
    for function, arguments in tape:
        if function is divided:
            calls += chain(*arguments[0])
        elif isinstance(function, Loop):
            calls.append((replace(function, tape=undivided(function.tape)), arguments))
        else:
            calls.append((function, arguments))
    return calls


def texts(tape: list[Call]) -> set[str]:
    """Return the text of each kernel on a tape, and on those of its lanes."""
    found = set()
    for function, arguments in tape:
        if isinstance(function, Kernel):
            found.add(function.text)
        elif isinstance(function, Loop):
            found |= texts(function.tape)
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
            if isinstance(function, Loop):
                run.extend([self._functions[source.EACH], *self._loop(function)])
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

    def _loop(self, loop: Loop) -> tuple[Any, Any]:
        """Return the arguments of a call of `EACH`."""
        ((function, (p, v)),) = self.calls(loop.tape)  # as kernels alone are one call
        made = compiler.pointers([function, p, v, *loop.addresses])
        told = compiler.integers([loop.times, 1, len(loop.growth), *loop.growth])
        self._owners += [p, v, made, told]
        return made, told

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
