"""Memory layout: parameters in one flat buffer, activations in padded rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from .backends import Array, Backend

#: The shape of one sample: ``(features,)`` or ``(height, width, channels)``.
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Parameter:
    """A matrix ``(rows, weights + biases)`` in the flat buffer: columns that decay, then others.

    Its rows are ``row`` numbers apart, for alignment; the padding is zero and stays so.
    """

    start: int
    rows: int
    weights: int
    biases: int
    row: int
    trained: bool = True  # or stored with the others, but not changed by optimizers

    @property
    def columns(self) -> int:
        return self.weights + self.biases

    @property
    def size(self) -> int:
        """The number of elements, without padding."""
        return self.rows * self.columns

    @property
    def stop(self) -> int:
        """The end of the matrix in the flat buffer."""
        return self.start + self.rows * self.row

    def matrix(self, flat: Array) -> Array:
        """Return the matrix ``(rows, columns)`` as a view of ``flat``."""
        return flat[self.start : self.stop].reshape(self.rows, self.row)[:, : self.columns]

    def part(self, rows: slice) -> Parameter:
        """Return a parameter for some of its rows."""
        first, stop, _ = rows.indices(self.rows)
        return replace(self, start=self.start + first * self.row, rows=stop - first)


class Layout:
    """Assigns parameters their places in a flat buffer, one after another."""

    def __init__(self, row: Callable[[int], int]) -> None:
        self._row = row  # the padded length of a row, from its number of columns
        self.size = 0

    def place(self, rows: int, weights: int, biases: int, trained: bool = True) -> Parameter:
        """Return a new parameter, placed after the existing ones."""
        row = self._row(weights + biases)
        made = Parameter(self.size, rows, weights, biases, row, trained)
        self.size = made.stop
        return made


@dataclass(frozen=True)
class Rows:
    """A matrix of activations or deltas, one row per sample, with padding after each row.

    Elementwise work runs over ``whole``, whose memory is contiguous, which is twice as fast for
    small matrices; results in the padding are never read. The values may be followed by a constant
    column: ones, by which the next layer's weights include its biases.
    """

    values: Array  # (batch, size)
    augmented: Array  # (batch, size [+ 1])
    whole: Array  # (batch, size and padding)

    @classmethod
    def zeros(
        cls, backend: Backend, batch: int, size: int, dtype: Any, column: float | None = None
    ) -> Rows:
        """Return zeros, followed by a column filled with ``column``, if given."""
        columns = size + (column is not None)
        whole = backend.zeros((batch, backend.padded(columns, dtype)), dtype)
        if column is not None:
            backend.elementwise("column", whole[:, size:columns], column=column)
        return cls(whole[:, :size], whole[:, :columns], whole)

    @classmethod
    def by_columns(
        cls, backend: Backend, batch: int, size: int, dtype: Any, column: float | None = None
    ) -> Rows:
        """Return the same as `zeros`, but contiguous along columns instead of rows."""
        columns = size + (column is not None)
        whole = backend.zeros((columns, backend.padded(batch, dtype)), dtype)
        if column is not None:
            backend.elementwise("column", whole[size:columns], column=column)
        return cls(whole[:size, :batch].T, whole[:, :batch].T, whole.T)

    @classmethod
    def plain(cls, array: Array) -> Rows:
        """Return a contiguous array as rows without padding."""
        return cls(array, array, array)

    def __getitem__(self, rows: slice) -> Rows:
        return Rows(self.values[rows], self.augmented[rows], self.whole[rows])

    def shaped(self, shape: Shape) -> Array:
        """Return the values ``(batch, *shape)``, as a view."""
        return self.values if len(shape) == 1 else self.values.reshape(len(self.values), *shape)
