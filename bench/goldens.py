"""The golden store: accepted grids, where each comes from, and their life cycle."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from bench.device import Device
from bench.grids import make_grid, split_grid
from bench.limits import default_limits
from bench.records import LimitsRecord, Pictures, WorkRecord
from bench.similarity import CHANGED, IDENTICAL, WITHIN_LIMITS, Incomparable, Limits, Similarity, compare
from bench.suite import Case
from bench.work import LESS_WORK, MORE_WORK, Work, compare_work

MISSING, STALE, BROKEN = "missing", "stale", "broken"
NOT_COMPARED, WORK_MISSING = "not compared", "work missing"
PASSED = frozenset({IDENTICAL, WITHIN_LIMITS})
REFERENCE, TYPE, EXACT = "reference", "type", "device"


class GoldenError(Exception):
    """A golden's files cannot be used; one sentence that names the file."""


class Origin(BaseModel):
    """Where a golden comes from: the JSON file beside the picture.

    Attributes:
        settings: all settings of the case, prompts included.
        seeds: one per image.
        weights: SHA-256 over the weight files.
        device: ``type`` and ``name``.
        libraries: versions.
        date: day it was accepted, ISO 8601.
        pixels: SHA-256 of the picture's values, which ties the two files together.
        limits: measured limits of this case, or ``None`` for the default of its dtype and device type.
        work: what one call of the case did, as ``Work.to_json`` gives it, or ``None`` where it was not counted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    case: str
    settings: dict[str, Any]
    seeds: tuple[int, ...] = Field(min_length=1)
    weights: str
    revision: str | None
    device: dict[Literal["type", "name"], str] = Field(min_length=2)
    libraries: dict[str, str | None]
    date: str
    pixels: str = ""
    limits: LimitsRecord | None = None
    work: dict[str, Any] | None = None

    @field_validator("work")
    @classmethod
    def _is_work(cls, counts: dict[str, Any] | None) -> dict[str, Any] | None:
        return None if counts is None else Work.from_json(counts).to_json()


@dataclass(frozen=True)
class Golden:
    path: Path
    tiles: list[Image.Image]
    origin: Origin


@dataclass(frozen=True)
class Check:
    """How a case compares with its golden.

    Attributes:
        work: ``None`` where nothing was counted.
        golden: as it was found; ``None`` if there is none that can be read.
        verdict: of the case: that of the pictures unless these pass and the work does not.
    """

    pictures: Pictures
    work: WorkRecord | None
    golden: Golden | None
    verdict: str


def describe_origin(
    case: Case,
    weights: str,
    revision: str | None,
    device: Device,
    libraries: dict[str, str | None],
    *,
    work: Work | None = None,
) -> Origin:
    """The origin that a golden made now would have."""
    return Origin(
        case=case.id,
        settings=json.loads(case.settings.model_dump_json(exclude={"slow"})),
        seeds=tuple(case.settings.seeds),
        weights=weights,
        revision=revision,
        device={"type": device.type, "name": device.name},
        libraries=libraries,
        date=datetime.date.today().isoformat(),
        work=work.to_json() if work else None,
    )


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def golden_path(root: Path, case_id: str, device: Device, level: str) -> Path:
    """The picture of a case: its reference, its device type's, or its exact device's."""
    suffix = {REFERENCE: "", TYPE: f"@{device.type}", EXACT: f"@{device.type}-{_slug(device.name)}"}[level]
    return root / f"{case_id}{suffix}.png"


def find_golden(root: Path, case_id: str, device: Device) -> Path | None:
    """The nearest golden there is: of the exact device, of the device type, or the reference."""
    paths = (golden_path(root, case_id, device, level) for level in (EXACT, TYPE, REFERENCE))
    return next((path for path in paths if path.exists() or path.with_suffix(".json").exists()), None)


def _pixels(image: Image.Image) -> str:
    return hashlib.sha256(f"{image.mode} {image.size} ".encode() + image.tobytes()).hexdigest()


def read_golden(path: Path) -> Golden:
    """Reads a golden and checks that picture and origin belong together.

    Raises:
        GoldenError: a file is missing, damaged, or not the picture that its origin describes.
    """
    beside = path.with_suffix(".json")
    again = "accept the case again with --golden-update"
    try:
        origin = Origin.model_validate_json(beside.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise GoldenError(f"{beside}: missing beside {path.name}; {again}.") from None
    except (ValidationError, UnicodeDecodeError, OSError) as error:
        raise GoldenError(f"{beside}: not the origin of a golden ({_first_line(error)}); {again}.") from None
    try:
        with Image.open(path) as opened:
            opened.load()
            picture = opened
    except FileNotFoundError:
        raise GoldenError(f"{path}: missing beside {beside.name}; {again}.") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise GoldenError(f"{path}: not a readable picture ({_first_line(error)}); {again}.") from None
    if picture.mode != "RGB" or _pixels(picture) != origin.pixels:
        raise GoldenError(f"{path}: not the picture that {beside.name} describes; restore both files, or {again}.")
    return Golden(path, split_grid(picture, len(origin.seeds)), origin)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


@contextlib.contextmanager
def _written_beside(path: Path, content: bytes) -> Iterator[str]:
    """A hidden file beside ``path`` with this content, on disk; deleted at the end unless it was moved."""
    descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(part, 0o644)
        yield part
    finally:
        with contextlib.suppress(OSError):
            os.unlink(part)


def write_golden(path: Path, images: list[Image.Image], origin: Origin) -> None:
    """Writes picture and origin, each atomically; a crash in between is noticed by ``read_golden``.

    Raises:
        GoldenError: the disk is full or the folder cannot be written; the old files are whole.
    """
    grid = make_grid(images, images[0].size)
    described = origin.model_copy(update={"pixels": _pixels(grid)})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = BytesIO()
        grid.save(picture, format="PNG", optimize=True)
        beside, text = path.with_suffix(".json"), (described.model_dump_json(indent=2) + "\n").encode()
        with _written_beside(path, picture.getvalue()) as new_picture, _written_beside(beside, text) as new_origin:
            os.replace(new_picture, path)
            os.replace(new_origin, beside)
    except OSError as error:
        raise GoldenError(
            f"{path}: not written ({error.strerror or error}); free the disk or correct the folder."
        ) from None


def unused_goldens(root: Path, case_ids: Iterable[str]) -> list[Path]:
    """Files in the store that belong to no case of the suite."""
    known = set(case_ids)

    def owner(path: Path) -> str:
        return path.relative_to(root).with_suffix("").as_posix().partition("@")[0]

    files = (path for path in root.rglob("*") if path.is_file() and not path.name.startswith("."))
    return sorted(path for path in files if path.suffix not in (".png", ".json") or owner(path) not in known)


def _what_changed(now: Origin, then: Origin) -> list[str]:
    """Why a golden is stale: its recipe is no longer the case's."""
    changes = []
    for key in sorted(set(now.settings) | set(then.settings)):
        if now.settings.get(key) != then.settings.get(key):
            changes.append(f"{key} was {then.settings.get(key)!r} and is {now.settings.get(key)!r}")
    if now.weights != then.weights:
        changes.append(f"weights were {then.weights[:12]} and are {now.weights[:12]}")
    return changes


