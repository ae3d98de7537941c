"""One record per case: what was run, how long it took, and whether the pictures are right.

``record.schema.json`` beside this file documents every key; it is made from these classes
(``python -m bench.record.record``).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION = 1
SCHEMA_FILE = Path(__file__).with_name("record.schema.json")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LimitsRecord(_Part):
    ssim: float = Field(description="smallest allowed SSIM of the worst tile")
    max_diff: int = Field(description="largest allowed difference of any value, 8-bit levels")
    changed_share: float = Field(
        default=1.0,
        description="largest allowed share of values that differ; 1 is no limit",
    )
    mean_diff: float = Field(description="largest allowed mean difference of a channel of a tile, 8-bit levels")
    reason: str


class Pictures(_Part):
    """How the grid compares with its golden."""

    verdict: str = Field(description="identical, within limits, changed, missing, stale, broken or not compared")
    message: str = Field(description="the verdict as a sentence")
    ssim_worst_tile: float | None = None
    ssim_tiles: tuple[float, ...] | None = None
    ssim_grid: float | None = None
    max_diff: int | None = Field(default=None, description="8-bit levels")
    changed_share: float | None = Field(default=None, description="share of values that differ")
    mean_diff: tuple[float, float, float] | None = Field(
        default=None, description="signed mean difference per channel of the tile where it is largest, 8-bit levels"
    )
    limits: LimitsRecord | None = None
    golden: str | None = Field(default=None, description="path of the golden that was compared")
    tier: str | None = Field(
        default=None,
        description="whose limits were used: this machine, this type of device or another type of device, seen from "
        "the golden's",
    )


class WorkRecord(_Part):
    """What one call of the case does, counted and not timed, and how that compares with the golden's."""

    verdict: str = Field(description="same work, more work, less work, missing or not compared")
    message: str = Field(description="the verdict as a sentence: what is more or less, and by how much")
    counts: dict[str, Any] | None = Field(
        default=None,
        description="operators and host_syncs by name, copies, copied_bytes, peak_bytes, unet_calls, flops, tokens; "
        "of compiled cases also graphs and graph_breaks",
    )


class PhasesRecord(_Part):
    """Seconds inside one call, measured in a pass of its own."""

    text_encoding: float | None = None
    denoising: tuple[float, ...]
    unet_calls: tuple[int, ...] = Field(description="UNet calls of each step")
    decoding: float


class ErrorRecord(_Part):
    type: str
    message: str = Field(description="first line")

    @classmethod
    def of(cls, error: BaseException) -> ErrorRecord:
        text = str(error).strip()
        return cls(type=type(error).__name__, message=text.splitlines()[0] if text else "")

    @property
    def sentence(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type


class Record(_Part):
    """One case of one run. Times in seconds, memory in bytes."""

    schema_version: int = Field(default=SCHEMA_VERSION, alias="schema", serialization_alias="schema")
    case: str
    model: str
    revision: str | None = Field(default=None, description="the hub's commit of the weights")
    weights: str | None = Field(default=None, description="SHA-256 over the weight files")
    settings: dict[str, Any]
    device: str
    environment: str = Field(description="short hash; environments.json lists the whole")
    load_average: float | None = None
    load_s: float | None = Field(default=None, description="checkpoint on disk to pipeline on device")
    first_call_s: float | None = Field(default=None, description="includes lazy work and compilation")
    samples_s: tuple[float, ...] = Field(default=(), description="steady calls, in order")
    median_s: float | None = None
    mad_s: float | None = Field(default=None, description="median absolute deviation of the samples")
    unet_calls: int | None = Field(default=None, description="UNet calls of one pipeline call")
    phases_s: PhasesRecord | None = None
    peak_memory_bytes: int | None = None
    peak_memory_reason: str | None = Field(default=None, description="why peak_memory_bytes is null")
    pictures: Pictures | None = None
    work: WorkRecord | None = Field(default=None, description="null where nothing was counted")
    error: ErrorRecord | None = None
    verdict: str = Field(
        description="that of the pictures, or, if these pass: more work, work missing, less work (where that was "
        "accepted), not repeatable; or raises"
    )

    def to_line(self) -> str:
        return self.model_dump_json(by_alias=True) + "\n"


def read_records(path: Path) -> list[Record]:
    """All records of a ``records.jsonl``.

    Raises:
        ValueError: a line is no record; names file and line.
    """
    records = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            records.append(Record.model_validate_json(line))
        except ValueError as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{path}, line {number}: not a record ({reason}).") from None
    return records


def schema() -> str:
    return json.dumps(Record.model_json_schema(by_alias=True), indent=2) + "\n"


if __name__ == "__main__":
    SCHEMA_FILE.write_text(schema())
    print(f"wrote {SCHEMA_FILE}")
