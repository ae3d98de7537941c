"""How similar the pictures of fast settings are to those of a model's reference settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from PIL import Image

from bench.pictures.grids import split_grid
from bench.pictures.similarity import ssim
from bench.record.record import Record
from bench.tune.front import undominated


@dataclass(frozen=True)
class Quality:
    """One case against its model's reference: mean SSIM over the tiles, and seconds per image."""

    case: str
    ssim: float
    seconds: float


@dataclass(frozen=True)
class Comparison:
    """The cases of a model with the same prompts, seeds and sizes as its reference.

    Attributes:
        reference: the case with the most steps in float32; of several, the slowest.
        front: cases that no other case beats in both time and similarity, fastest first.
        left_out: number of timed cases with other prompts, seeds or sizes.
    """

    model: str
    reference: str
    points: tuple[Quality, ...]
    front: tuple[Quality, ...]
    left_out: int


def seconds_per_image(record: Record) -> float | None:
    return None if record.median_s is None else record.median_s / record.settings["images"]


def compare_with_references(records: Sequence[Record], grids: Path) -> list[Comparison]:
    """Compares the timed cases of each model with its reference; leaves out models without both.

    Args:
        grids: the folder with ``<case>.png``.
    """
    models: dict[str, list[Record]] = {}
    for record in records:
        if seconds_per_image(record) is not None and _grid(grids, record).is_file():
            models.setdefault(record.model, []).append(record)
    return [found for model, timed in models.items() if (found := _of_model(model, timed, grids))]


def _of_model(model: str, timed: Sequence[Record], grids: Path) -> Comparison | None:
    reference = _reference(timed)
    if reference is None:
        return None
    theirs = _tiles(grids, reference)
    points, left_out = [], 0
    for record in timed:
        tiles = _tiles(grids, record) if _shows(record) == _shows(reference) else []
        if [tile.shape for tile in tiles] != [tile.shape for tile in theirs]:
            left_out += 1
            continue
        likeness = fmean(ssim(tile, other) for tile, other in zip(tiles, theirs, strict=True))
        points.append(Quality(record.case, likeness, seconds_per_image(record) or 0.0))
    if len(points) < 2:
        return None
    return Comparison(model, reference.case, tuple(points), pareto_front(points), left_out)


def _reference(timed: Sequence[Record]) -> Record | None:
    sound = [record for record in timed if record.settings["dtype"] == "float32"]
    return max(sound, key=lambda record: (record.settings["steps"], seconds_per_image(record)), default=None)


def _shows(record: Record) -> tuple[object, ...]:
    settings = record.settings
    return tuple(str(settings.get(key)) for key in ("images", "prompts", "seed", "size"))


def _grid(grids: Path, record: Record) -> Path:
    return grids / f"{record.case}.png"


def _tiles(grids: Path, record: Record) -> list[np.ndarray]:
    with Image.open(_grid(grids, record)) as picture:
        return [np.asarray(tile) for tile in split_grid(picture.convert("RGB"), record.settings["images"])]


def pareto_front(points: Sequence[Quality]) -> tuple[Quality, ...]:
    """The points that no other point beats: none is faster and at least as similar, or as fast and more similar."""
    return tuple(undominated(points, lambda point: (point.seconds, point.ssim)))
