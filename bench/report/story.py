"""What a report tells, whatever it tells of: one run, several, an upgrade check, or a timeline.

The page and the summary are drawn from these classes alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from bench.pictures.similarity import Limits
from bench.record.folder import picture_path
from bench.verdicts import Kind, Verdict

UNET_CALLS = "UNet calls"


@dataclass(frozen=True)
class Value:
    """A number with the text that people read, such as 0.0729 and ``72.9 ms``; only text where there is no number."""

    text: str
    number: float | None = None


@dataclass(frozen=True)
class Chip:
    """A verdict as it is shown: its word, perhaps with what it is about, and what it means here."""

    word: str
    kind: Kind


# What a verdict was about, the verdict, and how often it was given.
Count = tuple[str, Chip, int]


@dataclass(frozen=True)
class Picture:
    """A grid on disk, and what it is: ``golden``, ``this run``, ``baseline`` …"""

    label: str
    path: Path


@dataclass(frozen=True)
class Score:
    """How far apart two grids are in one respect.

    Attributes:
        used: share of the room that the limit leaves which is used up, above 1 beyond the limit; ``None`` without
            a limit.
    """

    name: str
    value: Value
    limit: Value | None = None
    used: float | None = None


@dataclass(frozen=True)
class Tile:
    """One image of a grid; its SSIM is ``None`` where there was nothing to compare it with."""

    number: int
    seed: int
    prompt: str = ""
    ssim: float | None = None


@dataclass(frozen=True)
class Entry:
    """One case of the report.

    Attributes:
        key: unique in the report, and safe as an address within the page.
        title: the case's id, with the run or the release where that matters.
        verdict: of the pictures, or of the whole case.
        more: further verdicts, such as those of speed and memory.
        problems: why it is bad, a sentence each.
        before, after: the pictures to compare; ``after`` alone where both are the same.
        tile_edge: width and height of a tile in pixels.
        figures: named numbers: times, memory, counts.
        seconds: time per image, to sort by.
        group: what a filter may ask for: model, scheduler, dtype, and more.
        command: runs just this case again; empty where there is none.
    """

    key: str
    title: str
    verdict: Chip
    more: tuple[Chip, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    before: Picture | None = None
    after: Picture | None = None
    tiles: tuple[Tile, ...] = ()
    scores: tuple[Score, ...] = ()
    limits_reason: str = ""
    figures: tuple[tuple[str, Value], ...] = ()
    seconds: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    group: Mapping[str, str] = field(default_factory=dict)
    command: str = ""

    @property
    def failed(self) -> bool:
        return any(chip.kind is Kind.BAD for chip in (self.verdict, *self.more))

    @property
    def compared(self) -> Picture | None:
        """The picture that differs from ``after``, if there is one."""
        return self.before if self.before != self.after else None

    @property
    def worst_ssim(self) -> float | None:
        known = [tile.ssim for tile in self.tiles if tile.ssim is not None]
        return min(known) if known else None

    @property
    def headroom(self) -> float | None:
        """Share of the limits' room that is left, in whatever is nearest to its limit; negative beyond it."""
        used = [score.used for score in self.scores if score.used is not None]
        return 1 - max(used) if used else None


@dataclass(frozen=True)
class Chart:
    """A plot as SVG, with what it shows in words."""

    title: str
    description: str
    svg: str


@dataclass(frozen=True)
class Table:
    """Numbers for all to read; the first column heads its rows.

    Attributes:
        keys: for each row, the entry that it tells of, or an empty text.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    keys: tuple[str, ...]

    @property
    def keyed_rows(self) -> list[tuple[str, tuple[Value, ...]]]:
        return list(zip(self.keys, self.rows, strict=True))


@dataclass(frozen=True)
class Cell:
    """One cell of a map: how far a case moved in a release.

    Attributes:
        level: 0 for the same picture to 6 for another one; ``None`` where there is no picture to compare.
        marks: what happened.
    """

    text: str
    level: int | None
    marks: tuple[Verdict, ...] = ()
    key: str = ""
    description: str = ""


@dataclass(frozen=True)
class Map:
    """Cases by releases.

    Attributes:
        marks: all that a cell may have, for the legend.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    marks: tuple[Verdict, ...]
    absent: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Section:
    """A part of the page with plots and tables; ``notes`` say what could not be shown."""

    key: str
    title: str
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Side:
    """One environment, flat: names and texts."""

    name: str
    facts: Mapping[str, str]


@dataclass(frozen=True)
class Story:
    """A whole report.

    Attributes:
        headline: the verdict as one sentence.
        kind: whether that is good.
        counts: verdicts with how often each was given, and what it was about.
        facts: what was compared with what, where, when, with which versions.
        changes: what differs between two environments.
        warnings: why the verdict does not stand for all that was asked; ``remarks`` are worth knowing only.
    """

    headline: str
    kind: Kind
    counts: tuple[Count, ...]
    facts: tuple[tuple[str, str], ...]
    entries: tuple[Entry, ...]
    changes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    map: Map | None = None
    sections: tuple[Section, ...] = ()
    environments: tuple[Side, ...] = ()


