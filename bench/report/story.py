"""The content of a report on one run, several runs, an upgrade check, or a timeline.

The page and the summary are rendered from these classes alone.
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
    """A number and the text shown for it, such as 0.0729 and ``72.9 ms``; the number is ``None`` for plain text."""

    text: str
    number: float | None = None


@dataclass(frozen=True)
class Chip:
    """A verdict as shown: its word, optionally with its subject, and whether it is good or bad here."""

    word: str
    kind: Kind


# The subject of a verdict, the verdict, and how often it was given.
Count = tuple[str, Chip, int]


@dataclass(frozen=True)
class Picture:
    """A grid on disk and its label: ``golden``, ``this run``, ``baseline`` …"""

    label: str
    path: Path


@dataclass(frozen=True)
class Score:
    """How far apart two grids are in one respect.

    Attributes:
        used: share of the limit that is used up, above 1 beyond it; ``None`` without a limit.
    """

    name: str
    value: Value
    limit: Value | None = None
    used: float | None = None


@dataclass(frozen=True)
class Tile:
    """One image of a grid; its SSIM is ``None`` if it was not compared."""

    number: int
    seed: int
    prompt: str = ""
    ssim: float | None = None


@dataclass(frozen=True)
class CaseEntry:
    """One case of the report.

    Attributes:
        key: unique in the report, and usable as a link target within the page.
        title: the case's id, with its run or release if there are several.
        verdict: of the pictures, or of the case.
        more: further verdicts, such as those of speed and memory.
        problems: what is wrong, one sentence each.
        before, after: the pictures to compare; ``after`` alone if both are the same.
        figures: named numbers: times, memory, counts.
        seconds: time per image, to sort by.
        group: values to filter by: model, scheduler, dtype, and more.
        command: runs just this case again; may be empty.
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
        """Share of the limit that is left, for the score nearest to its limit; negative beyond it."""
        used = [score.used for score in self.scores if score.used is not None]
        return 1 - max(used) if used else None


@dataclass(frozen=True)
class Chart:
    """A plot as SVG, with a description of what it shows."""

    title: str
    description: str
    svg: str


@dataclass(frozen=True)
class Table:
    """A table of numbers; the first column has the row headings.

    Attributes:
        keys: the key of each row's case, or an empty string.
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
        level: from 0, the same picture, to 6, another picture; ``None`` if no pictures were compared.
        marks: what happened.
    """

    text: str
    level: int | None
    marks: tuple[Verdict, ...] = ()
    key: str = ""
    description: str = ""


@dataclass(frozen=True)
class Map:
    """How far each case moved in each release.

    Attributes:
        marks: every mark that a cell can have, for the legend.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    marks: tuple[Verdict, ...]
    absent: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Snippet:
    """Text to copy, such as a program; ``key`` is the case that it belongs to."""

    title: str
    text: str
    key: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the page with plots and tables; ``notes`` say what could not be shown."""

    key: str
    title: str
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    snippets: tuple[Snippet, ...] = ()


@dataclass(frozen=True)
class GroupCard:
    """Cases that fail or have changed in the same way.

    Attributes:
        sentence: which cases do what.
        cases: the id and the key of each case.
    """

    sentence: str
    kind: Kind
    cases: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class NamedEnvironment:
    """One environment as names and texts, without nesting."""

    name: str
    facts: Mapping[str, str]


@dataclass(frozen=True)
class Story:
    """A report.

    Attributes:
        headline: the verdict as one sentence.
        kind: whether the verdict is good.
        counts: each verdict with its subject and how often it was given.
        facts: what was compared with what, where, when, with which versions.
        changes: what differs between two environments.
        warnings: why the verdict does not cover all that was asked for; ``notes`` are only worth knowing.
        groups: what cases have in common that fail in the same way, worst first.
        next_step: the command that finds out more; may be empty.
    """

    headline: str
    kind: Kind
    counts: tuple[Count, ...]
    facts: tuple[tuple[str, str], ...]
    entries: tuple[CaseEntry, ...]
    changes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    map: Map | None = None
    sections: tuple[Section, ...] = ()
    environments: tuple[NamedEnvironment, ...] = ()
    groups: tuple[GroupCard, ...] = ()
    next_step: str = ""


def kept_picture(folder: Path, name: str, role: str, label: str) -> Picture | None:
    """A picture in the folder of a run, if it was saved; see ``picture_path``."""
    path = picture_path(folder, name, role)
    return Picture(label, path) if path.is_file() else None


def worst_first(counts: Iterable[Count]) -> tuple[Count, ...]:
    """Sorts bad verdicts before the others."""
    return tuple(sorted(counts, key=lambda count: list(Kind).index(count[1].kind)))


def key_of(*parts: str) -> str:
    """A link target within the page: letters, digits, dots and dashes."""
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
    """What records, ``upgrade.json`` and ``timeline.json`` say about two grids; all ``None`` if none were compared."""

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
    """The scores of a comparison, each with the share of its limit that is used up."""
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
    """The images of a case with the seeds and prompts from its settings."""
    images = int(settings.get("images", 0))
    prompts = list(settings.get("prompts") or [""] * images)
    known = list(scores) if scores is not None else [None] * images
    first = int(settings.get("seed", 0))
    return tuple(
        Tile(number + 1, first + number, prompts[number] if number < len(prompts) else "", known[number])
        for number in range(min(images, len(known)))
    )


def sums_of(counts: Mapping[str, Any]) -> dict[str, int]:
    """The counted work of one call (``Work.to_json``): one number per quantity, under the name shown to readers."""
    sums = {
        "value reads": sum(counts.get("host_syncs", {}).values()),
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
