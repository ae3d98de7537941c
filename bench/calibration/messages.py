"""What the process of a variation is told, and what it answers, one message per case."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from bench.suite.case import Case


@dataclass(frozen=True)
class Assignment:
    """The cases that a process is to make.

    Attributes:
        variation: its name.
        threads: of torch, unless the variation has its own.
        device: torch's name.
        suite_folder: absolute.
    """

    variation: str
    cases: tuple[Case, ...]
    threads: int
    device: str
    suite_folder: Path


@dataclass(frozen=True)
class Ready:
    """The variation holds in this process."""


@dataclass(frozen=True)
class Made:
    """The images of a case, with the hash and the revision of the weights that made them.

    Attributes:
        grids: the images of each repeat of the variation; of most variations there is one.
    """

    grids: tuple[list[Image.Image], ...]
    weights: str
    revision: str | None


@dataclass(frozen=True)
class NotHeld:
    """The variation did not take hold; for the whole process where it comes instead of ``Ready``."""

    reason: str


@dataclass(frozen=True)
class Raised:
    """The case raised; type and first line."""

    reason: str


@dataclass(frozen=True)
class Died:
    """The process ended while it made this case; what it ended with. Made by the side that waits."""

    reason: str


Answer = Made | NotHeld | Raised | Died
