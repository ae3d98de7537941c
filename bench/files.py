"""Files that are never half written: a crash leaves the old or the new one, and JSON lines are complete or absent."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

T = TypeVar("T")


def as_png(image: Image.Image) -> bytes:
    """The picture as an optimized PNG file."""
    content = BytesIO()
    image.save(content, format="PNG", optimize=True)
    return content.getvalue()


def shows(path: Path, image: Image.Image) -> bool:
    """Whether a file contains exactly this picture, however it is compressed."""
    try:
        with Image.open(path) as opened:
            return (opened.mode, opened.size) == (image.mode, image.size) and opened.tobytes() == image.tobytes()
    except (OSError, SyntaxError, ValueError):
        return False


@contextlib.contextmanager
def _written_beside(path: Path, content: bytes) -> Iterator[str]:
    """A hidden file next to ``path`` with this content, flushed to disk; deleted at the end unless it was moved."""
    descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(part, 0o644)
        yield part
    finally:
        with contextlib.suppress(OSError):
            os.unlink(part)


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Writes all files, then moves each into place; a crash in between leaves each file old or new, never half written.

    Raises:
        OSError: a file cannot be written; all are unchanged.
    """
    with contextlib.ExitStack() as stack:
        parts = {}
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            parts[path] = stack.enter_context(_written_beside(path, content))
        for path, part in parts.items():
            os.replace(part, path)


def write_atomically(path: Path, content: bytes | str) -> None:
    """Writes a file, text as UTF-8; a crash leaves the old file or the new one.

    Raises:
        OSError: it cannot be written, or its folder is missing; the old file is unchanged.
    """
    with _written_beside(path, content.encode() if isinstance(content, str) else content) as part:
        os.replace(part, path)


def append_line(path: Path, line: str) -> None:
    """Appends a line of JSON, with or without its newline, to a file that is created if it is missing.

    Lines of parallel processes do not mix. A last line that a crash cut off is removed first.

    Raises:
        OSError: the line cannot be written; no part of it is left in the file.
    """
    with path.open("ab+", buffering=0) as file:
        with contextlib.suppress(OSError):  # not every network file system has locks
            fcntl.flock(file, fcntl.LOCK_EX)
        added = line.rstrip("\n").encode() + b"\n"
        rest = _after_last_line(file)
        if _is_json(rest):
            added = b"\n" + added
        elif rest:
            file.truncate(file.tell() - len(rest))
        end = file.seek(0, os.SEEK_END)
        try:
            if file.write(added) < len(added):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        except OSError:
            file.truncate(end)
            raise


def read_lines(path: Path) -> list[bytes]:
    """The lines of a JSON Lines file, without newlines and without a last line that a crash cut off.

    Raises:
        OSError: the file cannot be read.
    """
    *lines, rest = path.read_bytes().split(b"\n")
    return [*lines, rest] if _is_json(rest) else lines


def read_each(path: Path, parse: Callable[[bytes], T], damaged: Callable[[int, ValueError], Exception]) -> list[T]:
    """What each line of a file of JSON lines holds; see ``read_lines``.

    Args:
        parse: raises ``ValueError`` for a damaged line.
        damaged: the exception to raise for one, from its number and that error.

    Raises:
        OSError: the file cannot be read.
        Exception: a line is damaged, as ``damaged`` says.
    """
    found = []
    for number, line in enumerate(read_lines(path), start=1):
        try:
            found.append(parse(line))
        except ValueError as error:
            raise damaged(number, error) from None
    return found


def _after_last_line(file: Any) -> bytes:
    """What follows the last newline; leaves the file at its end."""
    size = file.seek(0, os.SEEK_END)
    if not size:
        return b""
    file.seek(size - 1)
    if file.read(1) == b"\n":
        return b""
    file.seek(0)
    return file.read().rpartition(b"\n")[2]


def _is_json(text: bytes) -> bool:
    """Whether this is a line that only lacks its newline; part of an object is never valid JSON."""
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
