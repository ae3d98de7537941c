"""The golden store: finds, reads and writes accepted grids and their origins."""

from __future__ import annotations

import datetime
import glob
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from PIL import Image, UnidentifiedImageError
from pydantic import Field, ValidationError, field_validator

from bench.calls.device import Device, numerics
from bench.calls.raised import RaisedError
from bench.calls.work import Work
from bench.console import shown
from bench.errors import BenchError
from bench.files import as_png, shows, write_together
from bench.frozen import Frozen
from bench.pictures.grids import make_grid, pixels_hash, split_grid
from bench.pictures.limits import CalibratedLimits
from bench.pictures.outcomes import Outcome
from bench.pictures.sheets import GroupError, SheetEntry, read_group, unused_entries, write_entry
from bench.suite.case import Case

REFERENCE, TYPE, EXACT = "reference", "type", "device"
# What a command that writes goldens may be asked for, and what it says about that.
LEVELS = ("auto", REFERENCE, TYPE, EXACT)
LEVELS_HELP = (
    "for every device, for the type of device, or for the exact device (default: auto: the reference unless it comes "
    "from another type of device or another accelerator)"
)
AGAIN = "accept the case again with --golden-update"
# The file of ``simulated_work.py`` in the same folder.
SIMULATED = "simulated.json"
# Precedes the releases in the name of a known difference's picture; no id of a case contains it.
_WITH = "+"


class GoldenError(BenchError):
    """A golden's files cannot be used; one sentence that names the file."""


class Origin(Frozen):
    """Where a golden comes from: the JSON beside the picture.

    Attributes:
        settings: of the case, prompts included, as ``Settings.described`` gives them.
        seeds: one per image.
        weights: SHA-256 over the weight files.
        device: ``type`` and ``name``.
        libraries: versions.
        numerics: what else decides how it was rounded, as ``bench.calls.device.numerics`` gives it; ``None`` in older
            goldens.
        date: day it was accepted, ISO 8601.
        pixels: SHA-256 of the picture's values, which ties the two files together.
        like: the case whose pictures this one must match, if it has none itself.
        error: what the case raises; it has no pictures then.
        limits: measured limits of this case with their evidence, or ``None`` for the defaults of its dtype.
        work: what one call of the case did, as ``Work.to_json`` gives it, or ``None`` where it was not counted.
        others: known differences: what the case shows with other releases of the libraries. The first one that
            applies to the libraries of a run counts.
    """

    schema_version: int = 1
    case: str
    settings: dict[str, Any]
    seeds: tuple[int, ...] = Field(min_length=1)
    weights: str
    revision: str | None
    device: dict[Literal["type", "name"], str] = Field(min_length=2)
    libraries: dict[str, str | None]
    numerics: dict[str, bool | int | str | None] | None = None
    date: str
    pixels: str = ""
    like: str | None = None
    error: RaisedError | None = None
    limits: CalibratedLimits | None = None
    work: dict[str, Any] | None = None
    others: tuple[Outcome, ...] = ()

    @field_validator("work")
    @classmethod
    def _is_work(cls, counts: dict[str, Any] | None) -> dict[str, Any] | None:
        return None if counts is None else Work.from_json(counts).to_json()


@dataclass(frozen=True)
class GoldenPlace:
    """Where a golden is.

    Attributes:
        picture: its file, or the sheet of its group; the origin is next to it as ``.json``.
        entry: id of its case in the group; empty for a golden with files of its own.
        plain: where the nearest golden of the case is that this one must match; by default in the same group.
    """

    picture: Path
    entry: str = ""
    plain: GoldenPlace | None = field(default=None, compare=False)

    @property
    def origin(self) -> Path:
        return self.picture.with_suffix(".json")

    @property
    def _name(self) -> str:
        return self.entry.rpartition("/")[2] or self.picture.stem

    @property
    def _folder(self) -> Path:
        return self.picture.with_suffix("") if self.entry else self.picture.parent

    def picture_of(self, other: Outcome) -> Path:
        """The picture of a known difference: a file of its own, also in a group."""
        return self._folder / f"{self._name}{_WITH}{other.slug}.png"

    def pictures_of_others(self) -> list[Path]:
        """The existing pictures of known differences."""
        return sorted(self._folder.glob(f"{glob.escape(self._name + _WITH)}*.png"))

    def exists(self) -> bool:
        if not self.entry:
            return self.picture.exists() or self.origin.exists()
        try:
            return self.entry in read_group(self.picture)
        except GroupError:
            return True  # reading it says what is wrong

    def __str__(self) -> str:
        path = shown(self.picture)
        return f"{path} ({self._name})" if self.entry else path