def _limits(golden: Golden, case: Case, device: Device) -> Limits:
    if golden.origin.limits:
        return Limits(**golden.origin.limits.model_dump())
    return default_limits(case.settings.dtype, golden.origin.device["type"], device.type)


def _pictures(
    verdict: str, message: str, golden: Path | None, similarity: Similarity | None, limits: Limits | None
) -> Pictures:
    scores: dict[str, Any] = {}
    if similarity:
        scores = asdict(similarity) | {"ssim_worst_tile": similarity.ssim_worst_tile}
    return Pictures(
        verdict=verdict,
        message=message,
        golden=str(golden) if golden else None,
        limits=LimitsRecord(**asdict(limits)) if limits else None,
        **scores,
    )


def judge(
    case: Case, images: list[Image.Image], origin: Origin, root: Path, device: Device
) -> tuple[Pictures, Golden | None]:
    """Compares the images of a case with its golden; reads only."""
    path = find_golden(root, case.id, device)
    if path is None:
        wanted = golden_path(root, case.id, device, REFERENCE)
        message = f"no golden at {wanted}; look at the grid and accept it with --golden-update"
        return _pictures(MISSING, message, None, None, None), None
    try:
        golden = read_golden(path)
    except GoldenError as error:
        return _pictures(BROKEN, str(error), path, None, None), None
    changes = _what_changed(origin, golden.origin)
    try:
        similarity = compare(images, golden.tiles)
    except Incomparable as error:
        verdict = STALE if changes else BROKEN
        message = f"{path} cannot be compared: {'; '.join([*changes, str(error)])}"
        return _pictures(verdict, message, path, None, None), golden
    limits = _limits(golden, case, device)
    if changes:
        return _pictures(STALE, f"{path} is stale: {'; '.join(changes)}", path, similarity, limits), golden
    verdict = similarity.verdict(limits)
    if verdict == CHANGED:
        message = f"differs from {path}: {', '.join(similarity.excesses(limits))}"
    else:
        score = f"SSIM of the worst tile {similarity.ssim_worst_tile:.5f}"
        message = f"{verdict}: {score}, largest difference {similarity.max_diff}"
    return _pictures(verdict, message, path, similarity, limits), golden


