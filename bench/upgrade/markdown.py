"""Templates of Markdown pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def cell(text: object) -> str:
    """Text that cannot end a table's cell or become markup."""
    return " ".join(str(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").split())


def render(template: str, filters: dict[str, Callable[..., str]], **values: Any) -> str:
    """A template of this package, with ``cell`` and these filters."""
    environment = Environment(loader=PackageLoader("bench.upgrade", "."), undefined=StrictUndefined, trim_blocks=True)
    environment.filters |= {"cell": cell} | filters
    return environment.get_template(template).render(**values)
