"""Frames between the suite and its workers: a JSON header and raw bytes, never pickle from another environment.

A frame is the length of the header (4 bytes, big endian), the header in UTF-8, then the blobs whose sizes the header's
``blobs`` lists. Both ends import this module, so it needs no more than Python 3.10 and its standard library.
"""

from __future__ import annotations

import json
import os
import selectors
import struct
import time
from typing import Any

_LENGTH = struct.Struct(">I")
MAX_HEADER = 64 * 2**20


class Closed(Exception):
    """The other end is gone."""


class TimedOut(Exception):
    """The other end sent nothing for too long."""


class Channel:
    """Sends and receives frames over two file descriptors."""

    def __init__(self, read_from: int, write_to: int) -> None:
        self._read_from = read_from
        self._write_to = write_to
        self._open = True

    def close(self) -> None:
        """From now on nothing is sent or received: the descriptors may soon be those of something else."""
        self._open = False

    def send(self, header: dict[str, Any], blobs: tuple[bytes, ...] = ()) -> None:
        """Raises:
        Closed: nobody reads any more.
        """
        self._check_open()
        text = json.dumps(header | {"blobs": [len(blob) for blob in blobs]}).encode()
        rest = memoryview(b"".join((_LENGTH.pack(len(text)), text, *blobs)))
        try:
            while rest:
                rest = rest[os.write(self._write_to, rest) :]
        except BrokenPipeError:
            raise Closed from None

    def receive(self, timeout: float | None = None) -> tuple[dict[str, Any], tuple[bytes, ...]]:
        """The next frame; ``timeout`` in seconds.

        Raises:
            Closed: the other end closed its side, between frames or within one, or what came is no frame.
            TimedOut: the frame was not there in time.
        """
        self._check_open()
        deadline = None if timeout is None else time.monotonic() + timeout
        (length,) = _LENGTH.unpack(self._exactly(_LENGTH.size, deadline))
        if length > MAX_HEADER:
            raise Closed(f"a frame announces a header of {length} bytes: something else wrote into the channel")
        header = json.loads(self._exactly(length, deadline))
        blobs = tuple(self._exactly(size, deadline) for size in header.pop("blobs"))
        return header, blobs

    def _check_open(self) -> None:
        if not self._open:
            raise Closed

    def _exactly(self, count: int, deadline: float | None) -> bytes:
        parts: list[bytes] = []
        while count:
            if deadline is not None:
                self._wait(deadline)
            part = os.read(self._read_from, min(count, 2**20))
            if not part:
                raise Closed
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def _wait(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(self._read_from, selectors.EVENT_READ)
            if left <= 0 or not selector.select(left):
                raise TimedOut
