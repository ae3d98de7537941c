"""Start after start: when measuring ends, what the next start measures, and which cases are given up."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from bench.suite.case import Case
from bench.suite.schedulers import STABLE_DIFFUSION
from bench.upgrade import measuring
from bench.upgrade.decision import FEWEST_STARTS
from bench.upgrade.lockstep import Places
from bench.upgrade.measuring import Measured, measure_until_decided
from bench.upgrade.plan import ComparisonPlan
from bench.upgrade.start import Start, pipeline_of
from tests.upgrade.starts import CALL, call, start

Run = Callable[..., Measured]


@pytest.fixture
def cases(tiny_case) -> list[Case]:
    return [tiny_case(STABLE_DIFFUSION, scheduler=name) for name in ("ddim", "euler")]


@pytest.fixture
def run(monkeypatch, cases) -> Run:
    """``run(speeds)`` measures; the candidate takes these times as long in one start after the other, 10 s each."""

    def measure(speeds: list[float], *, fails: str = "", peak_bytes: Any = (None, None), **more: Any) -> Measured:
        left = iter(speeds)

        def made_up(_sides: Any, chosen: list[Case], *_: Any, **__: Any) -> Start:
            factor = next(left)
            chosen_ids = [case.id for case in chosen]
            asked.append(chosen_ids)
            slower = call(tuple((part, factor * seconds) for part, seconds in CALL))
            slower = slower.model_copy(update={"peak_bytes": peak_bytes})
            return start(
                {name: [slower] for name in chosen_ids if name != fails},
                pipeline=pipeline_of(cases[0]),
                failed={fails: ("candidate", "its process was killed")} if fails in chosen_ids else {},
            )

        asked: list[list[str]] = []
        monkeypatch.setattr(measuring, "measure_start", made_up)
        plan = ComparisonPlan(Places("duet"), **({"budget_s": 10_000.0} | more.pop("plan", {})))
        nothing: Any = None
        measured = measure_until_decided(nothing, cases, {}, plan, **more)
        assert len(asked) == len(measured.starts) - len(more.get("starts", ()))
        return measured

    return measure


def test_measuring_ends_when_everything_is_decided(run):
    measured = run([1.0, 1.001] * 20)
    assert len(measured.starts) == FEWEST_STARTS
    assert {figure.verdict for figure in measured.speeds.cases.values()} == {"same"}


def test_a_wide_spread_takes_more_starts(run):
    assert len(run([0.99, 1.01] * 40).starts) > FEWEST_STARTS


@pytest.mark.parametrize(("budget_s", "starts"), [(0, 1), (30, 1), (40, 2)])
def test_no_start_is_begun_that_would_end_after_the_budget(run, budget_s, starts):
    """After the first start, one of two cases of 20 s is measured: that is expected to take 21 s, and then takes 10."""
    measured = run([0.5, 2.0] * 20, plan={"budget_s": budget_s})
    assert len(measured.starts) == starts


def test_a_case_is_given_up_after_its_second_failure_and_the_others_are_decided(run, cases):
    failing = cases[0].id
    measured = run([1.0, 1.001] * 20, fails=failing)
    assert len(measured.failed[failing]) == 2
    assert measured.given_up == {failing: ("candidate", "its process was killed")}
    assert measured.speeds.cases[cases[1].id].verdict == "same"


def test_each_start_is_kept_as_soon_as_it_is_over_and_announced(run):
    kept: list[Start] = []
    lines: list[str] = []
    measured = run([1.0, 1.001] * 20, keep=kept.append, announce=lines.append)
    assert tuple(kept) == measured.starts
    assert lines[0].startswith("start 1: 0 of 2 speeds decided, 10 s of")
    assert lines[-1].startswith(f"start {FEWEST_STARTS}: 2 of 2 speeds decided")


def test_where_times_mean_nothing_measuring_ends_when_memory_is_decided(run):
    measured = run([1.0] * 9, plan={"times": False}, peak_bytes=(1000, 1000))
    assert len(measured.starts) == 2
    assert measured.speeds.undecided == []


def test_of_a_decided_pipeline_only_loading_is_looked_at_again(monkeypatch, tiny_case):
    """The first pipeline's calls are noisy; the other's are not, but its loading may have become slower."""
    noisy, steady = (tiny_case(STABLE_DIFFUSION, dtype=dtype) for dtype in ("float32", "bfloat16"))
    factors = itertools.cycle([1.0, 1.15])
    asked: list[tuple[list[str], list[str]]] = []

    def made_up(_sides: Any, chosen: list[Case], *_: Any, loads: list[Case], **__: Any) -> Start:
        asked.append((sorted(case.id for case in chosen), [case.id for case in loads]))
        factor = next(factors)
        slow = call(tuple((part, factor * seconds) for part, seconds in CALL))
        made = [
            start({noisy.id: [slow]}, pipeline=pipeline_of(noisy)),
            start(
                {steady.id: [call(CALL)]} if steady in chosen else {}, pipeline=pipeline_of(steady), load=factor + 0.2
            ),
        ]
        return made[0].model_copy(update={"pipelines": tuple(one for start in made for one in start.pipelines)})

    monkeypatch.setattr(measuring, "measure_start", made_up)
    nothing: Any = None
    measure_until_decided(nothing, [noisy, steady], {}, ComparisonPlan(Places("duet"), budget_s=10_000.0))
    assert asked[:FEWEST_STARTS] == [([steady.id, noisy.id], [])] * FEWEST_STARTS
    assert asked[FEWEST_STARTS] == ([noisy.id], [steady.id])


def test_an_interrupted_check_continues_with_its_starts(run):
    before = run([1.0, 1.001] * 20, plan={"budget_s": 40})
    assert len(before.starts) == 2
    after = run([1.0, 1.001] * 20, starts=before.starts)
    assert after.starts[:2] == before.starts
    assert len(after.starts) == FEWEST_STARTS
