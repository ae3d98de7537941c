"""Renders a story as Markdown, for a file and for the step summary of a CI job."""

from __future__ import annotations

import html
import os
import re
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from bench.files import write_atomically
from bench.report.story import CaseEntry, Story, Table, Value, ssim

# GitHub refuses the summary of a step above 1 MiB; other commands of the step may write there too.
LONGEST = 2**20 // 2
MOST_WORST = 3


def cell(text: object) -> str:
    """Escapes text so that it cannot end a table cell or become markup."""
    plain = html.escape(" ".join(str(text).split()), quote=False)
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", plain)


def _case_row(entry: CaseEntry) -> tuple[Value, ...]:
    words = ", ".join(verdict.word for verdict in (entry.verdict, *entry.more))
    headroom = Value("" if entry.headroom is None else "none" if entry.headroom < 0 else f"{entry.headroom:.0%}")
    return (
        Value(entry.title),
        Value(words),
        ssim(entry.worst_ssim),
        headroom,
        Value("; ".join((*entry.problems, *entry.notes))),
    )


def _cases(story: Story) -> Table:
    columns = ("case", "verdict", "SSIM of the worst tile", "headroom", "")
    rows = tuple(_case_row(entry) for entry in story.entries)
    return Table("Cases", columns, rows, tuple(entry.key for entry in story.entries))


def render_summary(story: Story) -> str:
    """The verdict first, then the groups, the worst cases, the counts, what was compared, and all numbers as tables."""
    environment = Environment(
        loader=PackageLoader("bench.report", "."), undefined=StrictUndefined, trim_blocks=True, autoescape=False
    )
    environment.filters["cell"] = cell
    said = {group.cases[0][0] for group in story.groups if len(group.cases) == 1}
    worst = [entry for entry in story.entries if entry.failed and entry.title not in said]
    tables = [table for section in story.sections for table in section.tables]
    return environment.get_template("summary.md.jinja").render(
        story=story,
        worst=worst[:MOST_WORST],
        tables=[_cases(story), *tables] if story.entries else tables,
    )


def publish_summary(text: str, path: Path) -> None:
    """Writes the summary, and appends it to ``$GITHUB_STEP_SUMMARY`` if that is set."""
    write_atomically(path, text)
    step = os.environ.get("GITHUB_STEP_SUMMARY")
    if step:
        if len(text.encode()) > LONGEST:
            text = f"{text.encode()[:LONGEST].decode(errors='ignore')}\n\n(shortened; the rest is in {path.name})\n"
        with open(step, "a", encoding="utf-8") as file:
            file.write(text)
