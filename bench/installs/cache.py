"""The cache of environments: a folder for each, with its description and locks for making and using it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from bench.files import write_atomically
from bench.installs.installed import Change, Environment

DESCRIPTION = "environment.json"
USES = "uses"
PART = ".part"
_KEY = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class CachedEnvironment:
    """An environment in the cache.

    Attributes:
        asked: the side that it was made for.
        changes: what differs from the environment it was cloned from.
        occupied_bytes: disk space that only this environment uses; files shared by links are not counted.
    """

    folder: Path
    asked: str
    changes: tuple[Change, ...]
    occupied_bytes: int
    last_used: datetime


def list_environments(cache: Path) -> tuple[CachedEnvironment, ...]:
    """The environments in the cache, most recently used first."""
    found = (_described(folder) for folder in _folders(cache))
    return tuple(sorted(found, key=lambda one: one.last_used, reverse=True))


def prune_environments(cache: Path, announce: Callable[[str], None]) -> int:
    """Removes the environments that are not in use and not being made, and returns how many."""
    clear_leftovers(cache)
    removed = 0
    for one in list_environments(cache):
        with _lock_at_once(cache, one.folder.name) as locked:
            if locked and not one.folder.exists():
                continue
            if not locked or _is_used(one.folder):
                announce(f"kept '{one.asked}': it is in use")
                continue
            remove(one.folder)
        removed += 1
        announce(f"removed '{one.asked}' ({one.occupied_bytes / 1e6:,.1f} MB)")
    return removed


def in_use(folder: Path, found: Environment, unmet: tuple[str, ...]) -> Environment:
    """The environment with a lock for this use, which the system releases even if the process dies."""
    uses = folder / USES
    uses.mkdir(exist_ok=True)
    use = FileLock(uses / f"{os.getpid()}-{uuid.uuid4().hex[:8]}.lock", thread_local=False)
    use.acquire(timeout=0)
    return replace(found, unmet=unmet, folder=folder, _use=use)


def _is_used(folder: Path) -> bool:
    return not all(_is_free(path) for path in (folder / USES).glob("*.lock"))


def _is_free(path: Path) -> bool:
    try:
        with FileLock(path, timeout=0):
            return True
    except Timeout:
        return False


@contextlib.contextmanager
def lock(cache: Path, key: str, waiting: Callable[[], None]) -> Iterator[None]:
    """Held while an environment is made; ``waiting`` is called if another process holds the lock."""
    lock = FileLock(cache / f"{key}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waiting()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _lock_at_once(cache: Path, key: str) -> Iterator[bool]:
    """Whether the lock was free; it is held within the block."""
    lock = FileLock(cache / f"{key}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def clear_leftovers(cache: Path) -> None:
    """Deletes what killed builds left; a build that still runs holds its lock."""
    for part in cache.glob(f"*{PART}"):
        with _lock_at_once(cache, part.name.removesuffix(PART)) as locked:
            if locked:
                delete(part)


def remove(folder: Path) -> None:
    """Removes an environment from the cache; its lock must be held."""
    part = folder.with_name(folder.name + PART)
    delete(part)
    os.replace(folder, part)  # first, so that an interrupted removal leaves no broken environment
    delete(part)


def delete(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _folders(cache: Path) -> list[Path]:
    return [path for path in cache.glob("*") if _KEY.fullmatch(path.name) and path.is_dir()]


def _described(folder: Path) -> CachedEnvironment:
    description = read_description(folder) or {
        "asked": "unknown",
        "changes": [],
        "last_used": "1970-01-01T00:00:00+00:00",
    }
    return CachedEnvironment(
        folder=folder,
        asked=description["asked"],
        changes=tuple(Change(**change) for change in description["changes"]),
        occupied_bytes=occupied_bytes(folder),
        last_used=datetime.fromisoformat(description["last_used"]),
    )


def occupied_bytes(folder: Path) -> int:
    """Disk space that only this folder uses, in bytes: files that have other links are not counted."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # another process may be pruning
                status = os.lstat(Path(root) / name)
                total += status.st_size if status.st_nlink == 1 else 0
    return total


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_description(folder: Path) -> dict[str, Any] | None:
    """The description of an environment; ``None`` if it is missing or incomplete."""
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return (
        description
        if isinstance(description, dict) and {"asked", "changes", "unmet", "last_used"} <= set(description)
        else None
    )


def write_description(folder: Path, asked: str, changes: list[dict[str, Any]], unmet: Sequence[str]) -> None:
    """Writes what the environment was made for, and the time of its last use: now."""
    description = {"asked": asked, "changes": changes, "unmet": unmet, "last_used": _now()}
    write_atomically(folder / DESCRIPTION, json.dumps(description, indent=2, ensure_ascii=False) + "\n")