@dataclass(frozen=True)
class Golden:
    """What a case must show.

    Attributes:
        tiles: empty where the case raises.
        error: what it raises.
        known: the known difference that this is, of the case or of the one that it must match.
        usual: what the case must show without its own known difference; ``None`` if that is this golden.
        plain: the golden of the case that it must match, which has the pictures; ``None`` if it has its own.
    """

    place: GoldenPlace
    tiles: list[Image.Image]
    origin: Origin
    error: RaisedError | None = None
    known: Outcome | None = None
    usual: Golden | None = None
    plain: Golden | None = None

    @property
    def made_on(self) -> dict[Literal["type", "name"], str]:
        """The device that made the pictures, which may be another one than made the entry of a case without its own."""
        if self.known:
            return self.known.device
        return self.plain.made_on if self.plain else self.origin.device


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
        numerics=numerics(device),
        date=datetime.date.today().isoformat(),
        like=None if error or case.plain.id == case.id else case.plain.id,
        error=error,
        work=work.to_json() if work else None,
    )


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def golden_place(root: Path, case: Case, device: Device, level: str) -> GoldenPlace:
    """Where the golden of a case is: the reference, that of the type of device, or that of the exact device."""
    suffix = {REFERENCE: "", TYPE: f"@{device.type}", EXACT: f"@{device.type}-{_slug(device.name)}"}[level]
    if case.settings.sentinel:
        return GoldenPlace(root / case.model.name / f"{case.settings.sentinel}{suffix}.png", case.id)
    return GoldenPlace(root / f"{case.id}{suffix}.png")


def find_golden(root: Path, case: Case, device: Device) -> GoldenPlace | None:
    """The nearest existing golden: of the exact device, of the type of device, or the reference.

    That of a case that it must match is found in the same way: either may have a golden for this device first.
    """
    places = (golden_place(root, case, device, level) for level in (EXACT, TYPE, REFERENCE))
    found = next((place for place in places if place.exists()), None)
    if found is None or case.plain.id == case.id:
        return found
    return replace(found, plain=find_golden(root, case.plain, device))


def maker_of(place: GoldenPlace) -> dict[Literal["type", "name"], str] | None:
    """The device on which a golden was made; ``None`` if there is no golden here or its files are damaged."""
    try:
        return (_from_group(place) if place.entry else _from_files(place))[1].device if place.exists() else None
    except GoldenError:
        return None


def read_golden(place: GoldenPlace, libraries: Mapping[str, str | None] | None = None) -> Golden:
    """Reads a golden and checks that picture and origin belong together.

    Args:
        libraries: versions by name. A known difference that applies to them replaces the golden; by default none
            does.

    Raises:
        GoldenError: a file is missing, damaged, or not the picture that its origin describes.
    """
    usual = _usual(place, libraries or {})
    known = next((other for other in usual.origin.others if other.holds_with(libraries or {})), None)
    if known is None:
        return usual
    tiles = [] if known.error else _tiles_of(place, known, len(usual.origin.seeds))
    return Golden(place, tiles, usual.origin, known.error, known, usual, usual.plain)


def _usual(place: GoldenPlace, libraries: Mapping[str, str | None]) -> Golden:
    grid, origin = _from_group(place) if place.entry else _from_files(place)
    if origin.error:
        return Golden(place, [], origin, origin.error)
    if origin.like:
        plain = _plain(place, origin.like, libraries)
        return replace(plain, place=place, origin=origin, usual=None, plain=plain)
    if grid is None or grid.mode != "RGB" or pixels_hash(grid) != origin.pixels:
        raise GoldenError(
            f"{place}: not the picture that {place.origin.name} describes; restore both files, or {AGAIN}."
        )
    return Golden(place, split_grid(grid, len(origin.seeds)), origin)


