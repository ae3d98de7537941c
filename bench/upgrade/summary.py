"""The outcome of an upgrade check in Markdown, for a file and for a CI job's summary."""

from __future__ import annotations

import os
from pathlib import Path

from bench.upgrade.markdown import render
from bench.upgrade.outcome import UpgradeFound, worst_cases
from bench.upgrade.tables import counts_line, percent

# GitHub refuses a step's summary above 1 MiB.
LONGEST = 2**20


def render_summary(found: UpgradeFound) -> str:
    """Verdict first, then the differences between the sides, then all cases."""
    return render(
        "summary.md.jinja",
        {"percent": percent},
        found=found,
        problems=found.problems,
        worst=worst_cases(found),
        notes=counts_line(found),
    )


def publish_summary(found: UpgradeFound, path: Path) -> None:
    """Writes the summary, and appends it to ``$GITHUB_STEP_SUMMARY`` where that is set."""
    text = render_summary(found)
    path.write_text(text, encoding="utf-8")
    step = os.environ.get("GITHUB_STEP_SUMMARY")
    if step:
        if len(text.encode()) > LONGEST:
            text = f"{text.encode()[: LONGEST // 2].decode(errors='ignore')}\n\n(cut; the whole is in {path.name})\n"
        with open(step, "a", encoding="utf-8") as file:
            file.write(text)
