"""Outcomes of faults: how far they exceed the limits, what the report says, and which cases are enough."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from bench.errors import UsageError
from bench.faults.__main__ import main, select_cases
from bench.faults.catalogue import FAULTS
from bench.faults.cover import choose_cases, seen_faults
from bench.faults.fault import Fault, pull
from bench.faults.order import likely_first
from bench.faults.outcomes import (
    CLOSED_FORM,
    CONTROL,
    CaseOutcome,
    FaultOutcome,
    OutcomeError,
    append,
    died,
    from_line,
    judge,
    latest,
    raised,
    ratios,
    read_outcomes,
    suite_hash,
    to_line,
)
from bench.faults.quick import quick_cases, write_quick
from bench.faults.report import render_report
from bench.faults.runner import FaultTrial, run_cases, run_trials
from bench.pictures.compared import ComparedWork, Pictures
from bench.pictures.similarity import Limits
from bench.plugin.session import case_parameters
from bench.record.record import Record
from bench.suite.file import SuiteError
from bench.suite.schedulers import DDPM

LIMITS = Limits(ssim=0.9999, max_diff=3, changed_share=0.01, mean_diff=0.05, reason="made up")


def record(verdict: str = "changed", **pictures: Any) -> Record:
    like = {"ssim_worst_tile": 1.0, "max_diff": 0, "changed_share": 0.0, "mean_diff": (0.0, 0.0, 0.0)}
    compared = Pictures(verdict=verdict, message="made up", limits=LIMITS, **like | pictures)
    return Record(
        schema=1, case="a/b", model="a", settings={}, device="cpu", environment="e", verdict=verdict, pictures=compared
    )


def case(name: str, *, passed: bool = False, seconds: float = 1.0, **by: float | None) -> CaseOutcome:
    return CaseOutcome(name, passed, "identical" if passed else "changed", seconds, {} if passed else by or {"SSIM": 2})


def outcome(fault: str, *cases: CaseOutcome, suite: str = "s") -> FaultOutcome:
    return FaultOutcome(fault, suite, 1.0, cases)


def fault(name: str, area: str = "schedulers") -> Fault:
    return Fault(name, area, f"It is {name}.", pull(1), lambda patch: None)


class TestMargins:
    def test_a_measure_counts_as_a_multiple_of_its_limit(self) -> None:
        over = ratios(record(ssim_worst_tile=0.999, max_diff=30, mean_diff=(0.0, -0.1, 0.02)))
        assert over == pytest.approx({"SSIM": 10, "largest difference": 10, "colour shift": 2})

    def test_what_is_within_its_limit_does_not_count(self) -> None:
        assert ratios(record(ssim_worst_tile=0.99995, max_diff=4)) == pytest.approx({"largest difference": 4 / 3})

    def test_a_case_without_scores_failed_by_its_verdict(self) -> None:
        broken = record("broken").model_copy(update={"pictures": None})
        assert judge(broken, 0.5).by == {"broken": None}

    def test_a_passing_case_has_no_measures(self) -> None:
        judged = judge(record("within limits", max_diff=1), 0.5)
        assert judged.passed
        assert judged.by == {}

    def test_more_work_counts_if_the_record_has_it(self) -> None:
        compared = ComparedWork(verdict="more work", message="value reads 1 → 2")
        counted = record("more work").model_copy(update={"work": compared})
        assert judge(counted, 0.5).by == {"work": None}
        assert "value reads 1 → 2" in judge(counted, 0.5).message

    def test_an_exception_and_a_dead_process_have_no_margin(self) -> None:
        both = outcome("f", raised("a", ValueError("no\nmore"), 1.0), died("b", "its process was killed by SIGKILL"))
        assert both.margin is None
        assert both.measures == {"raises now": None, "process died": None}
        assert both.cases[0].message == "ValueError: no"

    def test_the_largest_ratio_of_all_cases_is_the_margin(self) -> None:
        found = outcome("f", case("a", SSIM=3.0), case("b", SSIM=7.0, work=None), case("c", passed=True))
        assert found.measures == {"SSIM": 7.0, "work": None}
        assert found.margin == 7.0
        assert [one.case for one in found.seen_by] == ["a", "b"]


class TestFile:
    def test_outcomes_come_back_as_they_were(self, tmp_path: Path) -> None:
        path = tmp_path / "deep" / "outcomes.jsonl"
        first = outcome("f", case("a", SSIM=3.0, work=None), case("b", passed=True))
        append(path, first)
        append(path, outcome("g"))
        assert read_outcomes(path) == [first, outcome("g")]
        assert from_line(to_line(first)) == first

    def test_the_last_outcome_of_a_fault_counts_and_other_suites_do_not(self) -> None:
        old, new, other = outcome("f"), outcome("f", case("a")), outcome("g", suite="t")
        assert latest([other, old, new]) == {"f": new}
        assert latest([old, new, other], "s") == {"f": new}
        assert latest([]) == {}

    def test_a_damaged_line_is_reported_by_number(self, tmp_path: Path) -> None:
        path = tmp_path / "outcomes.jsonl"
        with pytest.raises(OutcomeError, match="no such file"):
            read_outcomes(path)
        path.write_text(to_line(outcome("f")) + '{"fault": "g"}\n')
        with pytest.raises(OutcomeError, match=r"line 2: not an outcome"):
            read_outcomes(path)

    def test_other_settings_or_libraries_are_another_suite(self, tiny_case: Any) -> None:
        one, other = tiny_case(DDPM), tiny_case(DDPM, images=3)
        assert suite_hash([one], {"torch": "2"}) != suite_hash([other], {"torch": "2"})
        assert suite_hash([one], {"torch": "2"}) != suite_hash([one], {"torch": "3"})


class TestCover:
    def test_each_fault_is_detected_twice_if_two_cases_detect_it(self) -> None:
        seen_by = {"f": frozenset({"a", "b", "c"}), "g": frozenset({"c"})}
        chosen = choose_cases(seen_by, {"a": 1.0, "b": 2.0, "c": 3.0})
        assert chosen == ["a", "c"]

    def test_a_fast_case_is_taken_before_a_slow_one(self) -> None:
        assert choose_cases({"f": frozenset({"slow", "fast"})}, {"slow": 9.0, "fast": 1.0}, sights=1) == ["fast"]

    def test_a_case_that_later_ones_made_unnecessary_is_removed(self) -> None:
        # The greedy choice takes "middle" first, for its three faults a second; both sides are needed after it.
        seen_by = {
            "1": frozenset({"left"}),
            "2": frozenset({"left", "middle"}),
            "3": frozenset({"left", "middle"}),
            "4": frozenset({"right", "middle"}),
            "5": frozenset({"right"}),
        }
        assert choose_cases(seen_by, {"left": 2.0, "middle": 1.0, "right": 2.0}, sights=1) == ["left", "right"]

    def test_only_detected_faults_count_and_the_control_does_not(self) -> None:
        outcomes = {name: outcome(name, case("a", passed=name == "g")) for name in ("f", "g", CONTROL)}
        assert seen_faults(outcomes) == {"f": frozenset({"a"})}

    def test_the_closed_form_is_never_chosen(self) -> None:
        outcomes = {"f": outcome("f", case("a"), case(CLOSED_FORM)), "g": outcome("g", case(CLOSED_FORM))}
        assert seen_faults(outcomes) == {"f": frozenset({"a"})}


class TestReport:
    def test_undetected_faults_are_listed_last_in_bold(self) -> None:
        faults = {name: fault(name) for name in ("f", "g", "h")}
        outcomes = {"f": outcome("f", case("a", SSIM=12.34)), "g": outcome("g", case("a", passed=True))}
        text = render_report(faults, outcomes)
        assert text.startswith("1 of 2 faults were detected.\n")
        assert (
            "| `f` | It is f ([PR 1](https://github.com/huggingface/diffusers/pull/1)) | SSIM | 1 of 1 | 12 |" in text
        )
        assert "Not run: h." in text
        assert text.rstrip().splitlines()[-1].startswith("- `g`: It is g")
        assert "**NOT DETECTED: 1 of 2 faults**" in text

    def test_another_library_is_named(self) -> None:
        there = dataclasses.replace(fault("f"), source=pull(7, "huggingface/transformers"))
        assert "[transformers PR 7]" in render_report({"f": there}, {"f": outcome("f", case("a"))})

    def test_areas_are_counted(self) -> None:
        faults = {"f": fault("f"), "g": fault("g"), "n": fault("n", "noise")}
        text = render_report(faults, {name: outcome(name, case("a", passed=name == "g")) for name in faults})
        assert "| schedulers | 2 | 1 |" in text
        assert "| noise | 1 | 1 |" in text


class TestCommand:
    @pytest.fixture
    def results(self, tmp_path: Path) -> Path:
        append(tmp_path / "outcomes.jsonl", outcome(CONTROL, case("a", passed=True, seconds=2.0)))
        return tmp_path

    def test_an_undetected_fault_is_exit_code_1(self, results: Path, capsys: Any) -> None:
        append(results / "outcomes.jsonl", outcome("seed-plus-one", case("a")))
        assert main(["report", "--results", str(results)]) == 0
        append(results / "outcomes.jsonl", outcome("padding-masked", case("a", passed=True)))
        assert main(["report", "--results", str(results)]) == 1
        assert (results / "report.md").read_text() in capsys.readouterr().out

    def test_cover_writes_the_cases(self, results: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
        append(results / "outcomes.jsonl", outcome("seed-plus-one", case("a")))
        monkeypatch.setattr("bench.faults.quick.QUICK_FILE", results / "quick.json")
        assert main(["cover", "--results", str(results)]) == 0
        assert json.loads((results / "quick.json").read_text()) == ["a"]
        assert "1 of 1 cases detect all 1 faults, 0 of them twice: 2.0 s instead of 2.0 s" in capsys.readouterr().out

    def test_cover_without_a_detected_fault_is_a_sentence(self, results: Path, capsys: Any) -> None:
        assert main(["cover", "--results", str(results)]) == 4
        assert "no fault was detected" in capsys.readouterr().err

    def test_an_unknown_fault_is_a_sentence(self, tmp_path: Path, capsys: Any) -> None:
        assert main(["run", "--fault", "gremlins", "--results", str(tmp_path)]) == 4
        assert (
            capsys.readouterr().err
            == "python -m bench.faults: --fault gremlins: not in the catalogue; 'list' shows all names.\n"
        )

    def test_a_stopped_run_says_how_to_continue(self, results: Path, monkeypatch: Any, capsys: Any) -> None:
        def stop(*_arguments: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("bench.faults.runner.run_trials", stop)
        monkeypatch.setattr("bench.faults.__main__.suite_hash", lambda *_arguments: outcome(CONTROL).suite)
        monkeypatch.setattr("bench.faults.runner.import_libraries", lambda: None)
        assert main(["run", "--results", str(results)]) == 2
        said = f"python -m bench.faults: interrupted; the same command continues from {results / 'outcomes.jsonl'}\n"
        assert capsys.readouterr().err == said

    def test_no_process_is_refused(self, capsys: Any) -> None:
        with pytest.raises(SystemExit):
            main(["run", "--processes", "0"])
        assert "at least 1" in capsys.readouterr().err

    def test_list_names_every_fault(self, capsys: Any) -> None:
        assert main(["list"]) == 0
        assert len(capsys.readouterr().out.splitlines()) == len(FAULTS)


class TestSelection:
    def test_sentinels_are_preferred_and_slow_cases_left_out(self, bench_session: Any) -> None:
        cases = [one for one in bench_session.suite.cases if one.model.source == "embedded"]
        chosen = select_cases(bench_session.suite.cases)
        sentinels = [one for one in cases if one.settings.sentinel]
        assert chosen
        assert not any(one.settings.slow for one in chosen)
        assert list(chosen) == sentinels

    def test_an_expression_chooses_by_id(self, bench_session: Any) -> None:
        chosen = select_cases(bench_session.suite.cases, "emoji-sd/pndm-s5- or emoji-ddpm/ddim-s20-fp32")
        assert {one.settings.steps for one in chosen} == {5, 20}
        with pytest.raises(UsageError, match="none of the"):
            select_cases(bench_session.suite.cases, "gremlins")


class TestOrder:
    def test_every_case_comes_once_whatever_the_fault(self, bench_session: Any) -> None:
        cases = [one for one in bench_session.suite.cases if one.settings.sentinel]
        seconds = {one.id: 1.0 for one in cases}
        for name in ("heun-second-step-skipped", "red-and-blue-swapped"):
            ordered = likely_first(cases, fault(name), seconds)
            assert sorted(one.id for one in ordered) == sorted(one.id for one in cases)

    def test_cases_that_share_words_with_the_fault_come_first(self, bench_session: Any) -> None:
        cases = [one for one in bench_session.suite.cases if one.settings.sentinel]
        ordered = likely_first(cases, fault("heun-trailing-lost"), {one.id: 1.0 for one in cases})
        assert "heun" in ordered[0].id
        assert "trailing" in ordered[0].id

    def test_other_cases_alternate_between_groups_and_pipelines(self, bench_session: Any) -> None:
        cases = [one for one in bench_session.suite.cases if one.settings.sentinel]
        ordered = likely_first(
            cases, fault("nothing-like-it", "nowhere"), {one.id: float(len(one.id)) for one in cases}
        )
        assert len({one.settings.sentinel for one in ordered[:8]}) == 8
        assert {(one.model.kind, one.settings.dtype) for one in ordered[:100]} >= {
            (DDPM, "float32"),
            (DDPM, "bfloat16"),
        }


class TestQuickMarker:
    def test_the_cases_in_the_file_have_it(self, bench_session: Any) -> None:
        first, second, *_ = bench_session.selection.cases
        session = dataclasses.replace(bench_session, quick=frozenset({first.id}))
        marked = {
            one.id: {mark.name for mark in one.marks}  # type: ignore[attr-defined]
            for one in case_parameters(session, timed=False)
        }
        assert "quick" in marked[first.id]
        assert "quick" not in marked[second.id]

    def test_the_file_is_a_sorted_list_of_ids(self, tmp_path: Path) -> None:
        path = tmp_path / "quick.json"
        assert quick_cases(path) == frozenset()
        write_quick(["b", "a"], path)
        assert json.loads(path.read_text()) == ["a", "b"]
        assert quick_cases(path) == {"a", "b"}

    @pytest.mark.parametrize("text", ["{}", "[1]", "no json"])
    def test_a_damaged_file_is_a_sentence(self, text: str, tmp_path: Path) -> None:
        path = tmp_path / "quick.json"
        path.write_text(text)
        with pytest.raises(SuiteError, match="not a list of case ids"):
            quick_cases(path)


@pytest.fixture
def trial(bench_session: Any) -> FaultTrial:
    """One short case of the suite with a fault that it detects."""
    chosen = next(one for one in bench_session.suite.cases if one.id == "emoji-sd/pndm-s5-g7.5-fp32")
    run = bench_session.run
    return FaultTrial(
        FAULTS["seed-plus-one"], (chosen,), "s", run.suite_folder, bench_session.options.golden_dir, run.environment
    )


@pytest.mark.usefixtures("one_thread")
class TestRun:
    def test_a_fault_is_detected_and_ends_with_the_run(self, trial: FaultTrial) -> None:
        (seen,) = run_cases(trial)
        assert not seen.passed
        assert "SSIM" in seen.by
        (passed,) = run_cases(dataclasses.replace(trial, fault=None))
        assert passed.passed, passed.message

    def test_the_closed_form_detects_what_no_case_does(self, trial: FaultTrial, monkeypatch: Any) -> None:
        from bench.faults import closed_form

        settings = closed_form.all_settings()
        few = {name: one for name, one in settings.items() if one.class_name == "EulerDiscreteScheduler"}
        monkeypatch.setattr(closed_form, "all_settings", lambda: few)
        unseen = dataclasses.replace(trial, fault=FAULTS["euler-step-in-half"], closed_form=True)
        case, schedulers = run_cases(unseen)
        assert (case.passed, schedulers.passed, schedulers.case) == (True, False, CLOSED_FORM)
        assert schedulers.by == {CLOSED_FORM: None}
        assert "bfloat16" in schedulers.message
        *_, schedulers = run_cases(dataclasses.replace(unseen, fault=None))
        assert schedulers.passed, schedulers.message
        (seen,) = run_cases(dataclasses.replace(trial, closed_form=True))
        assert seen.case != CLOSED_FORM

    def test_it_stops_when_enough_cases_detected_the_fault(self, trial: FaultTrial) -> None:
        several = dataclasses.replace(trial, cases=trial.cases * 3, enough=2)
        assert [one.passed for one in run_cases(several)] == [False, False]
        assert len(list(run_cases(dataclasses.replace(several, fault=None)))) == 3

    def test_what_raises_is_an_outcome(self, trial: FaultTrial) -> None:
        (seen,) = run_cases(dataclasses.replace(trial, fault=FAULTS["loading-raises"]))
        assert seen.by == {"raises now": None}
        assert "offload_state_dict" in seen.message

    def test_a_process_that_dies_is_an_outcome_and_leaves_no_files(
        self, trial: FaultTrial, tmp_path: Path, monkeypatch: Any
    ) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

        def die(_patch: pytest.MonkeyPatch) -> None:
            print("out of luck")
            os._exit(3)

        deadly = dataclasses.replace(fault("deadly"), apply=die)
        found: list[FaultOutcome] = []
        run_trials([dataclasses.replace(trial, fault=deadly)], 1, found.append)
        assert [one.fault for one in found] == ["deadly"]
        assert found[0].cases == (
            died(trial.cases[0].id, "its process ended with exit code 3; its last words: out of luck"),
        )
        assert list(tmp_path.iterdir()) == []
