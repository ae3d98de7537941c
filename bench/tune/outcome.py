"""What a study found, as it is written to ``tune.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from bench.files import write_atomically
from bench.frozen import Frozen
from bench.tune.result import Timed, Tried, with_new_times

TUNE = "tune.json"
# Folder of the picks, and its file with their cases.
PICKS, PICKED_CASES = "picks", "cases.toml"


class PickFound(Frozen):
    """One of the named settings."""

    name: str = Field(description="as good as the reference, balanced, or fastest acceptable")
    case: str
    reason: str

    @property
    def program(self) -> str:
        """Name of the file with its program."""
        return f"{self.name.replace(' ', '-')}.py"


class TuneFound(Frozen):
    """A study, with everything that its report shows."""

    schema_version: int = Field(default=1, alias="schema", serialization_alias="schema")
    study: str
    model: dict[str, Any] = Field(description="the model's entry in the suite file")
    suite: str = Field(description="path of the suite file")
    device: str
    device_name: str
    environment: dict[str, Any]
    settings: int = Field(description="how many settings may be tried")
    left_out: dict[str, int] = Field(description="how many combinations cannot be tried, by reason")
    reference: str = Field(description="id of the case whose pictures the others should have")
    start: str = Field(description="id of the case that a user has before tuning")
    quality: str = Field(description="what quality is: SSIM, or the user's measure")
    min_quality: float
    max_seconds: float | None = None
    tried: tuple[Tried, ...]
    failed: dict[str, str] = Field(description="why settings could not be used, by id")
    front: tuple[Timed, ...] = Field(description="measured again in turns, fastest first")
    picks: tuple[PickFound, ...]
    seconds: float = Field(description="of this worker, search and measuring again")
    is_exhaustive: bool = Field(default=False, description="whether every setting was tried")

    @property
    def by_case(self) -> dict[str, Tried]:
        return {one.case: one for one in self.tried}

    @property
    def front_tried(self) -> list[Tried]:
        """The settings of the front as they were tried, fastest first, with the time that was measured again."""
        return with_new_times(self.tried, self.front)


def write_found(path: Path, found: TuneFound) -> None:
    write_atomically(path, found.model_dump_json(by_alias=True, indent=2) + "\n")


def read_found(path: Path) -> TuneFound:
    """Raises:
    ValueError: the file contains something else.
    """
    return TuneFound.model_validate_json(path.read_bytes())
