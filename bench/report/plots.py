"""Plots as SVG within the page, readable without scripts and in dark and light mode.

Vega-Lite draws them, through Altair. Marks differ in colour and in shape and have labels for screen readers; each mark
of a case links to that case.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.record.record import Record
from bench.report.quality import Comparison, seconds_per_image
from bench.report.story import Chart, Value, mebibytes, seconds
from bench.suite.case import DTYPES
from bench.upgrade.outcome import Figure
from bench.verdicts import Verdict

if TYPE_CHECKING:
    import altair as alt

# Safe for colour-blind readers: the darker colours of Okabe and Ito (2008), "Color universal design", and four of
# similar lightness. Each has a contrast of at least 3:1 with white and with the dark page.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#7a6cc4", "#8a7000", "#808080", "#a05a2c")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
GRID = "rgba(128,128,128,0.25)"
BAND = "rgba(128,128,128,0.18)"
WIDTH, HEIGHT = 460, 260
ROW = 15
# A plot with more than these is unreadable; the tables have everything.
MOST_SERIES, MOST_ROWS = 16, 60
# Of a row's name, in pixels.
LONGEST_NAME = 460
LOGARITHMIC_FROM = 20.0
BEST, BEATEN = "best for its time", "another case is better"
PHASES = ("load", "first call", "text encoding", "denoising", "decoding")


@dataclass(frozen=True)
class Timed:
    """A record, its link target in the page, and its run if there are several."""

    record: Record
    key: str
    run: str = ""

    @property
    def name(self) -> str:
        return f"{self.record.case} ({self.run})" if self.run else self.record.case


# Traits that distinguish lines, the most important first.
_TRAITS: Mapping[str, Callable[[Timed], str]] = {
    "run": lambda timed: timed.run,
    "scheduler": lambda timed: str(timed.record.settings.get("scheduler", "")),
    "dtype": lambda timed: DTYPES.get(str(timed.record.settings.get("dtype")), ""),
    "optimizations": lambda timed: ", ".join(timed.record.settings.get("optimizations") or ["plain"]),
    "guidance": lambda timed: f"guidance {timed.record.settings.get('guidance')}",
    "size": lambda timed: f"{timed.record.settings.get('size') or 'own'} px",
    "steps": lambda timed: f"{timed.record.settings.get('steps')} steps",
}


def line_names(timed: Sequence[Timed], without: str) -> list[str]:
    """Names the line of each record by the traits in which the records differ, up to ``MOST_SERIES`` lines.

    Args:
        without: the trait on the axis.
    """
    names = [""] * len(timed)
    for trait, of in _TRAITS.items():
        if trait == without or len({of(one) for one in timed}) == 1:
            continue
        finer = [f"{name}, {of(one)}".removeprefix(", ") for name, one in zip(names, timed, strict=True)]
        if len(set(finer)) <= MOST_SERIES:
            names = finer
    return [name or "all" for name in names]


def _svg(chart: alt.TopLevelMixin) -> str:
    import vl_convert

    svg = vl_convert.vegalite_to_svg(chart.to_dict(), allowed_base_urls=[])
    # Vega makes links within the page absolute and opens them in a new window.
    return re.sub(r'xlink:href="[^"#]*#([^"]*)"( target="[^"]*")?', r'xlink:href="#\1"', svg)


def _configured(chart: Any) -> Any:
    return (
        chart.configure(background="transparent", font="sans-serif")
        .configure_view(stroke=None)
        .configure_axis(
            labelColor="currentColor", titleColor="currentColor", gridColor=GRID, domainColor=GRID, tickColor=GRID,
            labelLimit=360,
        )
        .configure_legend(labelColor="currentColor", titleColor="currentColor", labelLimit=260, symbolLimit=0)
        .configure_title(color="currentColor")
        .configure_header(labelColor="currentColor", titleColor="currentColor")
    )  # fmt: skip


def _chart(title: str, description: str, chart: Any) -> Chart:
    return Chart(title, description, _svg(_configured(chart)))


def _styles(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """A colour and a shape for each name; no two names share both."""
    colours = [PALETTE[number % len(PALETTE)] for number in range(len(names))]
    shapes = [SHAPES[(number + number // len(PALETTE)) % len(SHAPES)] for number in range(len(names))]
    return colours, shapes


@dataclass(frozen=True)
class _Measure:
    """A quantity on the y axis: its title with the unit, its value for a record, and the text of a value."""

    title: str
    of: Callable[[Record], float | None]
    value_of: Callable[[float], Value]


TIME = _Measure("time per image, seconds", seconds_per_image, seconds)
MEMORY = _Measure(
    "peak memory, MiB",
    lambda record: None if record.peak_memory_bytes is None else record.peak_memory_bytes / 2**20,
    lambda value: mebibytes(value * 2**20),
)


def _lines(timed: Sequence[Timed], trait: str, measure: _Measure) -> Any:
    """A measure against steps or guidance: a point for each record, joined if only the trait differs.

    Times also show each sample as a dot.
    """
    import altair as alt

    known = [one for one in timed if measure.of(one.record) is not None]
    names = line_names(known, trait)
    rows = [
        {
            "x": one.record.settings[trait],
            "y": value,
            "line": name,
            "href": f"#{one.key}",
            "label": f"{one.record.case}: {measure.value_of(value).text}",
        }
        for one, name in zip(known, names, strict=True)
        if (value := measure.of(one.record)) is not None
    ]
    lines = sorted({row["line"] for row in rows})
    colours, shapes = _styles(lines)
    legend = alt.Legend(title=None) if len(lines) > 1 else None
    places = [row["x"] for row in rows]
    logarithmic = min(places) > 0 and max(places) / min(places) > LOGARITHMIC_FROM
    x = alt.X("x:Q", title=trait, scale=alt.Scale(type="log" if logarithmic else "linear", zero=False))
    y = alt.Y("y:Q", title=measure.title, scale=alt.Scale(zero=True))
    colour = alt.Color("line:N", scale=alt.Scale(domain=lines, range=colours), legend=legend)
    shape = alt.Shape("line:N", scale=alt.Scale(domain=lines, range=shapes), legend=legend)
    base = alt.Chart(alt.Data(values=rows)).encode(x=x, y=y, color=colour)
    marks = base.mark_line(aria=False, opacity=0.6) + base.mark_point(filled=True, size=55, opacity=1).encode(
        shape=shape, href="href:N", description="label:N"
    )
    if measure is TIME:
        samples = [
            {"x": one.record.settings[trait], "y": sample / one.record.settings["images"], "line": name}
            for one, name in zip(known, names, strict=True)
            for sample in one.record.samples_s
        ]
        dots = alt.Chart(alt.Data(values=samples)).mark_circle(size=14, opacity=0.45, aria=False)
        marks = dots.encode(x=x, y=y, color=colour) + marks
    return marks.properties(width=WIDTH, height=HEIGHT)


def _time_chart(model: str, timed: Sequence[Timed], trait: str) -> Chart:
    import altair as alt

    chart = _lines(timed, trait, TIME)
    about = f"Time per image against {trait}: medians as points, every sample as a small dot."
    if trait == "guidance":
        rule = alt.Chart(alt.Data(values=[{"x": 1, "text": "above 1: two UNet evaluations"}]))
        chart = (
            chart
            + rule.mark_rule(strokeDash=[4, 3], color="gray", aria=False).encode(x="x:Q")
            + rule.mark_text(align="left", dx=4, y=8, color="currentColor", aria=False).encode(x="x:Q", text="text:N")
        )
        about += " Classifier-free guidance begins above 1."
    return _chart(f"{model}: time per image against {trait}", about, chart)


def _memory_chart(model: str, timed: Sequence[Timed]) -> Chart:
    chart = _lines(timed, "steps", MEMORY)
    return _chart(f"{model}: peak memory against steps", "Peak memory of one call, on the device.", chart)


def _phases(record: Record) -> dict[str, float]:
    phases = record.phases_s
    assert phases
    found = {
        "load": record.load_s,
        "first call": record.first_call_s,
        "text encoding": phases.text_encoding,
        "denoising": sum(phases.denoising),
        "decoding": phases.decoding,
    }
    return {name: value for name, value in found.items() if value is not None}


def _phase_chart(model: str, timed: Sequence[Timed]) -> Chart:
    """Once per process on the left, once per call on the right."""
    import altair as alt

    longest = sorted(timed, key=lambda one: -sum(one.record.phases_s.denoising if one.record.phases_s else [0]))
    shown = longest[:MOST_ROWS]
    rows = [
        {
            "case": f"{one.record.case.partition('/')[2]}{f' ({one.run})' if one.run else ''}",
            "phase": name,
            "seconds": value,
            "order": PHASES.index(name),
            "href": f"#{one.key}",
            "label": f"{one.record.case}: {name} {seconds(value).text}",
        }
        for one in shown
        for name, value in _phases(one.record).items()
    ]
    order = [str(row["case"]) for row in rows if row["phase"] == "denoising"]
    colour = alt.Color(
        "phase:N",
        scale=alt.Scale(domain=list(PHASES), range=list(PALETTE[: len(PHASES)])),
        legend=alt.Legend(title=None),
    )

    def bars(names: Sequence[str], title: str, axis: Any) -> Any:
        return (
            alt.Chart(alt.Data(values=[row for row in rows if row["phase"] in names]), title=title)
            .mark_bar(stroke="white", strokeWidth=0.5)
            .encode(
                x=alt.X("seconds:Q", title="seconds"),
                y=alt.Y("case:N", sort=order, title=None, axis=axis),
                color=colour,
                order="order:Q",
                href="href:N",
                description="label:N",
            )
            .properties(width=WIDTH // 2, height=alt.Step(ROW))
        )

    chart = bars(PHASES[:2], "once", alt.Undefined) | bars(PHASES[2:], "each call", None)
    about = "Where the time goes: loading and the first call, which happen once, and the phases of a later call."
    if len(timed) > len(shown):
        about += f" Shown are the {len(shown)} of {len(timed)} cases that take longest to denoise."
    return _chart(f"{model}: phases", about, chart)


def _by_model(timed: Iterable[Timed]) -> dict[str, list[Timed]]:
    models: dict[str, list[Timed]] = {}
    for one in timed:
        models.setdefault(one.record.model, []).append(one)
    return models


def speed_charts(timed: Sequence[Timed]) -> list[Chart]:
    """For each model: time against steps, against guidance where that varies, memory where it is known, phases."""
    charts = []
    for model, of_model in _by_model(one for one in timed if one.record.median_s is not None).items():
        charts.append(_time_chart(model, of_model, "steps"))
        guided = _varying_guidance(of_model)
        if guided:
            charts.append(_time_chart(model, guided, "guidance"))
        if any(one.record.peak_memory_bytes is not None for one in of_model):
            charts.append(_memory_chart(model, of_model))
        with_phases = [one for one in of_model if one.record.phases_s]
        if with_phases:
            charts.append(_phase_chart(model, with_phases))
    return charts


def _varying_guidance(timed: Sequence[Timed]) -> list[Timed]:
    """The records that differ from another one in guidance alone."""
    alike: dict[tuple[str, ...], list[Timed]] = {}
    for one in timed:
        if one.record.settings.get("guidance") is not None:
            same = tuple(of(one) for trait, of in _TRAITS.items() if trait != "guidance")
            alike.setdefault(same, []).append(one)
    return [one for group in alike.values() if len(group) > 1 for one in group]


def quality_chart(comparison: Comparison, key_of_case: Mapping[str, str]) -> Chart:
    """Similarity to the reference against time, a point for each case, and the front of the cases."""
    import altair as alt

    place = {point.case: number for number, point in enumerate(comparison.front, start=1)}
    rows = [
        {
            "x": point.seconds,
            "y": point.ssim,
            "kind": BEST if point.case in place else BEATEN,
            "place": place.get(point.case),
            "href": f"#{key_of_case[point.case]}",
            "label": f"{point.case}: SSIM {point.ssim:.4f} to the reference, {seconds(point.seconds).text} per image",
        }
        for point in comparison.points
    ]
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X(
            "x:Q", title="time per image, seconds (logarithmic)", scale=alt.Scale(type="log", nice=False, padding=20)
        ),
        y=alt.Y("y:Q", title="SSIM to the reference, mean of tiles", scale=alt.Scale(zero=False, nice=True)),
    )
    points = base.mark_point(filled=True, size=70, opacity=0.9).encode(
        color=alt.Color(
            "kind:N", scale=alt.Scale(domain=[BEST, BEATEN], range=[PALETTE[1], PALETTE[0]]),
            legend=alt.Legend(title=None, orient="bottom"),
        ),
        shape=alt.Shape("kind:N", scale=alt.Scale(domain=[BEST, BEATEN], range=["diamond", "circle"])),
        href="href:N",
        description="label:N",
    )  # fmt: skip
    best = base.transform_filter("datum.place != null")
    line = best.mark_line(interpolate="step-after", color=PALETTE[1], opacity=0.7, aria=False)
    places = best.mark_text(dx=-9, dy=-8, fontSize=11, color="currentColor", aria=False).encode(text="place:N")
    named = ", ".join(f"{number} {case.partition('/')[2]}" for case, number in place.items())
    about = (
        f"Similarity of each case to {comparison.reference} (1 is the same picture), against its time. The line joins "
        f"the cases that no other case beats in both: {named}."
    )
    chart = (line + points + places).properties(width=int(WIDTH * 1.3), height=int(HEIGHT * 1.2))
    return _chart(f"{comparison.model}: quality against speed", about, chart)


@dataclass(frozen=True)
class ForestRow:
    """A ratio of candidate to baseline with its interval.

    Attributes:
        href: link target in the page.
    """

    name: str
    figure: Figure
    href: str


def forest_chart(rows: Sequence[ForestRow], min_change: float, title: str, what: str, within: str) -> Chart | None:
    """Time of candidate against baseline: for each row its interval, its starts, and the band that does not matter.

    Args:
        rows: those that matter most first; changed ones are shown before them.
        what: is compared, in the plural: ``cases``.
        within: says what changes within the band mean.
    """
    import altair as alt

    if not rows:
        return None
    notable: dict[str, int] = {Verdict.CANNOT_TELL: 1, Verdict.SAME: 2}
    shown = sorted(rows, key=lambda row: notable.get(row.figure.verdict, 0))[:MOST_ROWS]
    intervals, dots = [], []
    edge = max(2 * min_change, *(abs(row.figure.ratio - 1) * 1.6 for row in shown))
    for row in shown:
        figure = row.figure
        intervals.append(
            {
                "case": row.name,
                "ratio": figure.ratio - 1,
                "low": max(figure.low - 1, -edge),
                "high": edge if figure.high is None else min(figure.high - 1, edge),
                "verdict": figure.verdict,
                "href": f"#{row.href}",
                "label": f"{row.name}: {figure.verdict}, {figure.ratio - 1:+.1%}, {figure.interval}",
            }
        )
        dots += [{"case": row.name, "ratio": ratio - 1} for ratio in figure.pair_ratios if abs(ratio - 1) <= edge]
    verdicts = [Verdict.SLOWER, Verdict.CANNOT_TELL, Verdict.SAME, Verdict.FASTER]
    order = [row.name for row in shown]
    percent = alt.Axis(format="+.0%")
    x = alt.X(
        "ratio:Q",
        title="candidate against baseline, time",
        axis=percent,
        scale=alt.Scale(domain=[-edge, edge]),
    )
    y = alt.Y("case:N", sort=order, title=None, axis=alt.Axis(labelLimit=LONGEST_NAME))
    colour = alt.Color(
        "verdict:N",
        scale=alt.Scale(domain=verdicts, range=[PALETTE[1], PALETTE[6], PALETTE[0], PALETTE[2]]),
        legend=alt.Legend(title=None, orient="top"),
    )
    base = alt.Chart(alt.Data(values=intervals)).encode(y=y, color=colour)
    band = alt.Chart(alt.Data(values=[{"low": -min_change, "high": min_change}])).mark_rect(color=BAND, aria=False)
    zero = alt.Chart(alt.Data(values=[{"ratio": 0}])).mark_rule(color="gray", aria=False).encode(x="ratio:Q")
    chart = (
        band.encode(x="low:Q", x2="high:Q")
        + zero
        + alt.Chart(alt.Data(values=dots or [{"case": order[0], "ratio": None}]))
        .mark_circle(size=12, opacity=0.4, color="gray", aria=False)
        .encode(x=x, y=y)
        + base.mark_rule(strokeWidth=2, aria=False).encode(x="low:Q", x2="high:Q")
        + base.mark_point(filled=True, size=70, opacity=1).encode(
            x=x,
            shape=alt.Shape(
                "verdict:N",
                scale=alt.Scale(domain=verdicts, range=["triangle-right", "cross", "circle", "triangle-left"]),
            ),
            href="href:N",
            description="label:N",
        )
    ).properties(width=int(WIDTH * 1.2), height=alt.Step(ROW + 3))
    about = (
        "Right of zero the candidate is slower. Lines are confidence intervals, dots are starts of both sides; changes "
        f"within the grey band, up to {min_change:.0%}, {within}."
    )
    if len(rows) > len(shown):
        about += f" Shown are {len(shown)} of {len(rows)} {what}, those with a change first."
    return _chart(title, about, chart)
