"""Renders a story as one HTML file that opens from disk and makes no network requests."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bench.files import write_atomically
from bench.report.pictures import LARGEST_WITHIN, Card, cards_of
from bench.report.story import CaseEntry, Story

# Filters, in the order of the form.
FILTERS = ("model", "verdict", "speed", "work", "release", "scheduler", "dtype")


@dataclass(frozen=True)
class Page:
    """A written page: its path, its size in bytes, and the folder of its pictures unless they are embedded."""

    path: Path
    size: int
    pictures: Path | None

    def __str__(self) -> str:
        return self.within(str(self.path))

    def within(self, path: str) -> str:
        """The given path of the page with its size, for messages."""
        beside = f"; its pictures are in {self.pictures.name}/ beside it" if self.pictures else ""
        return f"{path} ({self.size / 1e6:.1f} MB{beside})"


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("bench.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"pretty": pretty, "environment_rows": environment_rows}
    environment.globals["choices"] = choices
    return environment


def pretty(settings: dict[str, Any]) -> str:
    """Settings as JSON, a key on each line."""
    return "\n".join(
        ["{", ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in settings.items()), "}"]
    )


def environment_rows(story: Story) -> list[tuple[str, list[str], bool]]:
    """Each name with its value in every environment, and whether these differ; what differs comes first."""
    facts = [side.facts for side in story.environments]
    names = dict.fromkeys(name for one in facts for name in one)
    rows = [(name, [one.get(name, "") for one in facts]) for name in names]
    return sorted(((name, values, len(set(values)) > 1) for name, values in rows), key=lambda row: not row[2])


def choices(entries: tuple[CaseEntry, ...]) -> dict[str, list[str]]:
    """The values of each filter that has at least two."""
    found = {name: sorted({entry.group.get(name, "") for entry in entries} - {""}) for name in FILTERS}
    return {name: values for name, values in found.items() if len(values) > 1}


def _asset(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def render_page(story: Story, cards: list[Card]) -> str:
    """The page as HTML; its content security policy allows only its own script and pictures."""
    script, style = _asset("page.js"), _asset("page.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(story=story, cards=cards, script=Markup(script), style=Markup(style), digest=digest)
    )


def write_page(story: Story, path: Path, largest_within: int = LARGEST_WITHIN) -> Page:
    """Writes the page atomically, so that a crash leaves the old one or the new one."""
    cards, pictures = cards_of(story.entries, path, largest_within)
    content = render_page(story, cards).encode()
    write_atomically(path, content)
    return Page(path, len(content), pictures)
