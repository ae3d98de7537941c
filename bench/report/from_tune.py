"""A study of settings as a report: its front, picks with their code, and everything that was tried."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bench.report.from_records import flattened
from bench.report.plots import quality_chart
from bench.report.quality import Comparison, Quality
from bench.report.story import (
    CaseEntry,
    Chip,
    NamedEnvironment,
    Picture,
    Section,
    Snippet,
    Story,
    Table,
    Tile,
    Value,
    kept_picture,
    key_of,
    mebibytes,
    plural,
    seconds,
    ssim,
)
from bench.tune.outcome import PICKED_CASES, PICKS, TuneFound
from bench.tune.result import Timed, Tried
from bench.verdicts import Kind


def story_of_tune(found: TuneFound, folder: Path) -> Story:
    """The front, each setting with its pictures beside those of the reference, and the picks first."""
    keys = {timed.case: key_of(timed.case) for timed in found.front}
    reference = kept_picture(folder, found.reference, "", "reference")
    entries = [
        _entry(found, timed, keys[timed.case], (reference, kept_picture(folder, timed.case, "", "this setting")))
        for timed in found.front
    ]
    named = {pick.case for pick in found.picks}
    return Story(
        headline=_headline(found),
        kind=Kind.GOOD,
        counts=(),
        facts=(
            ("model", str(found.model["name"])),
            ("device", f"{found.device} ({found.device_name})"),
            ("reference", found.reference),
            ("before tuning", found.start),
            ("quality", f"{found.quality}; at least {found.min_quality:g}"),
            ("tried", f"{len(found.tried)} of {found.settings} settings, {found.seconds:.0f} s"),
            ("study", found.study),
        ),
        entries=tuple(sorted(entries, key=lambda entry: entry.title not in named)),
        notes=tuple(_notes(found)),
        sections=(_picks(found, folder, keys), _plot(found, keys), *_failed(found)),
        environments=(NamedEnvironment("this machine", flattened(found.environment)),),
    )


def _headline(found: TuneFound) -> str:
    fastest, start = found.front_tried[0], found.by_case.get(found.start)
    many = f"{plural(len(found.front), 'setting')} that no other one beats"
    if not start:
        return f"{many}; the fastest takes {seconds(fastest.seconds).text} per picture."
    return (
        f"{many}; the fastest takes {seconds(fastest.seconds).text} per picture, "
        f"{start.seconds / fastest.seconds:.1f} × as fast as {found.start}."
    )


def _notes(found: TuneFound) -> list[str]:
    lines = [f"left out: {count} combinations: {reason}" for reason, count in found.left_out.items()]
    ties = [timed.case for timed in found.front if timed.ties_with_next]
    if ties:
        lines.append(f"not distinguishable in time from the next slower setting: {', '.join(ties)}")
    if not found.is_exhaustive:
        lines.append("the search tried a part of the settings, so a better one may exist")
    return lines


def _entry(found: TuneFound, timed: Timed, key: str, pictures: tuple[Picture | None, Picture | None]) -> CaseEntry:
    """A setting of the front; ``pictures`` are those of the reference and its own."""
    tried, start = found.by_case[timed.case], found.by_case.get(found.start)
    before, after = pictures
    picked = [pick.name for pick in found.picks if pick.case == timed.case]
    figures = [
        ("time per picture", seconds(timed.seconds)),
        ("first call", seconds(tried.first_call_s)),
        ("quality", Value(f"{tried.quality:.4f}", tried.quality)),
        ("SSIM of the worst picture", ssim(tried.worst_ssim)),
        ("FLIP error, mean", Value(f"{tried.mean_flip:.4f}", tried.mean_flip)),
    ]
    if tried.peak_bytes is not None:
        figures.append(("peak memory", mebibytes(tried.peak_bytes)))
    if start:
        figures.insert(1, ("as fast as before tuning", Value(f"{start.seconds / timed.seconds:.2f} ×")))
        paid_off = tried.break_even(start.seconds)
        if paid_off is not None and paid_off >= 1:
            figures.append(("first call paid off after", Value(f"{paid_off:.0f} pictures", paid_off)))
    if timed.low is not None and timed.high is not None:
        text = f"{timed.ratio_to_next:.3f} × ({timed.low:.3f} to {timed.high:.3f})"
        figures.append(("next slower setting takes", Value(text, timed.ratio_to_next)))
    return CaseEntry(
        key=key,
        title=timed.case,
        verdict=Chip(picked[0] if picked else "on the front", Kind.GOOD if picked else Kind.NOTE),
        more=tuple(Chip(name, Kind.GOOD) for name in picked[1:]),
        before=before,
        after=after,
        tiles=tuple(Tile(number + 1, 0, "", value) for number, value in enumerate(tried.ssim)),
        figures=tuple(figures),
        seconds=timed.seconds,
        settings=tried.settings,
        group={name: str(tried.settings[name]) for name in ("scheduler", "dtype")},
    )


def _picks(found: TuneFound, folder: Path, keys: Mapping[str, str]) -> Section:
    """Each pick as a program, and all of them as cases."""
    files = folder / PICKS
    snippets = []
    for pick in found.picks:
        file = files / pick.program
        if file.is_file():
            title = f"{pick.name}: {pick.case} ({pick.reason})"
            snippets.append(Snippet(title, file.read_text(encoding="utf-8"), keys.get(pick.case, "")))
    cases = files / PICKED_CASES
    if cases.is_file():
        snippets.append(Snippet("as cases of a suite file", cases.read_text(encoding="utf-8")))
    return Section("picks", "Picks", snippets=tuple(snippets))


def _plot(found: TuneFound, keys: Mapping[str, str]) -> Section:
    points = tuple(_point(one) for one in found.tried if one.complete)
    front = tuple(_point(one) for one in found.front_tried)
    shown = front + tuple(point for point in points if point.case not in keys)
    comparison = Comparison(str(found.model["name"]), found.reference, shown, front, 0)
    links = {point.case: keys.get(point.case, "picks") for point in shown}
    columns = ("setting", "time per picture", "quality", "worst SSIM", "FLIP")
    order = sorted(found.tried, key=lambda one: one.seconds)
    rows = tuple(
        (
            Value(one.case),
            seconds(one.seconds),
            Value(f"{one.quality:.4f}", one.quality),
            ssim(one.worst_ssim),
            Value(f"{one.mean_flip:.4f}", one.mean_flip),
        )
        for one in order
    )
    table = Table(
        "All settings that were tried, fastest first", columns, rows, tuple(keys.get(one.case, "") for one in order)
    )
    return Section("quality", "Quality against speed", charts=(quality_chart(comparison, links),), tables=(table,))


def _point(tried: Tried) -> Quality:
    return Quality(tried.case, tried.quality, tried.seconds)


def _failed(found: TuneFound) -> tuple[Section, ...]:
    if not found.failed:
        return ()
    rows = tuple((Value(case), Value(reason)) for case, reason in found.failed.items())
    table = Table("Settings that cannot be used", ("setting", "why"), rows, ("",) * len(rows))
    return (Section("failed", "Cannot be used", tables=(table,)),)
