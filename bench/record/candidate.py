"""What a run's records and pictures offer as goldens, on a machine that need not be that of the run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from PIL import Image

from bench.calls.device import Device, is_simulated
from bench.calls.pipelines import find_checkpoint, weights_with_loras
from bench.calls.work import Work
from bench.console import shown
from bench.errors import BenchError, UsageError
from bench.pictures.check import Check, check_golden
from bench.pictures.grids import pixels_hash, split_grid
from bench.pictures.store import Origin, describe_origin
from bench.record.folder import ENVIRONMENTS, RECORDS, picture_path
from bench.record.record import Record, read_records
from bench.record.run_info import first_difference
from bench.suite.case import Case
from bench.verdicts import Verdict

# Verdicts on cases that gave nothing to accept.
_BROKEN = (Verdict.RAISES, Verdict.DIED, Verdict.NOT_RUN, Verdict.BROKEN, Verdict.NOT_REPEATABLE)
# Errors of the machine, not of the case.
_OF_THE_MACHINE = ("OutOfMemoryError", "AcceleratorError", "MemoryError")


class Unacceptable(BenchError):
    """A case cannot become a golden; one sentence without the case."""


@dataclass(frozen=True)
class RecordedDevice:
    """The device of a run, as far as its files know it."""

    type: str
    name: str


@dataclass(frozen=True)
class Recorded:
    """The records of a run, with all that becomes the origin of a golden."""

    folder: Path
    records: Mapping[str, Record]
    environments: Mapping[str, Mapping[str, Any]]

    def device_of(self, record: Record) -> Device:
        name = self.environments[record.environment]["device_name"]
        return cast(Device, RecordedDevice(record.device, name))  # goldens need no more of a device


@dataclass(frozen=True)
class Candidate:
    """What a case showed in a run; arguments of ``check_golden``.

    Attributes:
        images: empty if the case raised.
        picture: the file of the images; ``None`` if the case raised.
    """

    case: Case
    record: Record
    images: tuple[Image.Image, ...]
    origin: Origin
    device: Device
    picture: Path | None

    def check(self, goldens: Path, update: str, *, errors: bool = False) -> tuple[Check, str]:
        """Accepts the case in a store of goldens, and returns what was found and the line about what was written.

        Args:
            update, errors: see ``check_golden``.
        """
        lines: list[str] = []
        images = list(self.images)
        found = (self.case, images, self.origin, goldens, self.device)
        check = check_golden(*found, update=update, errors=errors, announce=lines.append)
        return check, "; ".join(lines)


def read_recorded(folder: Path) -> Recorded:
    """Raises:
    UsageError: the folder has no records of a bench or golden run, or damaged ones, or they are of a simulated device.
    """
    path = folder / RECORDS
    try:
        records = {record.case: record for record in read_records(path)}
        path = folder / ENVIRONMENTS
        recorded = Recorded(folder, records, json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UsageError(
            f"{shown(path)}: cannot be read ({error.strerror or error}); give the folder of a bench or golden run."
        ) from None
    except ValueError as error:
        raise UsageError(f"{shown(path)}: damaged ({str(error).splitlines()[0]}).") from None
    for record in records.values():
        if record.environment not in recorded.environments:
            raise UsageError(f"{shown(path)}: has no environment {record.environment}, in which {record.case} ran.")
        if is_simulated(recorded.device_of(record)):
            raise UsageError(f"{shown(folder)}: a simulated accelerator draws no goldens; give a run on a real device.")
    return recorded


def refuse_other_recipes(recorded: Recorded, cases: Sequence[Case], suite_folder: Path) -> None:
    """Raises:
    UsageError: a case had other settings or other weights in the run than it has here.
    PipelineError: the weights of a model that comes with the suite are missing here.
    """
    weights: dict[tuple[Any, ...], str] = {}
    for case in cases:
        record, model, optimizations = recorded.records[case.id], case.model, case.settings.optimizations
        why = first_difference(record.settings, case.settings.recorded())
        if why:
            raise _other(recorded, case, f"{why} in the suite")
        if model.source == "hub":  # the weights may not be here
            if model.revision and record.revision and _is_commit(model.revision) and record.revision != model.revision:
                raise _other(recorded, case, f"its weights were of revision {record.revision}, not {model.revision}")
            continue
        key = (model.name, optimizations)
        if key not in weights:
            weights[key] = weights_with_loras(model, find_checkpoint(model, suite_folder), optimizations)
        if record.weights and record.weights != weights[key]:
            raise _other(recorded, case, f"weights were {record.weights[:12]} and are {weights[key][:12]}")


def _other(recorded: Recorded, case: Case, why: str) -> UsageError:
    return UsageError(
        f"{shown(recorded.folder)}: of another suite ({case.id}: {why}); accept it in the checkout that it ran in, or "
        "run it again."
    )


def _is_commit(revision: str) -> bool:
    return len(revision) == 40 and not set(revision) - set("0123456789abcdef")


def candidate_of(recorded: Recorded, case: Case) -> Candidate:
    """Raises:
    Unacceptable: the case is broken, its work was not counted, or its picture is missing or another one.
    """
    record = recorded.records[case.id]
    error = record.error
    if record.verdict in _BROKEN or record.pictures is None:
        raise Unacceptable(f"{record.verdict}{f' ({error.sentence})' if error else ''}")
    if error and error.type in _OF_THE_MACHINE:
        raise Unacceptable(f"the machine failed ({error.sentence})")
    if not error and (record.work is None or record.work.counts is None):
        raise Unacceptable("its work was not counted; run it without --pictures-only")
    if not record.weights:
        raise Unacceptable("the hash of its weights is not known")
    picture = None if error else picture_path(recorded.folder, case.id)
    device = recorded.device_of(record)
    counts = record.work.counts if record.work else None
    origin = describe_origin(
        case,
        record.weights,
        record.revision,
        device,
        dict(recorded.environments[record.environment]["libraries"]),
        work=Work.from_json(counts) if counts else None,
        error=error,
    )
    return Candidate(case, record, _images(picture, record, case), origin, device, picture)


def _images(picture: Path | None, record: Record, case: Case) -> tuple[Image.Image, ...]:
    if picture is None:
        return ()
    try:
        with Image.open(picture) as opened:
            opened.load()
            grid: Image.Image = opened
    except FileNotFoundError:
        raise Unacceptable(f"its picture is missing: {shown(picture)}") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise Unacceptable(f"its picture cannot be read: {shown(picture)} ({error})") from None
    if record.pixels and pixels_hash(grid) != record.pixels:
        raise Unacceptable(f"{shown(picture)} is not the picture of its record")
    return tuple(split_grid(grid, case.settings.images))
