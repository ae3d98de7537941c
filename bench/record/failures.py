"""What failed in a run, grouped: which cases fail in the same way, and what they have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bench.record.groups import ERRORS, PICTURES, RAISING, WORK, Finding, Group, changed_counts, groups_of
from bench.record.record import Record
from bench.verdicts import Verdict

# Verdicts on calls that gave no pictures to compare.
_NO_PICTURES = (*RAISING, Verdict.DIED, Verdict.BROKEN)
_STALE = " is stale: "


def record_groups(records: Iterable[Record]) -> tuple[Group, ...]:
    """The groups of cases that failed; if a case has several records, the last one counts."""
    last = {record.case: record for record in records}
    return groups_of(finding for record in last.values() for finding in _findings(record))


def _findings(record: Record) -> Iterator[Finding]:
    verdict = Verdict(record.pictures.verdict if record.pictures else record.verdict)
    if record.verdict == Verdict.NOT_REPEATABLE:
        verdict = Verdict.NOT_REPEATABLE
    if verdict in _NO_PICTURES:
        yield Finding(record.case, record.settings, ERRORS, verdict, _error(record), message=_message(record, verdict))
    else:
        yield Finding(record.case, record.settings, ERRORS)
        if verdict.fails:
            message = _message(record, verdict)
            yield Finding(record.case, record.settings, PICTURES, verdict, _stale(record, verdict), message=message)
        elif verdict is not Verdict.RAISES_AS_BEFORE:
            yield Finding(record.case, record.settings, PICTURES)
    yield from _work(record)


def _error(record: Record) -> str:
    """The error of a case, or why its golden cannot be compared, without the name of that golden."""
    if record.error:
        return record.error.sentence
    if not record.pictures:
        return ""
    text = record.pictures.message.removeprefix(f"{record.pictures.verdict}: ")
    return text.replace(record.pictures.golden, "its golden") if record.pictures.golden else text


def _stale(record: Record, verdict: Verdict) -> str:
    """What makes a golden stale; cases with other failures of their pictures share a group."""
    message = record.pictures.message if record.pictures else ""
    return message.partition(_STALE)[2] if verdict is Verdict.STALE else ""


def _message(record: Record, verdict: Verdict) -> str:
    failed = record.pictures and not Verdict(record.pictures.verdict).passes
    error = record.error.sentence if record.error else ""
    text = record.pictures.message if record.pictures and failed else error
    return text if text.startswith(verdict) else f"{verdict}: {text}"


def _work(record: Record) -> Iterator[Finding]:
    if not record.work:
        return
    missing = record.work.verdict == Verdict.MISSING
    verdict = Verdict.WORK_MISSING if missing else Verdict(record.work.verdict)
    if missing and record.pictures and record.pictures.verdict == Verdict.MISSING:
        return
    if verdict.is_worse or record.verdict == verdict:
        what = "" if missing else changed_counts(record.work.message, verdict)
        yield Finding(record.case, record.settings, WORK, verdict, what, message=record.work.message)
    elif verdict is not Verdict.NOT_COMPARED:
        yield Finding(record.case, record.settings, WORK)
