"""A timeline as a map: rows are cases, columns are releases, colour shows how far the pictures moved.

Nothing depends on colour alone: a cell whose pictures changed shows their largest difference as a number, and each kind
of event has a mark with its own shape. Vega-Lite draws the map, through Altair.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.history.timeline_outcome import CaseInRelease, TimelineFound
from bench.verdicts import Verdict

CELL_WIDTH, CELL_HEIGHT = 60, 26  # pixels, before enlarging
ENLARGED = 1.35
# SSIM of the worst tile: one step of colour for each factor of ten of 1 - SSIM.
STEPS = ("1 to 0.99999", "to 0.9999", "to 0.999", "to 0.99", "to 0.9", "below 0.9")
LOSS_BOUNDS = (-5, -4, -3, -2, -1)  # log10(1 - SSIM) between the steps
LEAST_LOSS = 1e-6
DARK_FROM = 3  # step of colour from which text and marks in a cell are white
MOST_ROWS = 60
CROWDED_FROM = 8  # characters of a release, from which names are slanted
IDENTICAL_COLOUR, EDGE, HATCHING, INK, ALARM = "#f4f4f4", "#c8c8c8", "#9a9a9a", "#202020", "#a50f15"
# ColorBrewer YlGnBu, safe for all kinds of colour vision: its lightness falls evenly, so it also reads in grey.
COLOURS = ("#eef8b3", "#aedfb6", "#50bbc2", "#1e88bc", "#24459c", "#081d58")
IDENTICAL, NO_PICTURES, NOT_RUN = "identical (start: nothing before)", "no pictures", "release did not run"

# Paths within -1 … 1; those of cells stay within the height of a cell. Vega-Lite has no hatching.
_HEIGHT = CELL_HEIGHT / CELL_WIDTH
_X = "M-1,-.5L-.5,-1L0,-.5L.5,-1L1,-.5L.5,0L1,.5L.5,1L0,.5L-.5,1L-1,.5L-.5,0Z"
_THIN_X = "M-1,-1L1,1M-1,1L1,-1"
_STAR = "M{}Z".format(
    "L".join(
        f"{radius * math.sin(corner * math.pi / 5):.3f},{-radius * math.cos(corner * math.pi / 5):.3f}"
        for corner, radius in enumerate((1, 0.42) * 5)
    )
)


def _hatching(*, crossed: bool) -> str:
    """Slanted lines within a cell, four across; ``crossed`` adds lines of the other slant."""
    span, lines = 2 * _HEIGHT, []
    for number in range(-2, 6):
        left = -1 + number * 0.4
        low, high = max(left, -1.0), min(left + span, 1.0)
        if low < high:
            lines.append(f"M{low:.3f},{_HEIGHT - (low - left):.3f}L{high:.3f},{_HEIGHT - (high - left):.3f}")
            if crossed:
                lines.append(f"M{low:.3f},{(low - left) - _HEIGHT:.3f}L{high:.3f},{(high - left) - _HEIGHT:.3f}")
    return "".join(lines)


_FRAME = f"M-1,{-_HEIGHT:.3f}H1V{_HEIGHT:.3f}H-1Z"
CELL_SHAPES = {
    IDENTICAL: _FRAME,
    NO_PICTURES: _FRAME + _hatching(crossed=False),
    NOT_RUN: _FRAME + _hatching(crossed=True),
}


@dataclass(frozen=True)
class Mark:
    """A shape in a cell; ``x`` and ``y`` from its middle, in cells; ``size`` in square pixels."""

    shape: str
    x: float = 0.0
    y: float = 0.0
    size: float = 75.0
    colour: str = INK


MARK_SHAPES = {
    Verdict.RAISES_NOW: Mark(_X, size=108, colour=ALARM),
    Verdict.BROKEN: Mark(_STAR, size=190, colour=ALARM),
    Verdict.RAISES_ELSE: Mark(_THIN_X, size=72, colour=ALARM),
    Verdict.WORKS_NOW: Mark("circle", x=-0.33, size=60),
    Verdict.CHANGED: Mark("square", x=-0.33, y=0.1, size=46),
    Verdict.MORE_WORK: Mark("cross", x=-0.34, y=-0.28, size=46, colour=ALARM),
    Verdict.LESS_WORK: Mark("stroke", x=-0.33, y=0.36, size=54),
    Verdict.OTHER_CALLS: Mark("diamond", x=0.36, y=0.24, size=36),
    Verdict.WARNS: Mark("triangle-up", x=0.36, y=-0.2, size=36),
}

MARK_LABELS = {Verdict.CHANGED: "changed beyond the limits"}


def step_of_colour(case: CaseInRelease) -> int | None:
    """The index of a case in ``STEPS``; ``None`` if its pictures are equal or missing."""
    if case.ssim_worst_tile is None or not case.max_diff:
        return None
    return bisect_right(LOSS_BOUNDS, math.log10(max(1 - case.ssim_worst_tile, LEAST_LOSS)))


def draw_map(found: TimelineFound) -> Any:
    """The map as a chart, without releases that were not reached and, if there are many cases, those without an event.

    Names of its layers: ``moved``, ``numbers``, ``cells``, ``start``, ``halo``, ``statuses`` and the kinds of marks.
    """
    import altair as alt

    shown = found.model_copy(update={"cases": shown_cases(found)})
    beside = f" with {found.alongside}" if found.alongside else ""
    left_out = len(found.cases) - len(shown.cases)
    title = alt.TitleParams(
        f"{found.library} {found.span}{beside}: pictures of each release against the release before",
        subtitle=[f"not shown: {left_out} unchanged cases"] if left_out else [],
        anchor="start",
        frame="bounds",
        fontSize=14,
        offset=14,
    )
    return (
        alt.layer(_moved(shown), _other_cells(shown), _texts(shown), _marks(shown))
        .resolve_scale(color="independent", shape="independent", fill="independent", stroke="independent")
        .properties(title=title, width=alt.Step(CELL_WIDTH), height=alt.Step(CELL_HEIGHT))
        .configure(background="white", font="sans-serif")
        .configure_view(stroke=None)
        .configure_scale(bandPaddingInner=0, bandPaddingOuter=0)
        .configure_legend(
            orient="bottom", direction="vertical", labelLimit=0, titleLimit=0, symbolLimit=0, columnPadding=16,
            titleFontWeight="normal", offset=16,
        )
    )  # fmt: skip


def shown_cases(found: TimelineFound) -> tuple[str, ...]:
    """The rows of the map: all cases or, of very many, those that changed, if any did."""
    if len(found.cases) <= MOST_ROWS:
        return found.cases
    moved = {case.case for release in found.releases for case in release.cases if case.marks or case.max_diff}
    return tuple(case for case in found.cases if case in moved) or found.cases[:MOST_ROWS]


def save_map(found: TimelineFound, path: Path) -> None:
    """Draws the map into a PNG file."""
    import vl_convert

    path.write_bytes(vl_convert.vegalite_to_png(draw_map(found).to_dict(), scale=ENLARGED, allowed_base_urls=[]))


def _layer(found: TimelineFound, name: str, rows: Iterable[Mapping[str, Any]]) -> Any:
    """A chart in which each row has its ``case`` and its ``release``."""
    import altair as alt

    releases = [one.release for one in found.releases]
    slant = -35 if max(map(len, releases), default=0) >= CROWDED_FROM else 0
    across = alt.Axis(orient="top", labelAngle=slant, ticks=False, domain=False, labelFontSize=11, labelPadding=6)
    down = alt.Axis(ticks=False, domain=False, labelFont="monospace", labelLimit=0, labelFontSize=10, labelPadding=6)
    return alt.Chart(alt.Data(values=list(rows)), name=name).encode(
        x=alt.X("release:O", title=None, axis=across, scale=alt.Scale(domain=releases)),
        y=alt.Y("case:O", title=None, axis=down, scale=alt.Scale(domain=list(found.cases))),
    )


def _cells_of(found: TimelineFound) -> Iterator[tuple[dict[str, Any], CaseInRelease]]:
    """The row and column of each case that is shown, and the case."""
    rows = frozenset(found.cases)
    for release in found.releases:
        for case in release.cases:
            if case.case in rows:
                yield {"release": release.release, "case": case.case}, case


def _moved(found: TimelineFound) -> Any:
    """Cells whose pictures changed: colour shows the SSIM, a number the largest difference."""
    import altair as alt

    rows = []
    for place, case in _cells_of(found):
        step = step_of_colour(case)
        if step is not None:
            rows.append(place | {"ssim": STEPS[step], "largest": str(case.max_diff), "dark": step >= DARK_FROM})
    legend = alt.Legend(
        title=["SSIM of the worst tile; in the cell: largest", "difference of any value, in 8-bit levels"],
        symbolType="square", symbolSize=200, symbolStrokeWidth=0, columns=2,
    )  # fmt: skip
    colour = alt.Color("ssim:O", scale=alt.Scale(domain=list(STEPS), range=list(COLOURS)), legend=legend)
    text = alt.condition("datum.dark", alt.value("white"), alt.value(INK))
    cells = _layer(found, "moved", rows).mark_rect(stroke=EDGE, strokeWidth=0.6).encode(color=colour)
    numbers = _layer(found, "numbers", rows).mark_text(fontSize=10).encode(text="largest:N", fill=text)
    return alt.layer(cells, numbers)


def _other_cells(found: TimelineFound) -> Any:
    """All other cells: each kind has its own hatching."""
    import altair as alt

    rows = [place | {"cell": _kind_of(case)} for place, case in _cells_of(found) if step_of_colour(case) is None]
    for release in found.releases:
        if not release.ran:
            rows += [{"release": release.release, "case": case, "cell": NOT_RUN} for case in found.cases]
    kinds = list(CELL_SHAPES)
    legend = alt.Legend(title=None, symbolSize=32**2, symbolStrokeWidth=0.7)

    def scale(*values: str) -> Any:
        return alt.Scale(domain=kinds, range=list(values))

    return (
        _layer(found, "cells", rows)
        .mark_point(size=CELL_WIDTH**2, strokeWidth=0.7, opacity=1)
        .encode(
            shape=alt.Shape("cell:N", scale=scale(*CELL_SHAPES.values()), legend=legend),
            fill=alt.Fill("cell:N", scale=scale(IDENTICAL_COLOUR, "white", "white"), legend=legend),
            stroke=alt.Stroke("cell:N", scale=scale(EDGE, HATCHING, HATCHING), legend=legend),
        )
    )


def _kind_of(case: CaseInRelease) -> str:
    return NO_PICTURES if case.error or case.verdict == Verdict.BROKEN else IDENTICAL


def _texts(found: TimelineFound) -> Any:
    """Marks the start of a case, and names the reason in a release that did not run."""
    import altair as alt

    starts = [
        place
        for place, case in _cells_of(found)
        if step_of_colour(case) is None
        and not (case.error or case.verdict == Verdict.BROKEN or case.pictures_compared_with)
    ]
    start = _layer(found, "start", starts).mark_text(fontSize=9, color="#707070", text="start")
    middle = found.cases[len(found.cases) // 2]
    blocked = [{"release": one.release, "case": middle, "status": one.status} for one in found.releases if not one.ran]
    statuses = _layer(found, "statuses", blocked)
    words = statuses.encode(text="status:N")
    halo = words.mark_text(angle=270, fontSize=11, stroke="white", strokeWidth=7, strokeJoin="round")
    return alt.layer(start, halo.properties(name="halo"), words.mark_text(angle=270, fontSize=11, color=INK))


def _marks(found: TimelineFound) -> Any:
    """One layer for each kind of mark, with its own shape, place in the cell and colour."""
    import altair as alt

    names = [MARK_LABELS.get(kind, kind) for kind in MARK_SHAPES]
    legend = alt.Legend(title=None, columns=2, symbolSize=80)
    colours = alt.Scale(domain=names, range=[mark.colour for mark in MARK_SHAPES.values()])
    shapes = alt.Scale(domain=names, range=[mark.shape for mark in MARK_SHAPES.values()])
    on_dark = {"condition": {"test": "datum.dark", "value": "white"}}
    layers = []
    for kind, mark in MARK_SHAPES.items():
        rows = [
            place | {"kind": MARK_LABELS.get(kind, kind), "dark": (step_of_colour(case) or 0) >= DARK_FROM}
            for place, case in _cells_of(found)
            if kind in case.marks
        ]
        layers.append(
            _layer(found, kind, rows)
            .mark_point(
                filled=True, size=mark.size, opacity=1, strokeWidth=1.2, xOffset=mark.x * CELL_WIDTH,
                yOffset=mark.y * CELL_HEIGHT,
            )
            .encode(
                shape=alt.Shape("kind:N", scale=shapes, legend=legend),
                fill=alt.Fill("kind:N", scale=colours, legend=legend, **on_dark),
                stroke=alt.Stroke("kind:N", scale=colours, legend=legend, **on_dark),
            )
        )  # fmt: skip
    return alt.layer(*layers)
