"""The golden store: where accepted grids and their origins lie, read and written."""

from __future__ import annotations

import datetime
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image, UnidentifiedImageError
from pydantic import Field, ValidationError, field_validator

from bench.calls.device import Device
from bench.calls.raised import RaisedError
from bench.calls.work import Work
from bench.files import as_png, write_together
from bench.frozen import Frozen
from bench.paths import shown
from bench.pictures.grids import make_grid, split_grid
from bench.pictures.limits import CalibratedLimits
from bench.pictures.sheets import Entry, GroupError, read_group, unused_entries, write_entry
from bench.suite.case import Case

REFERENCE, TYPE, EXACT = "reference", "type", "device"
AGAIN = "accept the case again with --golden-update"


class GoldenError(Exception):
    """A golden's files cannot be used; one sentence that names the file."""


class Origin(Frozen):
    """Where a golden comes from: the JSON beside the picture.

    Attributes:
        settings: of the case, prompts included, as ``Settings.described`` gives them.
        seeds: one per image.
        weights: SHA-256 over the weight files.
        device: ``type`` and ``name``.
        libraries: versions.
        date: day it was accepted, ISO 8601.
        pixels: SHA-256 of the picture's values, which ties the two files together.
        like: the case whose pictures these must be, where the case has none of its own.
        error: what the case raises; it has no pictures then.
        limits: measured limits of this case with their evidence, or ``None`` for the defaults of its dtype.
        work: what one call of the case did, as ``Work.to_json`` gives it, or ``None`` where it was not counted.
    """

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
    like: str | None = None
    error: RaisedError | None = None
    limits: CalibratedLimits | None = None
    work: dict[str, Any] | None = None

    @field_validator("work")
    @classmethod
    def _is_work(cls, counts: dict[str, Any] | None) -> dict[str, Any] | None:
        return None if counts is None else Work.from_json(counts).to_json()


@dataclass(frozen=True)
class Place:
    """Where a golden lies.

    Attributes:
        picture: its file, or the sheet of its group; the origin lies beside it as ``.json``.
        entry: id of its case in the group; empty for a golden with files of its own.
    """

    picture: Path
    entry: str = ""

    @property
    def origin(self) -> Path:
        return self.picture.with_suffix(".json")

    def exists(self) -> bool:
        if not self.entry:
            return self.picture.exists() or self.origin.exists()
        try:
            return self.entry in read_group(self.picture)
        except GroupError:
            return True  # reading it tells what is wrong

    def __str__(self) -> str:
        path = shown(self.picture)
        return f"{path} ({self.entry.rpartition('/')[2]})" if self.entry else path


@dataclass(frozen=True)
class Golden:
    """``tiles`` is empty where the case raises."""

    place: Place
    tiles: list[Image.Image]
    origin: Origin


def describe_origin(
    case: Case,
    weights: str,
    revision: str | None,
    device: Device,
    libraries: dict[str, str | None],
    *,
    work: Work | None = None,
    error: RaisedError | None = None,
) -> Origin:
    """The origin that a golden made now would have."""
    return Origin(
        case=case.id,
        settings=case.settings.described(),
        seeds=tuple(case.settings.seeds),
        weights=weights,
        revision=revision,
        device={"type": device.type, "name": device.name},
        libraries=libraries,
        date=datetime.date.today().isoformat(),
        like=None if error or case.plain.id == case.id else case.plain.id,
        error=error,
        work=work.to_json() if work else None,
    )


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def golden_place(root: Path, case: Case, device: Device, level: str) -> Place:
    """The golden of a case: its reference, its device type's, or its exact device's."""
    suffix = {REFERENCE: "", TYPE: f"@{device.type}", EXACT: f"@{device.type}-{_slug(device.name)}"}[level]
    if case.settings.sentinel:
        return Place(root / case.model.name / f"{case.settings.sentinel}{suffix}.png", case.id)
    return Place(root / f"{case.id}{suffix}.png")


def find_golden(root: Path, case: Case, device: Device) -> Place | None:
    """The nearest golden there is: of the exact device, of the device type, or the reference."""
    places = (golden_place(root, case, device, level) for level in (EXACT, TYPE, REFERENCE))
    return next((place for place in places if place.exists()), None)


def _pixels(image: Image.Image) -> str:
    return hashlib.sha256(f"{image.mode} {image.size} ".encode() + image.tobytes()).hexdigest()


def read_golden(place: Place) -> Golden:
    """Reads a golden and checks that picture and origin belong together.

    Raises:
        GoldenError: a file is missing, damaged, or not the picture that its origin describes.
    """
    grid, origin = _from_group(place) if place.entry else _from_files(place)
    if origin.error:
        return Golden(place, [], origin)
    if grid is None or grid.mode != "RGB" or (_pixels(grid) != origin.pixels and not origin.like):
        raise GoldenError(
            f"{place}: not the picture that {place.origin.name} describes; restore both files, or {AGAIN}."
        )
    return Golden(place, split_grid(grid, len(origin.seeds)), origin)


