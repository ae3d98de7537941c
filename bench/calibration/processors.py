"""Pictures that a processor of another maker drew, kept as differences from the goldens.

They are what rounding twins imitate, so they are never evidence: they test the limits that follow from the evidence
(``tests/calibration/test_validation.py``). Add a processor with the grids of a run on it::

    python -m bench.calibration keep results/latest/grids amd-epyc "AMD EPYC, AVX-512 with bfloat16, no AMX"
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.calls.device import choose_device
from bench.files import write_atomically
from bench.pictures.grids import split_grid
from bench.pictures.store import Golden, find_golden, read_golden
from bench.suite.case import Case

FOLDER = Path(__file__).with_name("processors")
_ABOUT = "about"


@dataclass(frozen=True)
class Processor:
    """What a processor drew.

    Attributes:
        name: in words.
        differences: by case, this minus golden, int16 of shape (images, height, width, 3).
        goldens: by case, the hash of the golden's values that the difference belongs to.
    """

    name: str
    differences: dict[str, np.ndarray]
    goldens: dict[str, str]


def _values(tiles: Iterable[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(tile) for tile in tiles])


def _hash(values: np.ndarray) -> str:
    return hashlib.sha256(repr(values.shape).encode() + values.tobytes()).hexdigest()[:16]


def _goldens(cases: Iterable[Case], root: Path) -> Iterator[tuple[Case, Golden]]:
    device = choose_device("cpu")
    for case in cases:
        place = find_golden(root, case, device)
        golden = read_golden(place) if place else None
        if golden and golden.tiles:
            yield case, golden


def keep(grids: Path, cases: Iterable[Case], root: Path, name: str, path: Path) -> int:
    """Writes the differences of all grids in a folder of a run from their goldens.

    Returns:
        The number of cases that were kept: those with a grid and a golden. If there are none, nothing is written.
    """
    differences, hashes = dict[str, np.ndarray](), dict[str, str]()
    for case, golden in _goldens(cases, root):
        picture = grids / f"{case.id}.png"
        if picture.is_file():
            with Image.open(picture) as opened:
                tiles = split_grid(opened.convert("RGB"), len(golden.tiles))
            theirs, ours = _values(tiles), _values(golden.tiles)
            differences[case.id] = theirs.astype(np.int16) - ours
            hashes[case.id] = _hash(ours)
    if not differences:
        return 0
    about = json.dumps({"name": name, "goldens": hashes})
    content = BytesIO()
    arrays: dict[str, Any] = {_ABOUT: np.array(about), **differences}
    np.savez_compressed(content, **arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content.getvalue())
    return len(differences)


def read_processor(path: Path) -> Processor:
    """Raises:
    OSError: the file cannot be read.
    ValueError: ``keep`` did not write the file.
    """
    with np.load(path) as file:
        about = json.loads(str(file[_ABOUT]))
        return Processor(about["name"], {name: file[name] for name in about["goldens"]}, about["goldens"])


def pictures_of(processor: Processor, cases: Iterable[Case], root: Path) -> Iterator[tuple[Case, list[Image.Image]]]:
    """The images that the processor drew of each case whose golden has not changed since."""
    for case, golden in _goldens(cases, root):
        ours = _values(golden.tiles)
        if processor.goldens.get(case.id) == _hash(ours):
            theirs = (ours + processor.differences[case.id]).astype(np.uint8)
            yield case, [Image.fromarray(one) for one in theirs]
