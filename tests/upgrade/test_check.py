"""The upgrade check of cases on two interpreters: pictures, work, speed, and what goes wrong with them."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import pytest

from bench.calls.observe import DECODER
from bench.calls.raised import RaisedError
from bench.record.folder import RunFolder
from bench.suite.schedulers import DDPM, STABLE_DIFFUSION
from bench.upgrade.check import UpgradeCheck
from bench.upgrade.journal import Journal
from bench.upgrade.lockstep import places_for
from bench.upgrade.measuring import Measured
from bench.upgrade.outcome import CaseFound
from bench.upgrade.plan import ComparisonPlan
from bench.upgrade.side_results import PictureProcesses
from bench.upgrade.workers import Sides
from tests.upgrade.altered import BRIGHTER, DYING, RAISING, RESTLESS, SLOW_DECODER, UNCOUNTED, WAITING, WARNING

CURRENT = Path(sys.executable)


@pytest.fixture
def check(tmp_path, tiny_case, monkeypatch):
    """``check(candidate)`` checks a tiny case on the current interpreter and the candidate's, in one start of both."""
    monkeypatch.setattr(Sides, "renewed", Sides.take)

    def run(
        candidate: Path,
        *,
        baseline: Path = CURRENT,
        kind: str = DDPM,
        expected: RaisedError | None = None,
        journal: Journal | None = None,
        **plan,
    ) -> tuple[CaseFound, RunFolder, Measured | None]:
        folder = RunFolder(tmp_path / "results", "run")
        chosen = ComparisonPlan(places_for("cpu"), **({"budget_s": 0.1, "spell_s": 0.05, "speed": False} | plan))
        case = tiny_case(kind)
        with (
            Sides({"baseline": baseline, "candidate": candidate}, 120) as sides,
            PictureProcesses(sides.process) as processes,
        ):
            made = UpgradeCheck(
                sides,
                processes,
                chosen,
                folder,
                tmp_path,
                journal or Journal(),
                expected_error_of=lambda _: expected,
                rng=random.Random(0),
            )
            if chosen.speed:
                made.measure([case])
            return made.found(case), folder, made.measured

    return run


def kept(folder: RunFolder) -> set[str]:
    return {path.name.split(".")[-2] for path in folder.path.rglob("*.png")}


def test_an_install_is_identical_to_itself_and_one_start_decides_nothing(check):
    found, folder, _ = check(CURRENT, speed=True)
    assert found.pictures.verdict == "identical"
    assert found.unet_calls == (4, 4)
    assert {name: one.verdict for name, one in found.figures.items()} == dict.fromkeys(found.figures, "cannot tell")
    assert set(found.figures) == {"speed", "load", "first call", "memory"}
    assert found.speed.pairs == 1
    assert not found.problems
    assert kept(folder) == {"ddpm-s4-fp32"}
    assert (found.work.verdict, found.work.message) == ("same work", "same work")
    assert found.work.baseline == found.work.candidate
    assert found.work.baseline["unet_calls"] == 4


def test_changed_pictures_are_seen_and_kept(check, altered_python):
    found, folder, _ = check(altered_python(BRIGHTER))
    assert found.pictures.verdict == "changed"
    assert kept(folder) == {"baseline", "candidate", "difference"}


def test_a_candidate_that_raises_is_told_with_its_own_words(check, altered_python):
    found, folder, _ = check(altered_python(RAISING), speed=True)
    assert found.pictures.verdict == "raises now"
    assert "TypeError: unexpected keyword argument 'generator'" in found.problems[0]
    assert found.speed is None
    assert kept(folder) == {"baseline"}


@pytest.mark.parametrize(
    ("expected", "verdict"),
    [(None, "nothing compared"), ("unexpected keyword argument 'generator'", "raises as before")],
)
def test_both_sides_may_raise_only_what_the_golden_holds(expected, verdict, check, altered_python):
    python = altered_python(RAISING)
    error = RaisedError(type="TypeError", message=expected) if expected else None
    found, *_ = check(python, baseline=python, speed=True, expected=error)
    assert found.pictures.verdict == verdict
    assert bool(found.problems) is (expected is None)
    assert found.speed is None


def test_a_slower_decoder_counts_in_full(check, altered_python):
    *_, measured = check(altered_python(SLOW_DECODER), kind=STABLE_DIFFUSION, speed=True, spell_s=2.0)
    ratios = {one.part: one.figure.ratio for one in measured.speeds.components.values()}
    assert ratios.pop(DECODER) > 20  # of 61; several calls, since a busy machine can hold up a single one as long
    assert max(ratios.values()) < 20


def test_a_candidate_that_does_not_repeat_itself_is_worse(check, altered_python):
    found, *_ = check(altered_python(RESTLESS), speed=True, spell_s=0.5)
    assert found.pictures.verdict == "not repeatable"
    assert "the candidate's pictures differ from call to call: " in found.pictures.message


def test_a_candidate_that_dies_while_it_is_measured_is_broken_and_keeps_its_scores(check, altered_python):
    found, *_ = check(altered_python(DYING), speed=True)
    assert found.pictures.verdict == "broken"
    assert found.pictures.ssim_worst_tile == 1.0
    assert "while it was measured: its process ended with exit code 7" in found.pictures.message
    assert found.speed is None


def test_a_baseline_that_dies_while_it_is_measured_leaves_the_candidate_unblamed(check, altered_python):
    found, *_ = check(CURRENT, baseline=altered_python(DYING), speed=True)
    assert found.pictures.verdict == "identical"
    (problem,) = found.problems
    assert problem.startswith("speed: not compared: the baseline failed while it was measured: its process ended")


def test_a_check_continues_where_its_journal_ends(check, altered_python):
    journal = Journal()
    first, *_ = check(CURRENT, speed=True, journal=journal)
    (start,) = journal.starts
    again, *_ = check(CURRENT, speed=True, journal=journal)
    assert journal.starts[0] is start
    assert again.speed == first.speed


def test_a_candidate_that_warns_and_waits_in_each_step_does_more_work(check, altered_python):
    found, *_ = check(altered_python(WARNING + WAITING))
    assert found.pictures.verdict == "identical"
    assert [text for text in found.new_warnings if "`steps` is deprecated" in text] == [
        "FutureWarning: `steps` is deprecated"
    ]
    assert found.work.verdict == "more work"
    (problem,) = found.problems
    assert "+1 per step): aten::_local_scalar_dense +4" in problem


def test_work_that_cannot_be_counted_is_told_and_no_verdict(check, altered_python):
    found, *_ = check(altered_python(UNCOUNTED))
    assert found.work is None
    assert found.work_reason == "it could not be counted: RuntimeError: no such dispatch mode"
    assert not found.problems


def test_no_process_is_left_after_a_check(check, altered_python):
    check(altered_python(RAISING), speed=True)
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    if not children.exists():
        pytest.skip("this system does not list the children of a process")
    commands = [Path(f"/proc/{child}/cmdline").read_text() for child in children.read_text().split()]
    assert not [command for command in commands if "worker" in command]
