"""What a run prints: a line per case with the time left, then a table, the worst cases and the path of the results."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Container, Sequence
from pathlib import Path

from rich import box
from rich.table import Table

from bench.console import table_text
from bench.record.record import Record
from bench.report.reasons import failure, saved_work
from bench.run import Tally
from bench.suite.case import Case
from bench.suite.effort import effort
from bench.verdicts import Verdict

TABLE_WIDTH = 118
# Share of the work after which the time left is shown; earlier, loading would distort it.
FORETELL_FROM = 0.03


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1000:,.0f}" if seconds >= 0.1 else f"{seconds * 1000:.1f}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


def _ssim(record: Record) -> str:
    worst = record.pictures.ssim_worst_tile if record.pictures else None
    return "" if worst is None else f"{worst:.5f}"


def _per_image(record: Record) -> float | None:
    return None if record.median_s is None else record.median_s / record.settings["images"]


def _per_step(record: Record) -> float | None:
    if not record.phases_s:
        return None
    steps = sorted(record.phases_s.denoising)
    return steps[len(steps) // 2]


class Progress:
    """Numbers the cases as they end and estimates the time left from the work of those still to come."""

    def __init__(self, cases: Sequence[Case], kept: Container[str] = ()) -> None:
        """Args:
        kept: ids of cases whose record an earlier process wrote: they take no time.
        """
        self._work = {case.id: 0 if case.id in kept else effort(case) for case in cases}
        self._total = len(cases)
        self._done: dict[str, float] = {}
        self._began = time.monotonic()

    def line(self, case_id: str, record: Record | None, outcome: str) -> str:
        """The line for a case that has just ended; one that raised has no record, only an outcome."""
        self._done[case_id] = self._work.get(case_id, 0)
        done = sum(self._done.values())
        total = sum(self._work.values())
        elapsed = time.monotonic() - self._began
        can_foretell = total * FORETELL_FROM < done < total
        until = f"{_clock(elapsed * (total - done) / done)} left" if can_foretell else ""
        width = max(map(len, self._work), default=0)
        per_image = f"{_milliseconds(_per_image(record)):>7} ms/image  " if record and record.median_s else ""
        count = f"[{len(self._done):>{len(str(self._total))}}/{self._total}]"
        return f"{count} {case_id:<{width}}  {per_image}{_verdict(record) if record else outcome:<14}  {until}".rstrip()


def _verdict(record: Record) -> str:
    return f"{record.verdict}, {Verdict.LESS_WORK}" if saved_work(record) else record.verdict


def _memory(record: Record) -> str:
    if record.peak_memory_bytes is not None:
        return f"{record.peak_memory_bytes / 2**20:,.0f} MiB"
    return "n/a" if record.peak_memory_reason else ""


def render_table(records: Sequence[Record], colour: bool) -> str:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("case", no_wrap=True)
    for heading in ("ms/image", "ms/step", "first call ms", "memory", "SSIM worst tile"):
        table.add_column(heading, justify="right")
    table.add_column("verdict", no_wrap=True)
    for record in records:
        table.add_row(
            record.case,
            _milliseconds(_per_image(record)),
            _milliseconds(_per_step(record)),
            _milliseconds(record.first_call_s),
            _memory(record),
            _ssim(record),
            _verdict(record),
            style="red" if Verdict(record.verdict).fails else None,
        )
    return table_text(table, TABLE_WIDTH, colour)


def memory_notes(records: Sequence[Record]) -> list[str]:
    reasons = Counter(record.peak_memory_reason for record in records if record.peak_memory_reason)
    return [f"memory n/a: {reason}" for reason in reasons]


def verdict_counts(records: Sequence[Record]) -> str:
    counts = Counter(record.verdict for record in records)
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())


def work_counts(records: Sequence[Record]) -> str:
    """How often each verdict on the work was given; empty where nothing was counted."""
    counts = Counter(record.work.verdict for record in records if record.work)
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())


def savings(records: Sequence[Record], count: int = 3) -> list[str]:
    """The first cases that pass with less work than their golden, and how many more there are."""
    lines = [f"{record.case}: {saved}" for record in records if (saved := saved_work(record))]
    rest = [f"{len(lines) - count} more with less work"] if len(lines) > count else []
    return lines[:count] + rest


def worst_cases(records: Sequence[Record], count: int = 3) -> list[str]:
    """The cases that look least like their golden, those without a score first."""
    failed = [record for record in records if Verdict(record.verdict).fails]
    failed.sort(key=lambda record: -1.0 if not record.pictures else record.pictures.ssim_worst_tile or -1.0)
    return [f"{record.case}: {failure(record)}" for record in failed[:count]]


def where_the_time_went(count: int, wall_s: float, tally: Tally) -> str:
    """Wall time of the cases, without imports and loading, and the share of it inside the pipelines."""
    working = max(wall_s - tally.loading_s, 1e-9)
    return (
        f"{count} cases in {_clock(working)} (and {tally.loading_s:.1f} s of loading); "
        f"{tally.in_pipeline_s / working:.1%} of that time inside the pipelines"
    )


def relative(path: Path) -> str:
    """The path relative to the current folder, if it is inside that."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
