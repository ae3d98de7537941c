"""Tables and paths as the terminal shows them."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).resolve().parents[1]


def announce(line: str) -> None:
    """Prints a line at once, also where the output is not a terminal."""
    print(line, flush=True)


def table_text(table: Table, width: int, colour: bool) -> str:
    """A table as lines without trailing spaces; its cells are plain text, not markup."""
    stream = io.StringIO()
    Console(file=stream, width=width, force_terminal=colour, highlight=False, emoji=False, markup=False).print(table)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def shown(path: Path) -> str:
    """A path relative to the repository if it is inside: short, and the same on every machine."""
    resolved = path.resolve()
    return resolved.relative_to(REPOSITORY).as_posix() if resolved.is_relative_to(REPOSITORY) else str(path)
