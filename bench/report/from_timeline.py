"""Builds a story from ``timeline.json`` and the saved pictures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path

from bench.history.groups import release_groups
from bench.history.timeline_outcome import MARKS, CaseInRelease, ReleaseFound, TimelineFound
from bench.history.timeline_summary import outcome_line
from bench.report.group_cards import group_cards
from bench.report.story import (
    CaseEntry,
    Cell,
    Chip,
    Count,
    GroupCard,
    Map,
    NamedEnvironment,
    Story,
    kept_picture,
    key_of,
    plural,
    scores_of,
    tiles_of,
    worst_first,
)
from bench.upgrade.pictures import AFTER, BEFORE
from bench.verdicts import Kind, Verdict

# One step of colour for each factor of ten in 1 - SSIM: down to 0.99999, 0.9999, 0.999, 0.99, 0.9, and beyond.
LEVELS = 6


def story_of_timeline(found: TimelineFound, folder: Path) -> Story:
    """The map, and an entry for each case that changed in a release."""
    shown = [(release, case) for release in found.releases for case in release.cases if _is_shown(case)]
    entries = [_entry(found, release, case, folder) for release, case in shown]
    headline = _headline(found)
    ran = [release for release in found.releases if release.ran]
    return Story(
        headline=headline,
        kind=Kind.BAD if any(entry.failed for entry in entries) else Kind.GOOD,
        counts=worst_first(_counts(found)),
        facts=(
            ("library", f"{found.library} {found.span}"),
            ("installed with each release", found.alongside or "the versions of this environment"),
            ("device", f"{found.device} ({found.device_name})"),
            ("run", folder.name),
        ),
        entries=tuple(sorted(entries, key=lambda entry: not entry.failed)),
        warnings=() if found.is_complete else (_not_reached(found),),
        notes=tuple(_notes(found)),
        map=_map(found),
        environments=tuple(
            NamedEnvironment(f"{found.library} {release.release}", dict(release.libraries)) for release in ran
        ),
        groups=_groups(found, {(release.release, case.case) for release, case in shown}),
    )


def _is_shown(case: CaseInRelease) -> bool:
    """Whether there is something to look at; a new warning or less work alone is a note."""
    return bool(case.notable) or case.verdict == Verdict.WITHIN_LIMITS


def _notes(found: TimelineFound) -> list[str]:
    """New warnings, once per release, and the number of cases with less work, with an example."""
    lines = []
    for release in found.releases:
        less = [case for case in release.cases if case.work == Verdict.LESS_WORK]
        if less:
            lines.append(f"{release.release}: {plural(len(less), 'case')} with {less[0].work_message} ({less[0].case})")
        for text, number in Counter(text for case in release.cases for text in case.new_warnings).items():
            lines.append(f"{release.release}: new warning in {plural(number, 'case')}: {text}")
    return lines


def _groups(found: TimelineFound, shown: Collection[tuple[str, str]]) -> tuple[GroupCard, ...]:
    """The groups of each release; a case links to its entry, if it has one."""

    def key_in(release: str) -> Callable[[str], str]:
        return lambda case: key_of(release, case) if (release, case) in shown else ""

    return tuple(
        card
        for release in found.releases
        for card in group_cards(
            release_groups(found, release), key_in(release.release), f"{found.library} {release.release}"
        )
    )


def _key(release: ReleaseFound, case: CaseInRelease) -> str:
    return key_of(release.release, case.case)


def _not_reached(found: TimelineFound) -> str:
    missing = found.planned[len(found.releases) :]
    return f"Cut short: {', '.join(missing)} not reached."


def _headline(found: TimelineFound) -> str:
    parts = []
    for release in found.releases:
        moved = [case for case in release.cases if case.notable]
        if moved:
            words = Counter(mark for case in moved for mark in case.notable)
            counts = ", ".join(f"{number} {word}" for word, number in words.most_common())
            parts.append(f"{found.library} {release.release}: {counts}")
    whole = "" if found.is_complete else f" of {len(found.planned)}"
    releases = f"{len(found.releases)}{whole} release{'' if len(found.planned) == 1 else 's'}"
    if parts:
        return f"{'; '.join(parts)}; of {plural(len(found.cases), 'case')} in {releases}."
    return f"No picture of {plural(len(found.cases), 'case')} changed in {releases}."


def _chip(mark: Verdict) -> Chip:
    """Between releases, even an improvement is only a note."""
    return Chip(mark, Kind.BAD if mark.is_worse else Kind.NOTE)


def _counts(found: TimelineFound) -> list[Count]:
    marks = Counter(mark for _, case in found.happenings() for mark in case.marks)
    counts = [("pictures", _chip(mark), number) for mark, number in marks.most_common()]
    within = sum(release.counts()[Verdict.WITHIN_LIMITS] for release in found.releases)
    if within:
        counts.append(("pictures", Chip(Verdict.WITHIN_LIMITS, Kind.GOOD), within))
    missing = Counter(release.status for release in found.releases if not release.ran)
    return [*counts, *(("releases", Chip(status, Kind.NOTE), number) for status, number in missing.items())]


def _entry(found: TimelineFound, release: ReleaseFound, case: CaseInRelease, folder: Path) -> CaseEntry:
    name = f"{release.release}/{case.case}"
    marks = [mark for mark in case.marks if mark != case.verdict]
    verdict = Verdict(case.verdict)
    settings = found.settings.get(case.case, {})
    problems = [case.message] if set(case.notable) - {Verdict.MORE_WORK} else []
    notes = [f"new warning: {text}" for text in case.new_warnings]
    if case.work_message:
        (problems if case.work == Verdict.MORE_WORK else notes).append(case.work_message)
    if Verdict.OTHER_CALLS in marks:
        notes.append(f"{case.unet_calls} UNet calls instead of {case.unet_calls_before}.")
    return CaseEntry(
        key=_key(release, case),
        title=f"{case.case} in {release.release}",
        verdict=_chip(verdict) if verdict in case.marks else Chip(verdict, verdict.kind),
        more=tuple(map(_chip, marks)),
        problems=tuple(problems),
        notes=tuple(notes),
        before=kept_picture(folder, name, BEFORE, case.pictures_compared_with or "before"),
        after=kept_picture(folder, name, AFTER, release.release),
        tiles=tiles_of(settings, case.ssim_tiles),
        scores=scores_of(case),
        limits_reason=case.limits.reason if case.limits else "",
        settings=settings,
        group={
            "model": case.case.partition("/")[0],
            "verdict": case.verdict,
            "release": release.release,
            "scheduler": str(settings.get("scheduler", "")),
            "dtype": str(settings.get("dtype", "")),
        },
    )


def level_of(case: CaseInRelease) -> int | None:
    """0 for the same picture, then a step for each factor of ten in 1 - SSIM; ``None`` if nothing was compared."""
    if case.ssim_worst_tile is None:
        return None
    if not case.max_diff:
        return 0
    loss = math.log10(max(1 - case.ssim_worst_tile, 1e-6))
    return min(max(math.floor(loss) + LEVELS + 1, 1), LEVELS)


def _cell(release: ReleaseFound, case: CaseInRelease) -> Cell:
    moved = case.max_diff or None
    score = f"SSIM {case.ssim_worst_tile:.5f}, " if case.ssim_worst_tile is not None else ""
    return Cell(
        text=str(moved) if moved else "",
        level=level_of(case),
        marks=case.marks,
        key=_key(release, case) if _is_shown(case) else "",
        description=f"{case.case} in {release.release}: {score}{', '.join(case.marks) or case.verdict}",
    )


def _map(found: TimelineFound) -> Map:
    cells = {(release.release, case.case): _cell(release, case) for release in found.releases for case in release.cases}
    nothing = Cell("", None, description="did not run")
    rows = tuple(
        (case, tuple(cells.get((release.release, case), nothing) for release in found.releases)) for case in found.cases
    )
    absent = {release.release: outcome_line(release) for release in found.releases if not release.ran}
    return Map(tuple(release.release for release in found.releases), rows, MARKS, absent)
