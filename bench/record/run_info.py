"""What a run was meant to do, in ``run.json``, so that an incomplete run is reported."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import Field

from bench.files import write_atomically
from bench.frozen import Frozen

FILE = "run.json"
MOST_NAMED = 5


class RunInfo(Frozen):
    """Written when the tests start, and again when they have ended."""

    schema_version: int = Field(default=1, alias="schema", serialization_alias="schema")
    command: str = Field(description="how the run was started")
    began: str = Field(description="local time, ISO 8601")
    ended: str | None = Field(default=None, description="null if the run was cut short")
    planned: tuple[str, ...] = Field(description="ids of the cases that were selected")
    left_out: dict[str, int] = Field(default={}, description="how many cases of the suite were left out, by reason")
    rerun_options: tuple[str, ...] = Field(default=(), description="options that a run of one of these cases needs too")
    other_failures: tuple[str, ...] = Field(
        default=(), description="failed checks other than cases, such as the check for unused goldens"
    )

    canary_s: tuple[float, ...] = Field(
        default=(), description="seconds of a fixed matrix product before and after a run that times"
    )
    not_comparable: tuple[str, ...] = Field(
        default=(), description="why the times of this run cannot be compared with those of another"
    )

    @property
    def times_warning(self) -> str:
        """Says that the times are not comparable, and why; empty if they are."""
        reasons = "; ".join(self.not_comparable)
        return f"The times of this run are not comparable: {reasons}." if reasons else ""

    @property
    def span(self) -> str:
        """When it ran."""
        return f"{self.began} to {self.ended or '(cut short)'}"

    def problems(self, ended: Iterable[str]) -> list[str]:
        """What this run did not do, and what failed other than its cases, one sentence each.

        Args:
            ended: ids of the cases that ended, here or in another shard.
        """
        known = set(ended)
        missing = [case for case in self.planned if case not in known]
        found = list(self.other_failures)
        if missing:
            found.append(f"{len(missing)} of {len(self.planned)} selected cases did not run: {named(missing)}.")
        if not self.ended:
            found.append("The run was cut short.")
        return found


def named(cases: Sequence[str]) -> str:
    """The first of the cases, and how many more there are."""
    more = f" and {len(cases) - MOST_NAMED} more" if len(cases) > MOST_NAMED else ""
    return ", ".join(cases[:MOST_NAMED]) + more


def now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def write_run_info(folder: Path, info: RunInfo) -> None:
    write_atomically(folder / FILE, info.model_dump_json(by_alias=True, indent=2) + "\n")


def read_run_info(folder: Path) -> RunInfo | None:
    """``None`` if a run wrote none.

    Raises:
        ValueError: the file contains something else.
    """
    path = folder / FILE
    return RunInfo.model_validate_json(path.read_bytes()) if path.is_file() else None
