"""Pictures of a page: embedded, or in a folder beside it if they are too large for browsers."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from bench.report.story import CaseEntry, Picture

# Bytes of base64. Browsers open a page of this size immediately; far above it they stall.
LARGEST_WITHIN = 20 * 10**6


@dataclass(frozen=True)
class Shown:
    """A picture of the page: where it is, and its size in pixels."""

    label: str
    source: str
    width: int
    height: int


@dataclass(frozen=True)
class Card:
    """An entry with its pictures.

    Attributes:
        heat: where the two differ.
        brightest: difference in 8-bit levels that the brightest colour of ``heat`` stands for.
    """

    entry: CaseEntry
    after: Shown | None
    before: Shown | None
    heat: Shown | None
    brightest: int = 0


@dataclass(frozen=True)
class _Raw:
    """A picture that is not yet placed in the page or beside it."""

    label: str
    name: str
    content: bytes
    size: tuple[int, int]


def heat_map(one: Image.Image, other: Image.Image) -> tuple[Image.Image, int]:
    """Where two pictures of one size differ, from black over red to yellow, and the largest difference in levels.

    Each pixel shows the largest difference of its channels; the largest of all has the brightest colour.
    """
    levels = [np.asarray(picture.convert("RGB")).astype(np.int16) for picture in (one, other)]
    difference = np.abs(levels[0] - levels[1]).max(axis=2)
    largest = int(difference.max())
    scaled = Image.fromarray(np.rint(difference * (255 / max(1, largest))).astype(np.uint8))
    return ImageOps.colorize(scaled, black="black", mid="#bc3754", white="#fcffa4"), largest


def _read(picture: Picture, name: str) -> _Raw:
    content = picture.path.read_bytes()
    with Image.open(BytesIO(content)) as opened:
        return _Raw(picture.label, name, content, opened.size)


def _heat(after: _Raw, before: _Raw, name: str) -> tuple[_Raw | None, int]:
    if after.size != before.size:
        return None, 0
    with Image.open(BytesIO(after.content)) as one, Image.open(BytesIO(before.content)) as other:
        picture, brightest = heat_map(one, other)
    stream = BytesIO()
    picture.save(stream, format="PNG")
    return _Raw("difference", name, stream.getvalue(), picture.size), brightest


def cards_of(
    entries: Sequence[CaseEntry], page: Path, largest_within: int = LARGEST_WITHIN
) -> tuple[list[Card], Path | None]:
    """The entries with their pictures, and the folder beside the page if they are stored there.

    Pictures are bit for bit those on disk.
    """
    raw: list[tuple[CaseEntry, _Raw | None, _Raw | None, _Raw | None, int]] = []
    for entry in entries:
        after = _read(entry.after, f"{entry.key}.png") if entry.after else None
        before = _read(entry.compared, f"{entry.key}.before.png") if entry.compared else None
        heat, brightest = _heat(after, before, f"{entry.key}.difference.png") if after and before else (None, 0)
        raw.append((entry, after, before, heat, brightest))
    size = sum(len(picture.content) * 4 // 3 for one in raw for picture in one[1:4] if picture)
    folder = page.with_name(f"{page.stem}-pictures")
    if folder.is_dir():
        shutil.rmtree(folder)
    beside = size > largest_within
    if beside:
        folder.mkdir()

    def shown(picture: _Raw | None) -> Shown | None:
        if picture is None:
            return None
        if beside:
            (folder / picture.name).write_bytes(picture.content)
            source = f"{folder.name}/{picture.name}"
        else:
            source = f"data:image/png;base64,{base64.b64encode(picture.content).decode()}"
        return Shown(picture.label, source, *picture.size)

    cards = [
        Card(entry, shown(after), shown(before), shown(heat), brightest)
        for entry, after, before, heat, brightest in raw
    ]
    return cards, folder if beside else None