def _plain(place: GoldenPlace, like: str, libraries: Mapping[str, str | None]) -> Golden:
    """The golden of the case that the one at this place must match."""
    where = place.plain or GoldenPlace(place.picture, like)
    plain = read_golden(where, libraries) if where.exists() else None
    if plain is None or plain.origin.like:
        raise GoldenError(f"{place}: must match {like}, which has no golden; accept that case with --golden-update.")
    return plain


def known_difference(root: Path, case: Case, device: Device, libraries: Mapping[str, str | None]) -> Outcome | None:
    """The known difference of a case with these libraries; ``None`` if it has none."""
    place = find_golden(root, case, device)
    try:
        return read_golden(place, libraries).known if place else None
    except GoldenError:  # judging the case says what is wrong
        return None


def _tiles_of(place: GoldenPlace, other: Outcome, count: int) -> list[Image.Image]:
    path = place.picture_of(other)
    again = f"restore it, or accept it again with --golden-update --golden-for {other.releases}"
    try:
        with Image.open(path) as opened:
            opened.load()
            grid: Image.Image = opened
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise GoldenError(f"{shown(path)}: not a readable picture ({_first_line(error)}); {again}.") from None
    if grid.mode != "RGB" or pixels_hash(grid) != other.pixels:
        raise GoldenError(f"{shown(path)}: not the picture that {place.origin.name} describes; {again}.")
    return split_grid(grid, count)


def _from_group(place: GoldenPlace) -> tuple[Image.Image | None, Origin]:
    try:
        entries = read_group(place.picture)
        origin = Origin.model_validate(entries[place.entry].origin)
    except (GroupError, ValidationError) as error:
        where, reason = shown(place.origin), _first_line(error)
        raise GoldenError(f"{where}: not a group of goldens ({reason}); restore both files, or {AGAIN}.") from None
    return entries[place.entry].grid, origin


def _from_files(place: GoldenPlace) -> tuple[Image.Image | None, Origin]:
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


def write_golden(place: GoldenPlace, images: list[Image.Image], origin: Origin) -> None:
    """Writes picture and origin, each atomically; a crash in between is noticed by ``read_golden``.

    Args:
        images: empty if the origin has an error; not written if the case must match another one.

    Raises:
        GoldenError: the disk is full or the folder cannot be written; the old files are unchanged.
    """
    grid = make_grid(images, images[0].size) if images and not origin.like else None
    _write(place, grid, origin.model_copy(update={"pixels": pixels_hash(grid) if grid else ""}))


def accept_limits(root: Path, case: Case, device: Device, limits: CalibratedLimits) -> Path:
    """Writes the limits of a case into its golden's origin, atomically; the picture stays as it is.

    Returns:
        The file that was written.

    Raises:
        GoldenError: the golden is missing or damaged, or cannot be written; the old file is unchanged.
    """
    place = find_golden(root, case, device)
    if place is None:
        raise GoldenError(f"no golden of {case.id} in {shown(root)}; accept its picture with --golden-update first.")
    golden = read_golden(place)
    _write(place, _own_grid(golden), golden.origin.model_copy(update={"limits": limits}))
    return place.origin


def write_outcome(golden: Golden, outcome: Outcome, images: list[Image.Image]) -> None:
    """Adds a known difference to a golden, atomically; it replaces the one that ``golden`` is.

    Args:
        golden: read with the libraries of this run.
        images: empty if the outcome is an error.

    Raises:
        GoldenError: it cannot be written; the old files are unchanged.
    """
    grid = make_grid(images, images[0].size) if images else None
    outcome = outcome.model_copy(update={"pixels": pixels_hash(grid) if grid else ""})
    kept = [other for other in golden.origin.others if other != golden.known and other.slug != outcome.slug]
    pictures = {golden.place.picture_of(outcome): grid} if grid else {}
    _write(golden.place, _own_grid(golden), golden.origin.model_copy(update={"others": (*kept, outcome)}), pictures)


