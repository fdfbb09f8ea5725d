"""Reading files that may be damaged or malicious.

Headers are not trusted: the sizes that they promise are checked against the size of the file before
anything is read or allocated.
"""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path
from types import TracebackType
from typing import IO

# Handwritten digits compress five- to fifteenfold; zeros, a thousandfold.
_MOST_COMPRESSED = 100
_ALWAYS = 1 << 20  # bytes that any file is allowed to hold


def most_unzipped(size: int) -> int:
    """Return how many bytes a file of digits with ``size`` compressed bytes may hold."""
    return max(size * _MOST_COMPRESSED, _ALWAYS)


class Source:
    """A file, plain or gzipped, to be read from beginning to end.

    Any defect raises `ValueError`, which names the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] = path.open("rb")
        size = os.fstat(self._file.fileno()).st_size
        self._zipped = self._file.read(2) == b"\x1f\x8b"
        self._file.seek(0)
        self._left = most_unzipped(size) if self._zipped else size
        unzipped = gzip.GzipFile(fileobj=self._file)  # closed with its file
        self._stream: IO[bytes] = unzipped if self._zipped else self._file  # type: ignore[assignment]

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._file.close()

    def refuse(self, what: str) -> ValueError:
        """Return an error that says what is wrong with this file."""
        return ValueError(f"{self.path}: {what}")

    def take(self, size: int, what: str) -> bytes:
        """Return the next ``size`` bytes; ``what`` describes them in errors."""
        if size > self._left:
            held = "a file of its size can hold" if self._zipped else f"the {self._left} left"
            raise self.refuse(f"promises {size} bytes of {what}, more than {held}")
        data = self._read(size)
        if len(data) < size:
            raise self.refuse(
                f"is cut off: {what} should be {size} bytes, but {len(data)} are left"
            )
        self._left -= size
        return data

    def end(self) -> None:
        """Check that nothing is left."""
        if self._read(1):
            raise self.refuse("has further data after its end")

    def line(self, what: str, most: int = 200) -> bytes:
        """Return the bytes up to the next line feed, which is skipped."""
        result = bytearray()
        while (byte := self.take(1, what)) != b"\n":
            result += byte
            if len(result) > most:
                raise self.refuse(f"has a {what} of over {most} bytes")
        return bytes(result)

    def _read(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise self.refuse(f"is damaged: {error}") from None
