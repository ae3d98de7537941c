"""A timeline as a map: rows are cases, columns are releases, colour is how far the pictures moved.

Nothing is told by colour alone: a cell with other pictures has their largest difference in it as a number, and
whatever happened to a case has a mark of its own shape.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PatchCollection
from matplotlib.colors import BoundaryNorm, Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from bench.history.timeline_outcome import CaseInRelease, TimelineFound
from bench.verdicts import Verdict

CELL_WIDTH, CELL_HEIGHT = 0.62, 0.27  # inches
DOTS_PER_INCH = 130
LEGEND_HEIGHT, TITLE_HEIGHT = 1.35, 0.75  # inches
# Bounds of log10(1 - SSIM): a step of colour for each factor of ten, from 0.99999 to 0.
BOUNDS = (-6, -5, -4, -3, -2, -1, 0.31)
BOUND_LABELS = ("1", "0.99999", "0.9999", "0.999", "0.99", "0.9", "<0")
LEAST_LOSS = 1e-6
MOST_ROWS = 60
IDENTICAL_COLOUR, NOTHING_COLOUR, EDGE, INK = "#f4f4f4", "white", "#c8c8c8", "#202020"
# Of ColorBrewer, safe for any kind of colour vision: its lightness falls evenly, so that it is read in grey too.
COLOURS: Colormap = ListedColormap(colormaps["YlGnBu"]([0.12 + 0.88 * step / 5 for step in range(6)]))
NO_PICTURES, NOT_RUN = "no pictures", "release did not run"


@dataclass(frozen=True)
class Mark:
    """A shape in a cell; ``x`` and ``y`` from its middle, in cells."""

    shape: str
    x: float = 0.0
    y: float = 0.0
    size: float = 42.0
    colour: str = INK


MARK_SHAPES = {
    Verdict.RAISES_NOW: Mark("X", size=60, colour="#a50f15"),
    Verdict.BROKEN: Mark("*", size=80, colour="#a50f15"),
    Verdict.RAISES_ELSE: Mark("x", size=40, colour="#a50f15"),
    Verdict.WORKS_NOW: Mark("o", x=-0.33, size=34),
    Verdict.CHANGED: Mark("s", x=-0.33, y=0.1, size=26),
    Verdict.MORE_WORK: Mark("P", x=-0.34, y=-0.28, size=22, colour="#a50f15"),
    Verdict.LESS_WORK: Mark("_", x=-0.33, y=0.36, size=30),
    Verdict.OTHER_CALLS: Mark("D", x=0.36, y=0.24, size=14),
    Verdict.WARNS: Mark("^", x=0.36, y=-0.2, size=20),
}

LINES = frozenset({"x", "_"})  # shapes that have no area
MARK_LABELS = {Verdict.CHANGED: "changed beyond the limits"}


def loss(case: CaseInRelease) -> float | None:
    """``log10(1 - SSIM)`` of the worst tile; ``None`` where pictures are equal or there are none."""
    if case.ssim_worst_tile is None or not case.max_diff:
        return None
    return math.log10(max(1 - case.ssim_worst_tile, LEAST_LOSS))


def draw_map(found: TimelineFound) -> Figure:
    """The map as a figure; releases that were not reached are left out, and of many cases those that never moved."""
    shown = found.model_copy(update={"cases": shown_cases(found)})
    rows, columns = len(shown.cases), len(found.releases)
    left_out = len(found.cases) - rows
    label_width = 0.072 * max(map(len, shown.cases)) + 0.2
    width, height = max(columns * CELL_WIDTH, 7.6 - label_width), rows * CELL_HEIGHT
    size = (label_width + width + 0.25, height + LEGEND_HEIGHT + TITLE_HEIGHT)
    figure = Figure(size)
    FigureCanvasAgg(figure)
    axes = figure.add_axes(
        (label_width / size[0], LEGEND_HEIGHT / size[1], columns * CELL_WIDTH / size[0], height / size[1])
    )
    _axes(axes, shown)
    _cells(axes, shown)
    _marks(axes, shown)
    if left_out:
        axes.set_xlabel(f"not shown: {left_out} cases to which nothing happened", loc="right", fontsize=8)
    beside = f" with {found.alongside}" if found.alongside else ""
    figure.suptitle(
        f"{found.library} {found.span}{beside}: pictures of each release against the release before",
        x=0.15 / size[0],
        y=1 - 0.12 / size[1],
        ha="left",
        va="top",
        fontsize=11,
        weight="bold",
    )
    _legend(figure, size)
    return figure


def shown_cases(found: TimelineFound) -> tuple[str, ...]:
    """The rows of the map: all cases, or of very many those to which something happened, if there are any."""
    if len(found.cases) <= MOST_ROWS:
        return found.cases
    moved = {case.case for release in found.releases for case in release.cases if case.marks or case.max_diff}
    return tuple(case for case in found.cases if case in moved) or found.cases[:MOST_ROWS]


def save_map(found: TimelineFound, path: Path) -> None:
    """Draws the map into a PNG file."""
    draw_map(found).savefig(path, dpi=DOTS_PER_INCH, facecolor="white")


def _axes(axes: Axes, found: TimelineFound) -> None:
    axes.set_xlim(-0.02, len(found.releases) + 0.02)
    axes.set_ylim(len(found.cases) + 0.04, -0.04)
    axes.set_xticks([number + 0.5 for number in range(len(found.releases))], [one.release for one in found.releases])
    axes.set_yticks([number + 0.5 for number in range(len(found.cases))], found.cases, family="monospace", fontsize=8)
    axes.tick_params(length=0)
    axes.xaxis.tick_top()
    axes.tick_params(axis="x", labelsize=9, labelrotation=35 if _is_crowded(found) else 0)
    for side in axes.spines.values():
        side.set_visible(False)


def _is_crowded(found: TimelineFound) -> bool:
    return max((len(one.release) for one in found.releases), default=0) > 7


def _cells_of(found: TimelineFound) -> Iterator[tuple[int, int, CaseInRelease]]:
    """Column, row and case."""
    row_of = {case: row for row, case in enumerate(found.cases)}
    for column, release in enumerate(found.releases):
        for case in release.cases:
            if case.case in row_of:
                yield column, row_of[case.case], case


def _cells(axes: Axes, found: TimelineFound) -> None:
    norm = BoundaryNorm(BOUNDS, len(BOUNDS) - 1)
    moved, losses, equal, without = [], [], [], []
    for column, row, case in _cells_of(found):
        cell = Rectangle((column, row), 1, 1)
        value = loss(case)
        if value is not None:
            moved.append(cell)
            losses.append(value)
            dark = norm(value) >= 3
            axes.text(
                column + 0.5, row + 0.52, str(case.max_diff), ha="center", va="center", fontsize=8,
                color="white" if dark else INK,
            )  # fmt: skip
        elif case.error or case.verdict == Verdict.BROKEN:
            without.append(cell)
        else:
            equal.append(cell)
            if not case.pictures_compared_with:
                axes.text(column + 0.5, row + 0.52, "start", ha="center", va="center", fontsize=7, color="#707070")
    colours = PatchCollection(moved, cmap=COLOURS, norm=norm, edgecolor=EDGE, linewidth=0.6)
    colours.set_array(losses)
    colours.set_gid("moved")
    axes.add_collection(colours)
    axes.add_collection(_patches(equal, IDENTICAL_COLOUR, "identical"))
    axes.add_collection(_patches(without, NOTHING_COLOUR, NO_PICTURES, "////"))
    blocked = []
    for column, release in enumerate(found.releases):
        if not release.ran:
            blocked.append(Rectangle((column, 0), 1, len(found.cases)))
            axes.text(
                column + 0.5, len(found.cases) / 2, release.status, rotation=90, ha="center", va="center", fontsize=9,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 2},
            )  # fmt: skip
    axes.add_collection(_patches(blocked, NOTHING_COLOUR, NOT_RUN, "xx"))


def _patches(patches: list[Rectangle], colour: str, gid: str, hatch: str = "") -> PatchCollection:
    made = PatchCollection(
        patches, facecolor=colour, edgecolor="#9a9a9a" if hatch else EDGE, linewidth=0.6, hatch=hatch or None
    )
    made.set_gid(gid)
    return made


def _marks(axes: Axes, found: TimelineFound) -> None:
    """One scatter for each kind, so that a kind has one shape; its ``gid`` is the kind."""
    norm = BoundaryNorm(BOUNDS, len(BOUNDS) - 1)
    for kind, mark in MARK_SHAPES.items():
        places = [(column, row, case) for column, row, case in _cells_of(found) if kind in case.marks]
        if not places:
            continue
        values = [loss(case) for _, _, case in places]
        dark = [value is not None and norm(value) >= 3 for value in values]
        axes.scatter(
            [column + 0.5 + mark.x for column, _, _ in places],
            [row + 0.5 + mark.y for _, row, _ in places],
            marker=mark.shape,
            s=mark.size,
            c=["white" if on_dark else mark.colour for on_dark in dark],
            linewidths=1.2 if mark.shape in LINES else 0,
            zorder=3,
            gid=kind,
        )


def _legend(figure: Figure, size: tuple[float, float]) -> None:
    """Below the map: the scale of colours on the left, the marks on the right."""
    scale = figure.add_axes((0.35 / size[0], 0.62 / size[1], 3.0 / size[0], 0.2 / size[1]))
    for number in range(len(BOUNDS) - 1):
        scale.add_patch(Rectangle((number, 0), 1, 1, facecolor=COLOURS(number), edgecolor=EDGE))
    scale.set_xlim(0, len(BOUNDS) - 1)
    scale.set_yticks([])
    scale.set_xticks(range(len(BOUNDS)), BOUND_LABELS, fontsize=7)
    scale.tick_params(length=2)
    scale.set_title(
        "SSIM of the worst tile; in the cell: largest\ndifference of any value, in 8-bit levels",
        fontsize=8, loc="left",
    )  # fmt: skip
    for side in scale.spines.values():
        side.set_visible(False)
    kinds: list[Line2D | Patch] = [
        Line2D(
            [], [], linestyle="", marker=mark.shape, color=mark.colour, markersize=6, label=MARK_LABELS.get(kind, kind)
        )
        for kind, mark in MARK_SHAPES.items()
    ]
    kinds += [
        Patch(facecolor=IDENTICAL_COLOUR, edgecolor=EDGE, label="identical (start: nothing before)"),
        Patch(facecolor=NOTHING_COLOUR, edgecolor="#9a9a9a", hatch="////", label=NO_PICTURES),
        Patch(facecolor=NOTHING_COLOUR, edgecolor="#9a9a9a", hatch="xx", label=NOT_RUN),
    ]
    figure.legend(
        handles=kinds,
        loc="lower left",
        bbox_to_anchor=(3.7 / size[0], 0.05 / size[1]),
        ncols=2,
        fontsize=8,
        frameon=False,
    )