def remove_outcome(golden: Golden) -> None:
    """Removes the known difference that ``golden`` is, atomically.

    Raises:
        GoldenError: it cannot be written; the old files are unchanged.
    """
    kept = tuple(other for other in golden.origin.others if other != golden.known)
    _write(golden.place, _own_grid(golden), golden.origin.model_copy(update={"others": kept}))


def _own_grid(golden: Golden) -> Image.Image | None:
    """A golden's own picture, not that of a known difference."""
    own = golden.usual or golden
    return make_grid(own.tiles, own.tiles[0].size) if own.tiles and not own.origin.like else None


def _write(
    place: GoldenPlace, grid: Image.Image | None, origin: Origin, others: Mapping[Path, Image.Image] | None = None
) -> None:
    """Args:
    others: new pictures of known differences; those that the origin no longer names are deleted.
    """
    pictures = {path: as_png(picture) for path, picture in (others or {}).items()}
    try:
        if place.entry:
            entry = SheetEntry(origin.model_dump(mode="json", exclude_defaults=True), grid)
            write_entry(place.picture, place.entry, entry, pictures)
        else:
            if grid and not shows(place.picture, grid):
                pictures[place.picture] = as_png(grid)
            unused = {name for name in ("numerics", "others") if not getattr(origin, name)}
            text = origin.model_dump_json(indent=2, exclude=unused) + "\n"
            write_together({**pictures, place.origin: text.encode()})
            if not grid:
                place.picture.unlink(missing_ok=True)
        for path in {*place.pictures_of_others()} - {place.picture_of(other) for other in origin.others}:
            path.unlink()
    except OSError as error:
        where, reason = shown(place.picture), error.strerror or error
        raise GoldenError(f"{where}: not written ({reason}); free disk space or make the folder writable.") from None
    except GroupError as error:
        raise GoldenError(
            f"{shown(place.picture)}: not written, the group is damaged ({error}); restore both files."
        ) from None


def unused_goldens(root: Path, cases: Iterable[Case]) -> list[str]:
    """Files and group entries of the store that belong to no case of the suite."""
    alone: set[str] = set()
    groups: dict[str, set[str]] = {}
    for case in cases:
        if case.settings.sentinel:
            groups.setdefault(f"{case.model.name}/{case.settings.sentinel}", set()).add(case.id)
        else:
            alone.add(case.id)
    unused = []
    for path in sorted(filter(_is_of_a_golden, root.rglob("*"))):
        if _WITH in path.stem:
            place = _place_of(path, root, groups)
            unused += [] if _is_of_a_difference(path, place) else [shown(path)]
            continue
        owner = path.relative_to(root).with_suffix("").as_posix().partition("@")[0]
        if path.suffix not in (".png", ".json") or (owner not in alone and owner not in groups):
            unused.append(shown(path))
        elif owner in groups and path.suffix == ".json":
            sheet = path.with_suffix(".png")
            unused += [str(GoldenPlace(sheet, name)) for name in _unused_entries(sheet, groups[owner])]
    return unused


def _place_of(path: Path, root: Path, groups: Iterable[str]) -> GoldenPlace:
    """Where the golden is to which a picture of a known difference belongs."""
    name = path.stem.partition(_WITH)[0]
    folder = path.parent.relative_to(root).as_posix()
    group = folder.partition("@")[0]
    if group in groups:
        return GoldenPlace(root / f"{folder}.png", f"{group}/{name}")
    return GoldenPlace(path.with_name(f"{name}.png"))


def _is_of_a_difference(path: Path, place: GoldenPlace) -> bool:
    """Whether a golden names this picture; a damaged one may, and its cases report the damage."""
    try:
        if not place.exists():
            return False
        _, origin = _from_group(place) if place.entry else _from_files(place)
    except GoldenError:
        return True
    return any(place.picture_of(other) == path and not other.error for other in origin.others)


def _is_of_a_golden(path: Path) -> bool:
    """Any file but the store's own page, the tests beside it, the simulated accelerator's work, and hidden files."""
    if path.name == SIMULATED or path.name.startswith("."):
        return False
    return path.is_file() and path.suffix not in (".md", ".py", ".pyc")


def _unused_entries(sheet: Path, known: Iterable[str]) -> list[str]:
    try:
        return unused_entries(sheet, known)
    except GroupError:  # its cases say what is wrong
        return []
