"""How paths are shown."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def shown(path: Path) -> str:
    """A path as seen from the repository, where it is inside: short, and the same on every machine."""
    resolved = path.resolve()
    return resolved.relative_to(REPOSITORY).as_posix() if resolved.is_relative_to(REPOSITORY) else str(path)
