"""What changed with a release, grouped: which cases changed in the same way, and what they have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bench.history.timeline_outcome import CaseInRelease, ReleaseFound, TimelineFound
from bench.record.groups import CALLS, ERRORS, PICTURES, WORK, Finding, Group, changed_counts, groups_of
from bench.verdicts import Verdict

_NO_PICTURES = (Verdict.RAISES_NOW, Verdict.RAISES_ELSE, Verdict.BROKEN)
_NOT_COMPARED = (Verdict.FIRST, Verdict.RAISES, Verdict.RAISES_AS_BEFORE)


def release_groups(found: TimelineFound, release: ReleaseFound) -> tuple[Group, ...]:
    """The groups of cases that changed with a release; less work and new warnings are notes."""
    return groups_of(
        finding for case in release.cases for finding in _findings(case, found.settings.get(case.case, {}))
    )


def _findings(case: CaseInRelease, settings: Mapping[str, Any]) -> Iterator[Finding]:
    verdict, notable = Verdict(case.verdict), case.notable

    def finding(question: str, verdict: Verdict, what: str = "", message: str = "") -> Finding:
        if verdict not in notable:
            return Finding(case.case, settings, question)
        return Finding(case.case, settings, question, verdict, what, message=message or case.message)

    if verdict in _NO_PICTURES:
        yield finding(ERRORS, verdict, case.error or case.message)
    else:
        yield finding(ERRORS, Verdict.RAISES_NOW)
        if verdict not in _NOT_COMPARED:
            yield finding(PICTURES, verdict)
    if case.work:
        of_work = Verdict(case.work)
        message = case.work_message or ""
        yield finding(WORK, of_work, changed_counts(message, of_work), message)
    if None not in (case.unet_calls, case.unet_calls_before):
        message = f"{case.unet_calls} UNet calls instead of {case.unet_calls_before}"
        yield finding(CALLS, Verdict.OTHER_CALLS, message=message)
