"""A timeline in words: one line for each release and each kind of change."""

from __future__ import annotations

from bench.history.groups import release_groups
from bench.history.timeline_outcome import ReleaseFound, TimelineFound
from bench.record.groups import group_lines
from bench.verdicts import Verdict

MOST_NAMED = 4
# Marks that can accompany any verdict on the pictures.
BESIDE = (Verdict.MORE_WORK, Verdict.LESS_WORK, Verdict.OTHER_CALLS, Verdict.WARNS)


def outcome_line(release: ReleaseFound) -> str:
    """The verdicts on a release's cases, or why it did not run."""
    if not release.ran:
        return f"{release.status}: {release.reason}"
    more = {kind: sum(kind in case.marks for case in release.cases) for kind in BESIDE}
    counts = [f"{count} {verdict}" for verdict, count in release.counts().most_common()]
    return ", ".join([*counts, *(f"{count} with {kind}" for kind, count in more.items() if count)])


def change_lines(found: TimelineFound) -> list[str]:
    """One line for each release and group or kind of change; a few cases are named, more are counted."""
    lines = []
    for release in found.releases:
        lines += [f"{release.release}  {line}" for line in group_lines(release_groups(found, release))]
        kinds: dict[tuple[str, ...], list[str]] = {}
        for case in release.cases:
            if case.marks:
                kinds.setdefault(case.marks, []).append(case.case)
        for marks, cases in kinds.items():
            named = ", ".join(cases) if len(cases) <= MOST_NAMED else f"{len(cases)} cases"
            lines.append(f"{release.release}  {', '.join(marks)}: {named}")
    missing = [f"{release.release} {release.status}" for release in found.releases if not release.ran]
    return [*lines, f"without pictures: {', '.join(missing)}"] if missing else lines
