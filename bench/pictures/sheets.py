"""Goldens of many small cases in two files: a sheet with all their grids, and a line for each with its origin.

Origins are only stored here; ``bench.pictures.store`` interprets them.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from PIL import Image

from bench.errors import BenchError
from bench.files import as_png, shows, write_together

SHEET_WIDTH = 1024
# Keys of an origin that most entries have in common; the file stores each combination once.
COMMON = ("weights", "revision", "device", "libraries", "numerics", "date")


class GroupError(BenchError):
    """The files of a group cannot be used; the message gives the reason without naming the files."""


@dataclass(frozen=True)
class SheetEntry:
    """One case of a group.

    Attributes:
        origin: as JSON.
        grid: its picture; ``None`` if the case has none, for example because it raises.
    """

    origin: Mapping[str, Any]
    grid: Image.Image | None


def read_group(path: Path) -> Mapping[str, SheetEntry]:
    """The entries of a group by the ids of their cases; empty if the group does not exist.

    Args:
        path: of the sheet; the origins are next to it as ``.json``.

    Raises:
        GroupError: the files are damaged.
    """
    beside = path.with_suffix(".json")
    try:
        stamps = tuple(file.stat().st_mtime_ns if file.exists() else None for file in (path, beside))
        return _read(path, beside, stamps) if beside.exists() else {}
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OSError, SyntaxError) as error:
        reason = str(error).splitlines()[0] if str(error) else "unreadable"
        raise GroupError(f"{type(error).__name__}: {reason}") from None


@functools.lru_cache(maxsize=64)
def _read(path: Path, beside: Path, stamps: tuple[int | None, ...]) -> Mapping[str, SheetEntry]:
    document = json.loads(beside.read_text(encoding="utf-8"))
    sheet = None
    if path.exists():
        with Image.open(path) as opened:
            opened.load()
            sheet = opened
    entries = {}
    for name, line in document["cases"].items():
        origin = {"case": name, **document["common"][line.pop("common")], **line}
        box = origin.pop("box", None)
        if box and sheet is None:
            raise ValueError(f"{path.name} is missing")
        entries[name] = SheetEntry(origin, sheet.crop(_within(sheet, box)) if sheet and box else None)
    return entries


def _within(sheet: Image.Image, box: list[int]) -> tuple[int, int, int, int]:
    left, top, width, height = box
    if left + width > sheet.width or top + height > sheet.height:
        raise ValueError(f"the sheet is too small for the box {box}")
    return left, top, left + width, top + height


def write_entry(path: Path, name: str, entry: SheetEntry | None, beside: Mapping[Path, bytes] | None = None) -> None:
    """Adds an entry to a group, or removes it; each file is rewritten atomically.

    Args:
        beside: other files that belong to the entry, written together with the group's.

    Raises:
        GroupError: the existing files are damaged.
        OSError: the files cannot be written; the old ones are unchanged.
    """
    key = hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:16]
    with FileLock(Path(tempfile.gettempdir()) / f"golden-group-{os.getuid()}-{key}.lock"):
        entries = {**read_group(path), name: entry}
        _write(path, {name: entries[name] for name in sorted(entries) if entries[name]}, beside or {})


def _write(path: Path, entries: Mapping[str, Any], beside: Mapping[Path, bytes]) -> None:
    boxes, size = _places({name: entry.grid.size for name, entry in entries.items() if entry.grid})
    sheet = Image.new("RGB", size, "white")
    for name, (left, top, _, _) in boxes.items():
        sheet.paste(entries[name].grid, (left, top))
    common: list[dict[str, Any]] = []
    lines = []
    for name, entry in entries.items():
        shared = {key: entry.origin[key] for key in COMMON if key in entry.origin}
        if shared not in common:
            common.append(shared)
        own = {key: value for key, value in entry.origin.items() if key not in (*COMMON, "case")}
        place = {"box": boxes[name]} if name in boxes else {}
        line = json.dumps({"common": common.index(shared), **place, **own}, separators=(",", ":"), ensure_ascii=False)
        lines.append(f"{json.dumps(name)}: {line}")
    text = '{"schema_version": 1,\n"common": ' + json.dumps(common) + ',\n"cases": {\n' + ",\n".join(lines) + "\n}}\n"
    pictures = {} if shows(path, sheet) else {path: as_png(sheet)}
    write_together({**beside, **pictures, path.with_suffix(".json"): text.encode()})


def _places(sizes: Mapping[str, tuple[int, int]]) -> tuple[dict[str, tuple[int, int, int, int]], tuple[int, int]]:
    """Each grid's box (left, top, width, height), in rows, and the size of the sheet."""
    boxes: dict[str, tuple[int, int, int, int]] = {}
    left = top = row = right = 0
    for name, (width, height) in sizes.items():
        if left and left + width > SHEET_WIDTH:
            left, top, row = 0, top + row, 0
        boxes[name] = (left, top, width, height)
        left, row = left + width, max(row, height)
        right = max(right, left)
    return boxes, (max(1, right), max(1, top + row))


def unused_entries(path: Path, known: Iterable[str]) -> list[str]:
    """Cases in a group that are not ``known``.

    Raises:
        GroupError: as ``read_group``.
    """
    return sorted(set(read_group(path)) - set(known))
