"""What is worse after an upgrade, grouped: which cases fail in the same way, and what they have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bench.record.groups import ERRORS, PICTURES, WORK, Finding, Group, changed_counts, groups_of
from bench.upgrade.outcome import CaseFound, UpgradeFound
from bench.upgrade.pictures import error_of
from bench.verdicts import Verdict

# Verdicts on calls that gave no pictures; the others are about the pictures.
NO_PICTURES = (
    Verdict.RAISES_NOW,
    Verdict.RAISES_ELSE,
    Verdict.RAISES_AS_BEFORE,
    Verdict.WORKS_NOW,
    Verdict.BROKEN,
    Verdict.NOTHING_COMPARED,
)


def upgrade_groups(cases: Iterable[CaseFound]) -> tuple[Group, ...]:
    """The groups of cases that are worse on the candidate's side."""
    return groups_of(finding for case in cases for finding in _findings(case))


def groups_in(found: UpgradeFound) -> tuple[Group, ...]:
    """The groups of a check, also of one whose file has none."""
    return found.groups or upgrade_groups(found.cases)


def _findings(case: CaseFound) -> Iterator[Finding]:
    pictures, verdict = case.pictures, Verdict(case.pictures.verdict)

    def finding(
        question: str, verdict: Verdict, what: str = "", message: str = "", ratio: float | None = None
    ) -> Finding:
        if not verdict.is_worse:
            return Finding(case.case, case.settings, question)
        return Finding(case.case, case.settings, question, verdict, what, ratio, message)

    if verdict in NO_PICTURES:
        yield finding(ERRORS, verdict, error_of(pictures), pictures.message)
    else:
        yield finding(ERRORS, Verdict.IDENTICAL)
        yield finding(PICTURES, verdict, message=pictures.message)
    if case.work:
        of_work = Verdict(case.work.verdict)
        yield finding(WORK, of_work, changed_counts(case.work.message, of_work), case.work.message)
    for name, figure in case.figures.items():
        message = f"{name}: {figure.verdict} by {abs(figure.ratio - 1):.1%}"
        yield finding(name, Verdict(figure.verdict), message=message, ratio=figure.ratio)
