"""A timeline in words: a line for each release, and all of it in Markdown."""

from __future__ import annotations

from collections import Counter

from bench.upgrade.markdown import render
from bench.upgrade.timeline_outcome import OTHER_CALLS, WARNS, CaseInRelease, ReleaseFound, TimelineFound

MOST_NAMED = 4


def told(release: ReleaseFound) -> str:
    """What became of a release's cases, or why it did not run."""
    if not release.ran:
        return f"{release.status}: {release.reason}"
    more = {kind: sum(kind in case.marks for case in release.cases) for kind in (WARNS, OTHER_CALLS)}
    counts = [f"{count} {verdict}" for verdict, count in release.counts().most_common()]
    return ", ".join([*counts, *(f"{count} with {kind}" for kind, count in more.items() if count)])


def details(case: CaseInRelease) -> str:
    """The sentence of a case, with its UNet calls and new warnings."""
    parts = [case.message]
    if OTHER_CALLS in case.marks:
        parts.append(f"{case.unet_calls} UNet calls instead of {case.unet_calls_before}")
    parts += [f"new warning: {text}" for text in case.new_notices]
    return "; ".join(parts)


def happened_lines(found: TimelineFound) -> list[str]:
    """What happened, a line for each release and kind; cases are named where they are few."""
    lines = []
    for release in found.releases:
        kinds: dict[tuple[str, ...], list[str]] = {}
        for case in release.cases:
            if case.marks:
                kinds.setdefault(case.marks, []).append(case.case)
        for marks, cases in kinds.items():
            named = ", ".join(cases) if len(cases) <= MOST_NAMED else f"{len(cases)} cases"
            lines.append(f"{release.release}  {', '.join(marks)}: {named}")
    missing = [f"{release.release} {release.status}" for release in found.releases if not release.ran]
    return [*lines, f"without pictures: {', '.join(missing)}"] if missing else lines


def _only_warns(case: CaseInRelease) -> bool:
    return case.marks == (WARNS,)


def _warnings(cases: list[CaseInRelease]) -> dict[str, int]:
    """New warnings of cases to which nothing else happened, with the number of cases."""
    return dict(Counter(text for case in cases if _only_warns(case) for text in case.new_notices))


def render_timeline(found: TimelineFound) -> str:
    """The summary in Markdown."""
    happened = found.happenings()
    grouped = [(release, [case for case in release.cases if case.marks]) for release in found.releases]
    parts = [
        (release, [case for case in cases if not _only_warns(case)], _warnings(cases))
        for release, cases in grouped
        if cases
    ]
    return render("timeline.md.jinja", {"told": told, "details": details}, found=found, happened=happened, parts=parts)
