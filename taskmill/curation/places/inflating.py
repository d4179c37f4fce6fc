"""Reading compressed bytes forwards only, so that no header can ask for more memory than it is worth."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

MAX_READ = 4 << 20
"""Most bytes read at once: contents are read in smaller chunks, so only a header could want more."""


def open_tar_bytes(path: Path) -> IO[bytes]:
    """Open the bytes of a tar file, decompressed as its name says.

    Raises:
        OSError: it cannot be opened.
    """
    name = path.name.lower()
    openers: dict[str, Callable[..., Any]] = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open, "tar": open}
    suffix = {"tgz": "gz", "tbz2": "bz2", "txz": "xz"}.get(name.rpartition(".")[2], name.rpartition(".")[2])
    opened: IO[bytes] = openers[suffix](path, "rb")
    return opened


class Forward(io.RawIOBase):
    """A stream that is read and skipped forwards; `count` is told how many bytes have passed."""

    def __init__(self, raw: IO[bytes], count: Callable[[int], None]) -> None:
        """`count` may raise to stop."""
        self._raw, self._count, self._position = raw, count, 0
        self._last = b""

    def readable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the number of bytes that have passed."""
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes.

        Raises:
            ValueError: more than a sound header can want.
        """
        if not 0 <= size <= MAX_READ:
            raise ValueError(f"a header of {size:,} bytes")
        data = self._raw.read(size)
        self._position += len(data)
        self._count(self._position)
        self._last = data
        return data

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        """Skip forwards to `position`.

        Raises:
            ValueError: backwards, or from another place than the start.
        """
        if whence != io.SEEK_SET or position < self._position:
            raise ValueError("not forwards")
        while self._position < position and self.read(min(MAX_READ, position - self._position)):
            pass
        return self._position

    def check_end(self) -> None:
        """Read to the end, so that the compression's own checksum is looked at.

        The library takes any header that it cannot read for the end of a tar file: what follows would be lost.

        Raises:
            ValueError: what was read last is no end mark, or something stands behind it.
        """
        if not self._last or any(self._last):
            raise ValueError("it is cut off, or a header in it is broken: there is no end mark")
        while block := self.read(MAX_READ):
            if block.count(0) != len(block):
                raise ValueError("something stands behind its end mark")
