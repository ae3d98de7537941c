"""Files that are either the old ones or the new ones, whatever happens while they are written."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path

from PIL import Image


def as_png(image: Image.Image) -> bytes:
    """The smallest file of a picture."""
    content = BytesIO()
    image.save(content, format="PNG", optimize=True)
    return content.getvalue()


def shows(path: Path, image: Image.Image) -> bool:
    """Whether a file holds this very picture, however it is compressed."""
    try:
        with Image.open(path) as opened:
            return (opened.mode, opened.size) == (image.mode, image.size) and opened.tobytes() == image.tobytes()
    except (OSError, SyntaxError, ValueError):
        return False


@contextlib.contextmanager
def _written_beside(path: Path, content: bytes) -> Iterator[str]:
    """A hidden file beside ``path`` with this content, on disk; deleted at the end unless it was moved."""
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
    """Writes all files, then puts each in its place; a crash in between leaves each old or new, never half.

    Raises:
        OSError: one cannot be written; all are as they were.
    """
    with contextlib.ExitStack() as stack:
        parts = {}
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            parts[path] = stack.enter_context(_written_beside(path, content))
        for path, part in parts.items():
            os.replace(part, path)
