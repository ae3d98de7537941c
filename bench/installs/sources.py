"""What a source of a library is now: two contents under one address are two sources."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

_BUILT_THINGS = {"build", "dist", "__pycache__", "node_modules"}


def local_path(source: str) -> Path | None:
    parts = urlsplit(source)
    return Path(url2pathname(unquote(parts.path))) if parts.scheme == "file" else None


def content_of(source: str) -> str:
    """What a source is now: a git address has its commit, a file and a checkout are read."""
    path = local_path(source)
    if path is None:
        return source
    if path.is_file():
        with path.open("rb") as file:
            return f"{source} {hashlib.file_digest(file, 'sha256').hexdigest()}"
    return f"{source} {_hash_of_checkout(path)}"


def _hash_of_checkout(folder: Path) -> str:
    """Over its commit, from which some builds take the version, and over every file that is not itself built."""
    head = subprocess.run(["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    digest = hashlib.sha256(head.stdout.encode() if head.returncode == 0 else b"")
    for path in sorted(_source_files(folder)):
        digest.update(f"\0{path.relative_to(folder)}\0".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _source_files(folder: Path) -> Iterator[Path]:
    listing = ["git", "-C", str(folder), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, capture_output=True, check=False)
    if listed.returncode == 0:
        names = {os.fsdecode(name) for name in listed.stdout.split(b"\0") if name}
        found = (folder / name for name in names)
    else:
        found = (path for path in folder.rglob("*"))
    for path in found:
        parts = path.relative_to(folder).parts
        built = any(part in _BUILT_THINGS or part.endswith(".egg-info") or part.startswith(".") for part in parts)
        if not built and path.is_file():
            yield path
