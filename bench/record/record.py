"""One record per case: what was run, how long it took, and whether the pictures are right.

``record.schema.json`` beside this file documents every key; it is made from these classes
(``python -m bench.record.record``).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import Field

from bench.calls.phases import Phases
from bench.calls.raised import RaisedError
from bench.files import read_each
from bench.frozen import Frozen
from bench.pictures.compared import ComparedWork, Pictures
from bench.record.nvml import GpuState

SCHEMA_VERSION = 1
SCHEMA_FILE = Path(__file__).with_name("record.schema.json")


class Record(Frozen):
    """One case of one run. Times in seconds, memory in bytes."""

    schema_version: int = Field(default=SCHEMA_VERSION, alias="schema", serialization_alias="schema")
    case: str
    model: str
    revision: str | None = Field(default=None, description="the hub's commit of the weights")
    weights: str | None = Field(default=None, description="SHA-256 over the weight files")
    settings: dict[str, Any]
    device: str
    device_id: str | None = Field(
        default=None,
        description="which of several devices, where each process has its own: sim:1, 3, GPU-8f6c…",
    )
    environment: str = Field(description="short hash; environments.json has the details")
    load_average: float | None = None
    seconds: float | None = Field(default=None, description="wall time that the case took, without loading")
    load_s: float | None = Field(default=None, description="checkpoint on disk to pipeline on device")
    first_call_s: float | None = Field(default=None, description="includes lazy work and compilation")
    first_call_cold: bool | None = Field(
        default=None,
        description="whether it was the first call of its pipeline in its process; later cases of the same pipeline "
        "find kernels chosen and buffers allocated. Null in older records",
    )
    samples_s: tuple[float, ...] = Field(default=(), description="steady calls, in order")
    median_s: float | None = None
    mad_s: float | None = Field(default=None, description="median absolute deviation of the samples")
    unet_calls: int | None = Field(default=None, description="UNet calls of one pipeline call")
    phases_s: Phases | None = None
    peak_memory_bytes: int | None = Field(default=None, description="most memory in use by tensors in one call")
    peak_memory_reason: str | None = Field(default=None, description="why peak_memory_bytes is null")
    peak_reserved_bytes: int | None = Field(
        default=None, description="most memory that torch held in that call, unused blocks included"
    )
    peak_reserved_reason: str | None = Field(
        default=None, description="why peak_reserved_bytes is null; null as well in older records"
    )
    gpu: GpuState | None = Field(default=None, description="null on other devices, and where no times were measured")
    pixels: str | None = Field(default=None, description="SHA-256 of the grid's values, which ties it to its file")
    pictures: Pictures | None = None
    work: ComparedWork | None = Field(default=None, description="null where nothing was counted")
    error: RaisedError | None = None
    verdict: str = Field(
        description="that of the pictures, or, if these pass: more work, work missing, less work (where that was "
        "accepted), not repeatable; or raises"
    )

    def to_line(self) -> str:
        return self.model_dump_json(by_alias=True) + "\n"


def read_records(path: Path) -> list[Record]:
    """All records of a ``records.jsonl``, except a last one that a crash cut off.

    Raises:
        ValueError: a line is not a record; names file and line.
    """

    def damaged(number: int, error: ValueError) -> ValueError:
        return ValueError(f"{path}, line {number}: not a record ({str(error).splitlines()[0]}).")

    return read_each(path, Record.model_validate_json, damaged)


def schema() -> str:
    return json.dumps(Record.model_json_schema(by_alias=True), indent=2) + "\n"


if __name__ == "__main__":
    SCHEMA_FILE.write_text(schema())
    print(f"wrote {SCHEMA_FILE}")
