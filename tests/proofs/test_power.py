"""The power proof: what it measures, and the tables of its report."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bench.calls.observe import DECODER, DENOISER
from bench.command import INTERRUPTED, NOTHING_RUN
from bench.proofs import power
from bench.proofs.power import Cost, Wanted, extra_work, main, measure_costs, requests_of, seen_calls
from bench.proofs.power_report import render_report
from bench.proofs.slow_down import SCHEDULER
from bench.proofs.trials import CASES, ONE_SCHEDULER, SLOW, WHOLE, Fault, keep, read_trials
from bench.suite.file import read_suite
from bench.upgrade.lockstep import PairedCall, Places
from bench.upgrade.measuring import Measured
from bench.upgrade.side_results import SideResult
from bench.upgrade.speeds import judge
from tests.proofs.made_up import made_up_setup, made_up_start, made_up_trial
from tests.upgrade.starts import CALL, call

COSTS = dict.fromkeys(CASES, Cost(60_000, {DENOISER: 6, "encoder": 2, SCHEDULER: 6, DECODER: 1}))


@pytest.fixture(scope="module")
def known():
    return {case.id: case for case in read_suite().cases if case.id in CASES}


def test_the_extra_work_is_spread_over_the_calls_of_the_part():
    one = Cost(60_000, {DENOISER: 6, "encoder": 2})
    assert (one.extra(DENOISER, 0.05), one.extra("encoder", 0.05)) == (500, 1500)
    assert extra_work(Fault(part=DENOISER, share=0.1, cases=("a",)), {"a": one, "b": one}) == {"a": 1000}
    assert extra_work(None, {"a": one}) == {}


def test_only_the_candidate_of_a_slow_case_has_extra_work(known):
    cases = list(known.values())[:2]
    slow, equal = (case.id for case in cases)
    setup = made_up_setup(cases, Fault(part=DENOISER, share=0.05, cases=(slow,)))
    plain = {case: {"folder": case} for case in (slow, equal)}
    assert requests_of(setup, plain, {slow: 500}) == {
        slow: ({"folder": slow}, {"folder": slow, "slow_part": DENOISER, "multiplications": 500}),
        equal: ({"folder": equal}, {"folder": equal}),
    }


def test_both_sides_calibrate_and_their_middle_counts(monkeypatch):
    asked = []

    class Side:
        def __init__(self, multiplications: float) -> None:
            self.multiplications = multiplications

        def ask(self, do: str, **request: Any) -> tuple[dict[str, Any], tuple[bytes, ...]]:
            asked.append((do, request))
            return {"multiplications": self.multiplications, "calls": {DENOISER: 4}}, ()

    class Two:
        def take(self) -> list[Side]:
            return [Side(100.0), Side(400.0)]

    monkeypatch.setattr(power, "fresh_pair", contextlib.nullcontext)
    sides: Any = Two()
    assert measure_costs(sides, {"a": {"folder": "b"}}, Places("alternate")) == {"a": Cost(200.0, {DENOISER: 4})}
    assert asked == [("load", {"folder": "b"})] * 2 + [("calibrate", {})] * 2


def test_the_calls_that_draw_the_pictures_are_seen_and_those_that_fail_are_not():
    class Processes:
        def both(self, requests: Any, _places: Any) -> tuple[SideResult, SideResult]:
            before, after = (SideResult(images=one["images"], segments=CALL) for one in requests)
            return before, after

    drawn: dict[str, Any] = {"images": (Image.new("RGB", (1, 1)),)}
    failing: dict[str, Any] = {"images": ()}
    processes: Any = Processes()
    requests = {"drawn": (drawn, drawn), "failing": (drawn, failing)}
    assert seen_calls(processes, requests, Places("duet")) == {"drawn": PairedCall(baseline=CALL, candidate=CALL)}


@pytest.mark.parametrize(
    ("wanted", "done", "passed_s", "more"),
    [
        (Wanted(trials=2), 1, 1e6, True),
        (Wanted(trials=2), 2, 0, False),
        (Wanted(minutes=2), 99, 119, True),
        (Wanted(minutes=2), 0, 121, False),
    ],
)
def test_it_stops_after_trials_or_minutes(wanted, done, passed_s, more, monkeypatch):
    monkeypatch.setattr(power.time, "monotonic", lambda: 1000.0 + passed_s)
    assert wanted.more(done, 1000.0) == more


@pytest.fixture
def made_up(monkeypatch):
    """Trials that take no time; returns what was asked for."""
    rng, asked = random.Random(2), []

    def measured(_sides: Any, cases: Any, requests: Any, plan: Any, *, seen: Any, **_: Any) -> Measured:
        slow = {case: after for case, (_, after) in requests.items() if "slow_part" in after}
        part = next((request["slow_part"] for request in slow.values()), None)
        asked.append((tuple(case.id for case in cases), part, tuple(slow), plan.spell_s))
        fault = Fault(part=part, share=0.05, cases=tuple(slow)) if part else None
        starts = tuple(made_up_start(cases, rng, fault, calls=1) for _ in range(5))
        return Measured(starts, judge(starts, cases, plan, seen))

    def seen(_processes: Any, requests: Any, _places: Any) -> dict[str, PairedCall]:
        return dict.fromkeys(requests, call(CALL))

    monkeypatch.setattr(power, "measure_until_decided", measured)
    monkeypatch.setattr(power, "seen_calls", seen)
    monkeypatch.setattr(power, "measure_start", lambda _sides, cases, *_: made_up_start(cases, rng, calls=1))
    monkeypatch.setattr(power, "measure_costs", lambda _sides, requests, _places: {one: COSTS[one] for one in requests})
    monkeypatch.setattr(power, "render_report", lambda trials, _cases: f"{len(trials)} trials")
    return asked


def test_each_trial_is_kept_and_a_later_run_continues(made_up, tmp_path, capsys):
    file = tmp_path / "trials.jsonl"
    arguments = ["run", "--kind", SLOW, "--file", str(file)]
    assert main([*arguments, "--trials", "20"]) == 0
    assert main([*arguments, "--trials", "4"]) == 0
    trials = read_trials(file)
    assert len({trial.setup for trial in trials}) == len(trials) == len(made_up) == 24
    for trial, (cases, part, slow, spell_s) in zip(trials, made_up, strict=True):
        assert trial.setup.fault
        assert (trial.setup.cases, trial.setup.fault.part) == (cases, part)
        assert (trial.setup.fault.cases, trial.setup.spell_s) == (slow, spell_s)
        assert set(trial.multiplications) == set(slow)
    assert (
        " more in the decoder of one case, several per start: decoder of emoji-sd in float32" in capsys.readouterr().out
    )


def test_a_whole_run_has_no_extra_work_and_a_slow_scheduler_two_cases(made_up, tmp_path):
    file = tmp_path / "trials.jsonl"
    for kind in (WHOLE, ONE_SCHEDULER):
        assert main(["run", "--kind", kind, "--file", str(file)]) == 0
    (whole, _, none, _), (run, part, slow, _) = made_up
    assert (whole, none, run, part, len(slow)) == (CASES, (), CASES, SCHEDULER, 2)
    trials = read_trials(file)
    assert [len(trial.multiplications) for trial in trials] == [0, 2]
    for trial in trials:
        assert trial.complete
        assert {case for one in trial.complete.pipelines for case in one.calls} == set(trial.seen) == set(CASES)


def test_one_of_each_trial_is_the_default(made_up, tmp_path):
    assert main(["run", "--file", str(tmp_path / "trials.jsonl"), "--case", "pndm"]) == 0
    assert len(made_up) == 1 + 24
    assert all(cases[0] == CASES[0] for cases, *_ in made_up)


def test_ctrl_c_says_where_the_trials_are(made_up, monkeypatch, tmp_path, capsys):
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(power, "measure_until_decided", interrupted)
    assert main(["run", "--file", str(tmp_path / "trials.jsonl")]) == INTERRUPTED
    assert "the trials so far are in" in capsys.readouterr().err


def test_a_report_on_no_trials_is_a_mistake(known, tmp_path, capsys):
    file = tmp_path / "trials.jsonl"
    keep(file, made_up_trial([known[CASES[0]]], random.Random(1), starts=1))
    assert main(["report", "--kind", SLOW, "--file", str(file)]) == NOTHING_RUN
    assert "no trial is of this kind" in capsys.readouterr().err


def rows(report: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in report.splitlines() if "|" in line]


def test_the_report_has_a_row_for_each_setup_and_rule(known):
    rng = random.Random(3)
    cases = list(known.values())
    fault = Fault(part=DECODER, share=0.05, cases=(cases[0].id,))
    of_scheduler = Fault(part=SCHEDULER, share=0.05, cases=(cases[0].id, cases[1].id))
    trials = [made_up_trial(cases, rng, calls=1, date=f"2026-01-0{day}") for day in (1, 2)]
    trials += [made_up_trial(cases[:1], rng, fault, date=f"2026-01-0{day}", factor=1.5) for day in (3, 4)]
    trials.append(made_up_trial(cases, rng, of_scheduler, setup=made_up_setup(cases, of_scheduler, kind=ONE_SCHEDULER)))
    report = render_report(trials, known, whole_runs=8, slow_runs=4)
    found = {tuple(row[:3]): row for row in rows(report)}
    assert found["measured", str(len(cases)), "2"][3:6] == ["0 (0.0%)", "0 (0.0%)", "100.0%"]
    assert found["resampled from 12 starts", str(len(cases)), "8"][3] == "0 (0.0%)"
    of_decoder = [row for row in rows(report) if row[:3] == ["decoder of one case", "5 %", "several"]]
    assert of_decoder[0][3:6] == ["2", "2 (100.0%)", "2 (100.0%)"]
    assert of_decoder[1][3] == "12"
    assert of_decoder[1][-1] == "100%"
    assert ("scheduler of 2 of 12 cases", "5 %", "several") in found
    rules = {row[0]: row[1:] for row in rows(report) if len(row) == 3}
    assert rules["cases called slower by"] == ["A/A", "5 %"]
    # A scheduler that takes 20 % longer makes no call longer by 3 %.
    assert rules["this check"] == ["0.0% of 34", "50.0% of 4"]
    assert len(rules) == 2 + 4


def test_the_report_names_false_alarms(known):
    cases = list(known.values())[:1]
    wrong = Fault(part=DENOISER, share=0.05, cases=(cases[0].id,))
    trial = made_up_trial(cases, random.Random(3), wrong, setup=made_up_setup(cases))
    report = render_report([trial], known, whole_runs=2)
    assert rows(report)[2][3] == "1 (100.0%)"
    denoiser = "denoiser of emoji-sd in float32 (8 × 4 × 16 × 16)"
    assert f"False alarms of measured runs: {denoiser} (1), speed of {cases[0].id} (1)" in report


def test_the_slow_worker_is_a_program_of_this_suite():
    assert Path(power.SLOW_WORKER.replace(".", "/") + ".py").is_file()