def kept_picture(folder: Path, name: str, role: str, label: str) -> Picture | None:
    """A picture in the folder of a run, if it was kept; see ``picture_path``."""
    path = picture_path(folder, name, role)
    return Picture(label, path) if path.is_file() else None


def worst_first(counts: Iterable[Count]) -> tuple[Count, ...]:
    """Counts of what is bad before those of what is not."""
    return tuple(sorted(counts, key=lambda count: list(Kind).index(count[1].kind)))


def key_of(*parts: str) -> str:
    """An address within the page: letters, digits, dots and dashes."""
    return "case-" + re.sub(r"[^a-zA-Z0-9.-]+", "-", "-".join(part for part in parts if part))


def seconds(value: float | None) -> Value:
    if value is None:
        return Value("")
    if value >= 10:
        return Value(f"{value:,.1f} s", value)
    if value >= 1:
        return Value(f"{value:.2f} s", value)
    return Value(f"{1000 * value:.0f} ms" if value >= 0.1 else f"{1000 * value:.1f} ms", value)


def mebibytes(value: float | None) -> Value:
    return Value("") if value is None else Value(f"{value / 2**20:,.0f} MiB", value)


def ssim(value: float | None) -> Value:
    return Value("") if value is None else Value(f"{value:.5f}", value)


def count(value: int | None) -> Value:
    return Value("") if value is None else Value(f"{value:,}", value)


def share(value: float | None) -> Value:
    return Value("") if value is None else Value(f"{value:.2%}", value)


class Scored(Protocol):
    """What records, ``upgrade.json`` and ``timeline.json`` say of two grids; all ``None`` if nothing was compared."""

    @property
    def ssim_worst_tile(self) -> float | None: ...
    @property
    def ssim_grid(self) -> float | None: ...
    @property
    def max_diff(self) -> int | None: ...
    @property
    def changed_share(self) -> float | None: ...
    @property
    def mean_diff(self) -> tuple[float, float, float] | None: ...
    @property
    def limits(self) -> Limits | None: ...


def scores_of(scored: Scored) -> tuple[Score, ...]:
    """What was compared, with how much of its limit's room each took."""
    if scored.ssim_worst_tile is None or scored.max_diff is None or scored.mean_diff is None:
        return ()
    limits = scored.limits
    share_limit = limits.changed_share if limits and limits.changed_share < 1 else None
    shift = max(map(abs, scored.mean_diff))
    channels = ", ".join(f"{value:+.2f}" for value in scored.mean_diff)
    return (
        Score(
            "SSIM of the worst tile",
            ssim(scored.ssim_worst_tile),
            Value(f"at least {limits.ssim:g}", limits.ssim) if limits else None,
            _used(1 - scored.ssim_worst_tile, 1 - limits.ssim) if limits else None,
        ),
        Score(
            "largest difference",
            Value(f"{scored.max_diff} levels", scored.max_diff),
            Value(f"at most {limits.max_diff}", limits.max_diff) if limits else None,
            _used(scored.max_diff, limits.max_diff) if limits else None,
        ),
        Score(
            "colour shift",
            Value(f"{shift:.3f} levels (red, green, blue {channels})", shift),
            Value(f"at most {limits.mean_diff:g}", limits.mean_diff) if limits else None,
            _used(shift, limits.mean_diff) if limits else None,
        ),
        Score(
            "values that differ",
            share(scored.changed_share),
            Value(f"at most {100 * share_limit:.3g} %", share_limit) if share_limit is not None else None,
            _used(scored.changed_share or 0.0, share_limit) if share_limit is not None else None,
        ),
        Score("SSIM of the whole grid", ssim(scored.ssim_grid)),
    )


def _used(distance: float, room: float) -> float:
    if room <= 0:
        return 0.0 if distance <= 0 else float("inf")
    return max(0.0, distance) / room


def tiles_of(settings: Mapping[str, Any], scores: Iterable[float] | None) -> tuple[Tile, ...]:
    """The images of a case with their seeds and prompts, as its settings say."""
    images = int(settings.get("images", 0))
    prompts = list(settings.get("prompts") or [""] * images)
    known = list(scores) if scores is not None else [None] * images
    first = int(settings.get("seed", 0))
    return tuple(
        Tile(number + 1, first + number, prompts[number] if number < len(prompts) else "", known[number])
        for number in range(min(images, len(known)))
    )


def sums_of(counts: Mapping[str, Any]) -> dict[str, int]:
    """What was counted of one call (``Work.to_json``), each quantity as one number under its name for readers."""
    sums = {
        "host syncs": sum(counts.get("host_syncs", {}).values()),
        UNET_CALLS: counts.get("unet_calls"),
        "tokens encoded": counts.get("tokens"),
        "FLOPs": counts.get("flops"),
        "copied bytes": counts.get("copied_bytes"),
        "peak bytes": counts.get("peak_bytes"),
        "operators": sum(counts.get("operators", {}).values()),
        "graphs": counts.get("graphs"),
        "graph breaks": counts.get("graph_breaks"),
    }
    return {name: amount for name, amount in sums.items() if amount is not None}


def plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
