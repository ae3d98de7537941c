"""The messages to and from the process of a variation: an assignment, then one answer per case."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from bench.suite.case import Case


@dataclass(frozen=True)
class Assignment:
    """The cases that a process makes.

    Attributes:
        variation: its name.
        threads: of torch, unless the variation sets them.
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
    """The variation has taken effect in this process."""


@dataclass(frozen=True)
class Made:
    """The images of a case, with the hash and the revision of the weights that made them.

    Attributes:
        grids: the images of each repeat of the variation; most variations have one.
    """

    grids: tuple[list[Image.Image], ...]
    weights: str
    revision: str | None


@dataclass(frozen=True)
class NotHeld:
    """The variation had no effect on a case, or, sent instead of ``Ready``, on the process."""

    reason: str


@dataclass(frozen=True)
class Raised:
    """The case raised; type and first line."""

    reason: str


@dataclass(frozen=True)
class Died:
    """The process ended while it made this case; says how it ended. The waiting process creates it."""

    reason: str


Answer = Made | NotHeld | Raised | Died