def _from_group(place: Place) -> tuple[Image.Image | None, Origin]:
    try:
        entries = read_group(place.picture)
        origin = Origin.model_validate(entries[place.entry].origin)
    except (GroupError, ValidationError) as error:
        where, reason = shown(place.origin), _first_line(error)
        raise GoldenError(f"{where}: no group of goldens ({reason}); restore both files, or {AGAIN}.") from None
    if origin.like and origin.like not in entries:
        raise GoldenError(
            f"{place}: is to be like {origin.like}, which has no golden; accept that with --golden-update."
        )
    return entries[origin.like or place.entry].grid, origin


def _from_files(place: Place) -> tuple[Image.Image | None, Origin]:
    path, beside = place.picture, place.origin
    try:
        origin = Origin.model_validate_json(beside.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise GoldenError(f"{shown(beside)}: missing beside {path.name}; {AGAIN}.") from None
    except (ValidationError, UnicodeDecodeError, OSError) as error:
        raise GoldenError(f"{shown(beside)}: not the origin of a golden ({_first_line(error)}); {AGAIN}.") from None
    if origin.error:
        return None, origin
    try:
        with Image.open(path) as opened:
            opened.load()
            return opened, origin
    except FileNotFoundError:
        raise GoldenError(f"{shown(path)}: missing beside {beside.name}; {AGAIN}.") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise GoldenError(f"{shown(path)}: not a readable picture ({_first_line(error)}); {AGAIN}.") from None


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def write_golden(place: Place, images: list[Image.Image], origin: Origin) -> None:
    """Writes picture and origin, each atomically; a crash in between is noticed by ``read_golden``.

    Args:
        images: none where the origin tells of an error; left out where it names a case to be like.

    Raises:
        GoldenError: the disk is full or the folder cannot be written; the old files are whole.
    """
    grid = make_grid(images, images[0].size) if images and not origin.like else None
    _write(place, grid, origin.model_copy(update={"pixels": _pixels(grid) if grid else ""}))


def accept_limits(root: Path, case: Case, device: Device, limits: CalibratedLimits) -> Path:
    """Writes the limits of a case into its golden's origin, atomically; the picture stays as it is.

    Returns:
        The file that was written.

    Raises:
        GoldenError: there is no golden, it is damaged, or it cannot be written; the old file is whole.
    """
    place = find_golden(root, case, device)
    if place is None:
        raise GoldenError(f"no golden of {case.id} in {shown(root)}; accept its picture with --golden-update first.")
    golden = read_golden(place)
    own = golden.tiles and not golden.origin.like
    grid = make_grid(golden.tiles, golden.tiles[0].size) if own else None
    _write(place, grid, golden.origin.model_copy(update={"limits": limits}))
    return place.origin


def _write(place: Place, grid: Image.Image | None, origin: Origin) -> None:
    try:
        if place.entry:
            write_entry(place.picture, place.entry, Entry(origin.model_dump(mode="json", exclude_defaults=True), grid))
            return
        text = (origin.model_dump_json(indent=2) + "\n").encode()
        pictures = {place.picture: as_png(grid)} if grid else {}
        write_together({**pictures, place.origin: text})
        if not grid:
            place.picture.unlink(missing_ok=True)
    except OSError as error:
        where, reason = shown(place.picture), error.strerror or error
        raise GoldenError(f"{where}: not written ({reason}); free the disk or correct the folder.") from None
    except GroupError as error:
        raise GoldenError(
            f"{shown(place.picture)}: not written, the group is damaged ({error}); restore both files."
        ) from None


def unused_goldens(root: Path, cases: Iterable[Case]) -> list[str]:
    """What in the store belongs to no case of the suite: files, and entries of groups."""
    alone: set[str] = set()
    groups: dict[str, set[str]] = {}
    for case in cases:
        if case.settings.sentinel:
            groups.setdefault(f"{case.model.name}/{case.settings.sentinel}", set()).add(case.id)
        else:
            alone.add(case.id)
    unused = []
    for path in sorted(filter(_is_of_a_golden, root.rglob("*"))):
        owner = path.relative_to(root).with_suffix("").as_posix().partition("@")[0]
        if path.suffix not in (".png", ".json") or (owner not in alone and owner not in groups):
            unused.append(shown(path))
        elif owner in groups and path.suffix == ".json":
            sheet = path.with_suffix(".png")
            unused += [str(Place(sheet, name)) for name in _unused_entries(sheet, groups[owner])]
    return unused


def _is_of_a_golden(path: Path) -> bool:
    """Any file but the store's own page, the tests beside it, and hidden files."""
    return path.is_file() and not path.name.startswith(".") and path.suffix not in (".md", ".py", ".pyc")


def _unused_entries(sheet: Path, known: Iterable[str]) -> list[str]:
    try:
        return unused_entries(sheet, known)
    except GroupError:  # each of its cases tells what is wrong
        return []
