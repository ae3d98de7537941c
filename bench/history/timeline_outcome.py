"""The result of a timeline, as it is written to ``timeline.json``.

Schema: ``timeline.schema.json``, written by ``python -m bench.history.timeline_outcome``.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, Field

from bench.files import write_atomically
from bench.frozen import Frozen
from bench.pictures.similarity import Limits
from bench.verdicts import Rank, Verdict

TIMELINE = "timeline.json"
SCHEMA_VERSION = 1
SCHEMA_FILE = Path(__file__).with_name("timeline.schema.json")
RAN = "ran"
# What can happen to a case, in the order of the report.
MARKS = (
    Verdict.RAISES_NOW,
    Verdict.BROKEN,
    Verdict.RAISES_ELSE,
    Verdict.WORKS_NOW,
    Verdict.CHANGED,
    Verdict.MORE_WORK,
    Verdict.OTHER_CALLS,
    Verdict.LESS_WORK,
    Verdict.WARNS,
)


class CaseInRelease(Frozen):
    """One case under one release, compared with the release before that ran."""

    case: str
    verdict: str = Field(
        description="identical, within limits, changed, broken, raises now, works now, raises something else, raises "
        "as before; in the first release: first, or raises"
    )
    message: str = Field(description="the verdict as a sentence")
    compared_with: str | None = Field(default=None, description="the release before that ran")
    pictures_compared_with: str | None = Field(
        default=None,
        description="the last release in which this case made pictures; the figures below and the new warnings "
        "are compared with it",
    )
    ssim_worst_tile: float | None = None
    ssim_tiles: tuple[float, ...] | None = None
    ssim_grid: float | None = None
    max_diff: int | None = Field(default=None, description="8-bit levels")
    changed_share: float | None = Field(default=None, description="share of values that differ")
    mean_diff: tuple[float, float, float] | None = Field(
        default=None, description="signed mean difference per channel, 8-bit levels"
    )
    limits: Limits | None = None
    error: str | None = Field(default=None, description="why there are no pictures")
    new_warnings: tuple[str, ...] = Field(
        default=(),
        validation_alias=AliasChoices("new_warnings", "new_notices"),
        description="warnings that were not given before",
    )
    unet_calls: int | None = None
    unet_calls_before: int | None = None
    work: str | None = Field(default=None, description="same work, more work or less work; null if there are no counts")
    work_message: str | None = Field(default=None, description="what is more or less, and by how much")

    @property
    def marks(self) -> tuple[Verdict, ...]:
        """What happened to this case; empty if nothing did."""
        found = {self.verdict, self.work}
        if None not in (self.unet_calls, self.unet_calls_before) and self.unet_calls != self.unet_calls_before:
            found.add(Verdict.OTHER_CALLS)
        if self.new_warnings:
            found.add(Verdict.WARNS)
        return tuple(mark for mark in MARKS if mark in found)

    @property
    def notable(self) -> tuple[Verdict, ...]:
        """The marks that rank above "no worse"."""
        return tuple(mark for mark in self.marks if mark.rank > Rank.NO_WORSE)


class ReleaseFound(Frozen):
    """One release: a column of the map."""

    release: str
    status: str = Field(description="ran, not installed or not imported")
    reason: str | None = Field(default=None, description="why it did not run")
    changes: tuple[str, ...] = Field(
        default=(), description="libraries that differ from the release before that ran: 'diffusers 0.41.0 → 0.42.1'"
    )
    libraries: dict[str, str] = Field(default={}, description="everything installed, with its version")
    seconds: float = Field(description="wall time, including making the environment")
    cases: tuple[CaseInRelease, ...] = ()

    @property
    def ran(self) -> bool:
        return self.status == RAN

    def counts(self) -> Counter[str]:
        return Counter(case.verdict for case in self.cases)


class TimelineFound(Frozen):
    """A timeline; written after each release."""

    schema_version: int = Field(default=SCHEMA_VERSION, alias="schema", serialization_alias="schema")
    library: str
    span: str = Field(description="the requested range")
    alongside: str = Field(description="requirements installed with each release")
    planned: tuple[str, ...] = Field(
        description="all releases of the timeline; those missing from releases were not reached"
    )
    cases: tuple[str, ...] = Field(description="ids of the cases, in the order of the map")
    settings: dict[str, dict[str, Any]] = Field(default={}, description="of each case")
    device: str
    device_name: str
    releases: tuple[ReleaseFound, ...] = ()

    @property
    def is_complete(self) -> bool:
        return len(self.releases) == len(self.planned)

    def happenings(self) -> list[tuple[ReleaseFound, CaseInRelease]]:
        """The cases with marks, in the order of the releases."""
        return [(release, case) for release in self.releases for case in release.cases if case.marks]


def write_timeline(path: Path, found: TimelineFound) -> None:
    """Writes the file atomically: a crash leaves the old file or the new one."""
    write_atomically(path, found.model_dump_json(by_alias=True, indent=2) + "\n")


def read_timeline(path: Path) -> TimelineFound:
    return TimelineFound.model_validate_json(path.read_bytes())


def schema() -> str:
    return json.dumps(TimelineFound.model_json_schema(by_alias=True), indent=2) + "\n"


if __name__ == "__main__":
    SCHEMA_FILE.write_text(schema())
    print(f"wrote {SCHEMA_FILE}")
