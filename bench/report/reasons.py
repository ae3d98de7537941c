"""Sentences that say why a case did not pass, shared by the terminal, the page and the summary."""

from __future__ import annotations

from collections.abc import Iterable

from bench import simulated
from bench.pictures.limits import OTHER
from bench.record.record import Record
from bench.verdicts import Verdict


def reasons(record: Record) -> tuple[str, ...]:
    """What is wrong: an error or the pictures, then the work; empty if the case passed."""
    if Verdict(record.verdict).passes:
        return ()
    found = []
    if record.pictures and not Verdict(record.pictures.verdict).passes:
        found.append(record.pictures.message)
    elif record.error:
        found.append(record.error.sentence)
    if record.work and (Verdict(record.work.verdict).is_worse or record.work.verdict == record.verdict):
        found.append(record.work.message)
    return tuple(dict.fromkeys(found))


def failure(record: Record) -> str:
    """The verdict of a case that failed and its reasons, in one line without a full stop."""
    text = "; ".join(reason.rstrip(".") for reason in reasons(record))
    return text if text.startswith(record.verdict) else f"{record.verdict}: {text}"


def saved_work(record: Record) -> str | None:
    """What a passing case does less of than its golden; ``None`` if nothing."""
    work = record.work
    less = work and work.verdict == Verdict.LESS_WORK and Verdict(record.verdict).passes
    return work.message if work and less else None


def across_devices(records: Iterable[Record]) -> str:
    """Says that goldens of another type of device were used, and how to get tighter limits; empty if none were.

    A simulated accelerator has no goldens of its own.
    """
    compared = [record for record in records if record.pictures and record.pictures.tier == OTHER]
    if not compared:
        return ""
    left = sum(record.pictures.verdict == Verdict.NOT_COMPARED for record in compared if record.pictures)
    without = f", {left} of them not compared because they are unstable there" if left else ""
    found = f"goldens of another type of device: {len(compared)} cases have wider limits{without}"
    if all(record.device == simulated.TYPE for record in compared):
        return found
    return (
        f"{found}. For tight limits look at the pictures, then accept them as goldens of this device: "
        "pytest -m golden --golden-update"
    )
