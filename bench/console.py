"""Tables as text."""

from __future__ import annotations

import io

from rich.console import Console
from rich.table import Table


def table_text(table: Table, width: int, colour: bool) -> str:
    """A table as lines without trailing spaces; nothing in its cells is taken as markup."""
    stream = io.StringIO()
    Console(file=stream, width=width, force_terminal=colour, highlight=False, emoji=False, markup=False).print(table)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())