def judge_work(origin: Origin, golden: Golden | None) -> WorkRecord | None:
    """Compares the work that was counted now with the golden's; ``None`` where nothing was counted.

    Work is compared with that of the same recipe on the same type of device alone: copies to and from a device are
    work too.
    """
    if origin.work is None:
        return None
    verdict, message = _verdict_of_work(origin, origin.work, golden)
    return WorkRecord(verdict=verdict, message=message, counts=origin.work)


def _verdict_of_work(origin: Origin, counts: dict[str, Any], golden: Golden | None) -> tuple[str, str]:
    if golden is None:
        return NOT_COMPARED, f"{NOT_COMPARED}: there is no golden"
    then = golden.origin
    if then.device["type"] != origin.device["type"]:
        types = f"{golden.path} was made on {then.device['type']}, this run is on {origin.device['type']}"
        return NOT_COMPARED, f"{NOT_COMPARED}: {types}"
    if _what_changed(origin, then):
        return NOT_COMPARED, f"{NOT_COMPARED}: {golden.path} is stale"
    if then.work is None:
        return MISSING, f"{golden.path.with_suffix('.json')} holds no counted work; add it with --golden-update"
    found = compare_work(Work.from_json(counts), Work.from_json(then.work))
    return found.verdict, found.message


def _verdict_of_case(pictures: Pictures, work: WorkRecord | None, accepted: bool = False) -> str:
    """What was accepted is no pass: less work is told then as more work always is."""
    if work is None or pictures.verdict not in PASSED:
        return pictures.verdict
    if work.verdict == MISSING:
        return WORK_MISSING
    if work.verdict == MORE_WORK or (accepted and work.verdict == LESS_WORK):
        return work.verdict
    return pictures.verdict


def check_golden(
    case: Case,
    images: list[Image.Image],
    origin: Origin,
    root: Path,
    device: Device,
    *,
    update: str | None = None,
    announce: Callable[[str], None] = print,
) -> Check:
    """The life cycle of a golden: missing, stale, damaged, changed, accepted.

    Args:
        origin: with the counted work, if that is to be compared too.
        update: ``None`` to write nothing; else write where the pictures are not identical or the work is not the
            same, as ``auto``, ``reference``, ``type`` or ``device``. ``auto`` is the reference where there is none or
            it is of this device type, else the device type's own. What was written keeps its verdict from before, so
            that no run passes by what it wrote.
        announce: told each file that was written.

    Returns:
        The comparison with the golden as it was found.

    Raises:
        GoldenError: the golden was to be written and could not be.
    """
    pictures, golden = judge(case, images, origin, root, device)
    work = judge_work(origin, golden)
    other_work = work is not None and work.verdict in (MORE_WORK, LESS_WORK, MISSING)
    if update is None or (pictures.verdict == IDENTICAL and not other_work):
        return Check(pictures, work, golden, _verdict_of_case(pictures, work))
    path = golden_path(root, case.id, device, _level_to_write(update, case, root, device))
    before = _before(pictures, work if other_work else None)
    write_golden(path, images, origin)
    announce(f"wrote {path} ({before})")
    message = f"accepted as {path} ({before}); run again without --golden-update to check it"
    verdict = CHANGED if pictures.verdict == WITHIN_LIMITS else pictures.verdict
    pictures = pictures.model_copy(update={"message": message, "verdict": verdict})
    if work and other_work:
        work = work.model_copy(update={"message": message})
    return Check(pictures, work, golden, _verdict_of_case(pictures, work, accepted=True))


def _before(pictures: Pictures, work: WorkRecord | None) -> str:
    """What was found in place of what is accepted; the work only where it was other."""
    if pictures.verdict == IDENTICAL:
        told = ["same pictures"]
    elif pictures.ssim_worst_tile is None:
        told = [pictures.verdict, "new"]
    else:
        told = [pictures.verdict, f"SSIM was {pictures.ssim_worst_tile:.5f}"]
    if work:
        changes = "none until now" if work.verdict == MISSING else work.message.removeprefix(f"{work.verdict}: ")
        told.append(f"work: {changes}")
    return ", ".join(told)


def _level_to_write(update: str, case: Case, root: Path, device: Device) -> str:
    if update != "auto":
        return update
    reference = golden_path(root, case.id, device, REFERENCE)
    found = find_golden(root, case.id, device)
    for level in (EXACT, TYPE):
        if found == golden_path(root, case.id, device, level):
            return level
    with contextlib.suppress(GoldenError):
        if reference.exists() and read_golden(reference).origin.device["type"] != device.type:
            return TYPE
    return REFERENCE


def same_pixels(one: list[Image.Image], other: list[Image.Image]) -> bool:
    return len(one) == len(other) and all(
        np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(one, other, strict=True)
    )
