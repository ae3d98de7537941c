"""What a run was meant to do, in ``run.json``, so that an incomplete run is reported."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from bench.files import write_atomically
from bench.frozen import Frozen
from bench.suite.case import Case

FILE = "run.json"
# Parts of an environment in which machines of one kind differ.
_OF_ONE_MACHINE = ("platform", "cores", "device_memory_bytes")
MOST_NAMED = 5


class Shard(Frozen):
    """Which part of a run a shard is. All shards of a run have the same one, except for the index."""

    index: int = Field(ge=1)
    count: int = Field(ge=1)
    chosen: tuple[str, ...] = Field(description="ids of the cases of all shards")
    basis: str = Field(description="what the cases were split by, and a short hash of the expected durations")

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


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
    environment: str | None = Field(default=None, description="short hash; environments.json has the details")
    suite: str | None = Field(default=None, description="short hash of the models and settings of the cases")
    options: dict[str, Any] = Field(default={}, description="options that decide what is done with each case")
    shard: Shard | None = None
    canary_s: tuple[float, ...] = Field(
        default=(), description="seconds of a fixed matrix product before and after a run that times"
    )
    not_comparable: tuple[str, ...] = Field(
        default=(), description="why the times of this run cannot be compared with those of another"
    )

    @property
    def is_empty_shard(self) -> bool:
        """Whether other shards have all cases of the run."""
        return self.shard is not None and not self.planned

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


def suite_hash(cases: Iterable[Case]) -> str:
    """Eight hexadecimal digits that are the same for cases with the same models and settings.

    Where a model is on disk does not count: the hash of its weights is in each record.
    """
    described = {}
    for case in cases:
        model = case.model.model_dump(mode="json", exclude={"path": True, "loras": {"__all__": {"path"}}})
        described[case.id] = [model, case.settings.recorded()]
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:8]


def different_request(before: RunInfo, suite: str | None, options: Mapping[str, Any]) -> str | None:
    """The first difference of what two runs were asked to do with each case, in words; ``None`` if none exists."""
    if before.suite != suite:
        return f"the suite was {before.suite} and is {suite}"
    return first_difference(before.options, options)


def different_environment(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """The first difference of two environments whose cases cannot count as one run, in words; ``None`` if they can."""
    return first_difference(*({key: one[key] for key in one if key not in _OF_ONE_MACHINE} for one in (before, now)))


def first_difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """The first key in which two mappings differ, nested ones included, such as ``torch was 2.9 and is 2.10``."""
    for key in dict.fromkeys([*before, *now]):
        was, is_ = before.get(key), now.get(key)
        if isinstance(was, Mapping) and isinstance(is_, Mapping):
            inner = first_difference(was, is_)
            if inner:
                return inner
        elif was != is_:
            return f"{key.replace('_', ' ')} was {was} and is {is_}"
    return None


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
