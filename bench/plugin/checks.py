"""The two things a test does with a case: check its picture, or measure it and check its picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from bench.pictures.check import NOT_COMPARED, PASSED
from bench.plugin.session import Session
from bench.record.record import Record
from bench.report.reasons import failure
from bench.run import SENTENCES
from bench.suite.case import Case


def _finish(session: Session, node: pytest.Item, case: Case, make_record: Callable[[], Record]) -> None:
    """Makes a record and fails the test with one sentence unless pictures and work are right."""
    __tracebackhide__ = True
    try:
        record = make_record()
    except SENTENCES as error:
        pytest.fail(f"{case.id}: {error}", pytrace=False)
    session.records[node.nodeid] = record
    node.user_properties += properties(record)
    if record.verdict == NOT_COMPARED and record.pictures:
        pytest.skip(f"{case.id}: {record.pictures.message}")
    if record.verdict not in PASSED:
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
    """What was counted, each as one number."""
    sums = {name: sum(counts[name].values()) for name in ("operators", "host_syncs") if name in counts}
    return sums | {name: counts[name] for name in ("copied_bytes", "flops") if name in counts}


def check_picture(session: Session, node: pytest.Item, case: Case) -> None:
    """Makes the grid of a case and fails unless it is its golden, made with no more work."""
    __tracebackhide__ = True
    _finish(session, node, case, lambda: session.run.picture(case))


def _replay(benchmark: Any, samples: Sequence[float]) -> None:
    """Gives pytest-benchmark the samples of a case that another process measured."""
    benchmark.pedantic(lambda: None)
    if benchmark.stats:
        benchmark.stats.stats.data.clear()
        for sample in samples:
            benchmark.stats.stats.update(sample)


def measure_case(session: Session, node: pytest.Item, case: Case, benchmark: Any) -> None:
    """Measures a case with pytest-benchmark and fails unless its grid is its golden, made with no more work."""
    __tracebackhide__ = True

    measured_elsewhere = True

    def repeat(target: Callable[..., Any], setup: Callable[[], dict[str, Any]], rounds: int) -> list[float]:
        nonlocal measured_elsewhere
        measured_elsewhere = False
        benchmark.pedantic(target, setup=lambda: ((), setup()), rounds=rounds, iterations=1)
        return list(benchmark.stats.stats.data) if benchmark.stats else []

    def make_record() -> Record:
        record = session.run.benchmark(case, repeat, session.options.rounds)
        if measured_elsewhere:
            _replay(benchmark, record.samples_s)
        benchmark.extra_info.update(record.model_dump(mode="json", by_alias=True, exclude={"samples_s"}))
        return record

    _finish(session, node, case, make_record)
