"""The result of a bisection, as it is written to ``bisect.json``.

Schema: ``bisect.schema.json``, written by ``python -m bench.history.bisect_outcome``.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import Field

from bench.files import write_atomically
from bench.frozen import Frozen
from bench.history.question import Answer

SCHEMA_VERSION = 1
SCHEMA_FILE = Path(__file__).with_name("bisect.schema.json")


class Step(Frozen):
    """One release or commit that was judged."""

    item: str = Field(description="release, or commit")
    answer: Answer
    seconds: float = Field(description="wall time, including making the environment")


class CommitsFound(Frozen):
    """The search over the commits between two releases."""

    good_tag: str
    bad_tag: str
    steps: tuple[Step, ...] = ()
    first_bad: str | None = Field(default=None, description="commit and its subject; null if not found")
    possible: tuple[str, ...] = Field(default=(), description="commits that it may be, if some could not be tried")
    problem: str | None = Field(default=None, description="why nothing was found")


class BisectFound(Frozen):
    """A bisection; written after each step."""

    schema_version: int = Field(default=SCHEMA_VERSION, alias="schema", serialization_alias="schema")
    library: str
    span: str = Field(description="the requested range")
    alongside: str = Field(description="requirements installed with each release")
    case: str
    by: str = Field(description="pictures, speed, or usable: whether a release can be installed and imported")
    releases: tuple[str, ...] = Field(description="all releases of the range")
    device: str
    device_name: str
    steps: tuple[Step, ...] = ()
    last_good: str | None = Field(default=None, description="last release known to be unchanged")
    first_bad: str | None = Field(default=None, description="first release known to be changed")
    between: tuple[str, ...] = Field(
        default=(), description="releases between these two that were skipped or not tried"
    )
    commits: CommitsFound | None = Field(default=None, description="only with --repo")
    sentence: str = Field(default="", description="the answer; empty while the search runs")


def write_bisect(path: Path, found: BisectFound) -> None:
    """Writes the file atomically: a crash leaves the old file or the new one."""
    write_atomically(path, found.model_dump_json(by_alias=True, indent=2) + "\n")


def read_bisect(path: Path) -> BisectFound:
    return BisectFound.model_validate_json(path.read_bytes())


def schema() -> str:
    return json.dumps(BisectFound.model_json_schema(by_alias=True), indent=2) + "\n"


if __name__ == "__main__":
    SCHEMA_FILE.write_text(schema())
    print(f"wrote {SCHEMA_FILE}")
