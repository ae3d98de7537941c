"""The two things a test does with a case: check its picture, or measure it and check its picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from bench.errors import BenchError
from bench.plugin.session import Session
from bench.record.record import Record
from bench.report.reasons import failure
from bench.suite.case import Case
from bench.verdicts import Verdict


def _finish(session: Session, node: pytest.Item, case: Case, make_record: Callable[[], Record]) -> None:
    """Makes a record and fails the test with one sentence if pictures or work are wrong."""
    __tracebackhide__ = True
    try:
        record = make_record()
    except BenchError as error:
        pytest.fail(f"{case.id}: {error}", pytrace=False)
    session.records[node.nodeid] = record
    node.user_properties += properties(record)
    if record.verdict == Verdict.NOT_COMPARED and record.pictures:
        pytest.skip(f"{case.id}: {record.pictures.message}")
    if not Verdict(record.verdict).passes:
        kept = session.run.folder.path / "grids" / case.model.name
        pytest.fail(f"{case.id}: {failure(record)}. Pictures: {kept}", pytrace=False)


def properties(record: Record) -> list[tuple[str, object]]:
    """Figures for JUnit: times in seconds, memory in bytes, work in calls and bytes."""
    figures: dict[str, Any] = {
        "verdict": record.verdict,
        "environment": record.environment,
        "load_s": record.load_s,
        "first_call_s": record.first_call_s,
        "median_s": record.median_s,
        "peak_memory_bytes": record.peak_memory_bytes,
        "unet_calls": record.unet_calls,
    }
    if record.pictures:
        figures |= {name: getattr(record.pictures, name) for name in ("ssim_worst_tile", "max_diff", "changed_share")}
    if record.work:
        figures["work"] = record.work.verdict
        figures |= _sums(record.work.counts or {})
    return [(name, value) for name, value in figures.items() if value is not None]


def _sums(counts: Mapping[str, Any]) -> dict[str, int]:
    """The counted work, one number per quantity."""
    sums = {name: sum(counts[name].values()) for name in ("operators", "host_syncs") if name in counts}
    return sums | {name: counts[name] for name in ("copied_bytes", "flops") if name in counts}


def check_picture(session: Session, node: pytest.Item, case: Case) -> None:
    """Generates the grid of a case and fails unless it matches its golden and takes no more work."""
    __tracebackhide__ = True
    _finish(session, node, case, lambda: session.kept.get(case.id) or session.run.picture(case))


def _hand_over(benchmark: Any, samples: Sequence[float]) -> None:
    """Gives finished samples to pytest-benchmark, in the place of those of an empty call: it accepts only its own."""
    benchmark.pedantic(lambda: None)
    if benchmark.enabled:
        benchmark.stats.stats.data[:] = samples


def measure_case(session: Session, node: pytest.Item, case: Case, benchmark: Any) -> None:
    """Measures a case for pytest-benchmark and fails unless its grid matches its golden and takes no more work.

    ``--benchmark-disable`` skips the rounds.
    """
    __tracebackhide__ = True

    def make_record() -> Record:
        kept = session.kept.get(case.id)
        record = kept or session.run.benchmark(case, session.options.rounds if benchmark.enabled else 0)
        if kept and not kept.samples_s:  # it raised, or nothing was timed
            return kept
        _hand_over(benchmark, record.samples_s)
        benchmark.extra_info.update(record.model_dump(mode="json", by_alias=True, exclude={"samples_s"}))
        return record

    _finish(session, node, case, make_record)
