"""The content of a library's source: the same address may have other content later."""

from __future__ import annotations

import hashlib
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname


def local_path(source: str) -> Path | None:
    parts = urlsplit(source)
    return Path(url2pathname(unquote(parts.path))) if parts.scheme == "file" else None


def content_of(source: str) -> str:
    """The source with its present content: of a file, its hash; a git address already names its commit."""
    path = local_path(source)
    if path is None:
        return source
    with path.open("rb") as file:
        return f"{source} {hashlib.file_digest(file, 'sha256').hexdigest()}"
