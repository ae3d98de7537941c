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
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.device import Device
from bench.grids import make_grid, split_grid
from bench.limits import STRICT, CalibratedLimits, choose_limits, default_limits, tier_of
from bench.records import LimitsRecord, Pictures
from bench.similarity import CHANGED, IDENTICAL, WITHIN_LIMITS, Incomparable, Limits, Similarity, compare
from bench.suite import Case

MISSING, STALE, BROKEN = "missing", "stale", "broken"
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
        limits: measured limits of this case with their evidence, or ``None`` for the defaults of its dtype.
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
    limits: CalibratedLimits | None = None


@dataclass(frozen=True)
class Golden:
    path: Path
    tiles: list[Image.Image]
    origin: Origin


def describe_origin(
    case: Case, weights: str, revision: str | None, device: Device, libraries: dict[str, str | None]
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


_AGAIN = "accept the case again with --golden-update"


def read_origin(path: Path) -> Origin:
    """The origin of the golden with this picture, without its picture.

    Raises:
        GoldenError: it is missing or damaged.
    """
    beside = path.with_suffix(".json")
    try:
        return Origin.model_validate_json(beside.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise GoldenError(f"{beside}: missing beside {path.name}; {_AGAIN}.") from None
    except (ValidationError, UnicodeDecodeError, OSError) as error:
        raise GoldenError(f"{beside}: not the origin of a golden ({_first_line(error)}); {_AGAIN}.") from None


def read_golden(path: Path) -> Golden:
    """Reads a golden and checks that picture and origin belong together.

    Raises:
        GoldenError: a file is missing, damaged, or not the picture that its origin describes.
    """
    beside, origin = path.with_suffix(".json"), read_origin(path)
    again = _AGAIN
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
        raise GoldenError(_not_written(path, error)) from None


def _not_written(path: Path, error: OSError) -> str:
    return f"{path}: not written ({error.strerror or error}); free the disk or correct the folder."


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
    made_on = golden.origin.device
    tier = tier_of(made_on["type"], made_on["name"], device)
    return choose_limits(golden.origin.limits, case.settings.dtype, tier, device)


def limits_side_by_side(root: Path, case: Case, device: Device) -> Limits:
    """How far two runs of a case on this very device may be apart.

    Those measured for the strict tier of its golden if that is a golden of this type of device and of this recipe, else
    the strict default. On which machine they were measured does not matter: both runs are on one machine here too.
    """
    path = find_golden(root, case.id, device)
    if path:
        with contextlib.suppress(GoldenError):
            origin = read_origin(path)
            settings = json.loads(case.settings.model_dump_json(exclude={"slow"}))
            if origin.limits and origin.device["type"] == device.type and origin.settings == settings:
                return Limits(**origin.limits.strict.model_dump())
    return default_limits(case.settings.dtype, STRICT)


def accept_limits(root: Path, case: Case, device: Device, limits: CalibratedLimits) -> Path:
    """Writes the limits of a case into its golden's origin, atomically; the picture stays as it is.

    Returns:
        The file that was written.

    Raises:
        GoldenError: there is no golden, its origin is damaged, or it cannot be written; the old file is whole.
    """
    path = find_golden(root, case.id, device)
    if path is None:
        raise GoldenError(f"no golden of {case.id} in {root}; accept its picture with --golden-update first.")
    beside, origin = path.with_suffix(".json"), read_origin(path).model_copy(update={"limits": limits})
    try:
        with _written_beside(beside, (origin.model_dump_json(indent=2) + "\n").encode()) as new_origin:
            os.replace(new_origin, beside)
    except OSError as error:
        raise GoldenError(_not_written(beside, error)) from None
    return beside


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


def check_golden(
    case: Case,
    images: list[Image.Image],
    origin: Origin,
    root: Path,
    device: Device,
    *,
    update: str | None = None,
    announce: Callable[[str], None] = print,
) -> tuple[Pictures, Golden | None]:
    """The life cycle of a golden: missing, stale, damaged, changed, accepted.

    Args:
        update: ``None`` to write nothing; else write what is not identical, as ``auto``, ``reference``, ``type`` or
            ``device``. ``auto`` is the reference where there is none or it is of this device type, else the device
            type's own. What was written keeps its verdict from before, so that no run passes by what it wrote.
        announce: told each file that was written.

    Returns:
        The comparison with the golden as it was found, and that golden.

    Raises:
        GoldenError: the golden was to be written and could not be.
    """
    pictures, golden = judge(case, images, origin, root, device)
    if update is None or pictures.verdict == IDENTICAL:
        return pictures, golden
    path = golden_path(root, case.id, device, _level_to_write(update, case, root, device))
    before = "new" if pictures.ssim_worst_tile is None else f"SSIM was {pictures.ssim_worst_tile:.5f}"
    write_golden(path, images, origin)
    message = f"accepted as {path} ({before}); run again without --golden-update to check it"
    announce(f"wrote {path} ({pictures.verdict}, {before})")
    verdict = CHANGED if pictures.verdict == WITHIN_LIMITS else pictures.verdict
    return pictures.model_copy(update={"message": message, "verdict": verdict}), golden


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
