"""Bytes of a plain or gzipped file, in order, checked to the very end."""

import zlib
from pathlib import Path
from types import TracebackType
from typing import Self

from nfops.errors import InputError

BLOCK = 1 << 20
MOST_EXTRA_BYTES = 64 << 20
"""How much more a gzip stream may hold than its header promises, before it counts as a bomb."""


class PlainStream:
    """A file as it is. `position` counts the bytes read so far; `expected` is what the header promises."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.position = 0
        self.expected: int | None = None
        self.warnings: list[str] = []
        self._file = path.open("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._file.close()

    def read(self, size: int) -> bytes:
        """The next `size` bytes; fewer only at the end."""
        data = self._file.read(size)
        self.position += len(data)
        return data

    def finish(self) -> None:
        """Read on to the end, so that a damaged end is noticed."""


class GzipStream(PlainStream):
    """A gzip file unpacked, of one member or several; length and CRC of each are checked by zlib.

    start: the byte where the packed part begins. wbits: zlib's own word for what it is, 31 for gzip, 47 for gzip or
    zlib.
    """

    def __init__(self, path: Path, start: int = 0, wbits: int = 31) -> None:
        super().__init__(path)
        self._file.seek(start)
        self._engine = zlib.decompressobj(wbits=wbits)
        self._packed = b""
        self._ended = False

    @property
    def packed_end(self) -> int:
        """The byte of the file after what was unpacked so far."""
        return self._file.tell() - len(self._packed)

    def read(self, size: int) -> bytes:
        """The next `size` unpacked bytes; fewer only at the proper end. InputError if the stream is damaged."""
        parts = []
        missing = size
        while missing and not self._ended:
            part = self._unpack(missing)
            parts.append(part)
            missing -= len(part)
            self.position += len(part)
        return b"".join(parts)

    def finish(self) -> None:
        """Read on to the end: only there is the CRC."""
        promised = self.expected or self.position
        while self.read(BLOCK):
            if self.position > promised + MOST_EXTRA_BYTES:
                raise InputError(self.path, f"holds far more than the {promised} bytes its header promises")

    def _unpack(self, limit: int) -> bytes:
        self._packed = self._packed or self._file.read(BLOCK)
        try:
            data = self._engine.decompress(self._packed, limit)
        except zlib.error as error:
            raise InputError(self.path, _what_is_wrong(error), "the file is damaged: copy it again") from error
        if self._engine.eof:
            self._next_member()
        elif not data and not self._packed:
            promised = "an unknown number of" if self.expected is None else self.expected
            raise InputError(self.path, f"gzip stream ends early ({self.position} of {promised} bytes)")
        else:
            self._packed = self._engine.unconsumed_tail
        return data

    def _next_member(self) -> None:
        rest = self._engine.unused_data
        if len(rest) < 2:
            rest += self._file.read(BLOCK)
        self._packed = rest
        self._engine = zlib.decompressobj(wbits=31)
        if not rest.startswith(b"\x1f\x8b"):
            self._ended = True
            if rest.strip(b"\0"):  # zeros are the padding of tapes and block devices
                self.warnings.append("trailing garbage after the gzip stream was ignored")


def _what_is_wrong(error: zlib.error) -> str:
    text = str(error)
    if "incorrect data check" in text or "incorrect length check" in text:
        return "CRC mismatch at the end of the gzip stream"
    return f"damaged gzip stream ({text.rpartition(': ')[2]})"
