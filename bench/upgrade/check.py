"""The upgrade check: sides in, findings out. Knows nothing of pytest."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.calls.pipelines import Checkpoint, find_checkpoint
from bench.calls.raised import RaisedError
from bench.calls.work_verdict import compare_work
from bench.pictures.grids import make_grid
from bench.pictures.limits import STRICT, default_limits
from bench.pictures.similarity import Limits
from bench.record.folder import RunFolder
from bench.suite.case import Case
from bench.upgrade.journal import Journal
from bench.upgrade.measuring import Measured, measure_until_decided
from bench.upgrade.outcome import CaseFound, WorkFound
from bench.upgrade.pictures import compare_pictures, keep_pictures, only_expected_errors
from bench.upgrade.plan import ComparisonPlan
from bench.upgrade.repeats import Repeats
from bench.upgrade.request import load_request
from bench.upgrade.side_results import PictureProcesses, SideResult, paired
from bench.upgrade.speeds import FIRST_CALL, LOAD, MEMORY, SPEED
from bench.upgrade.workers import SIDES, Sides
from bench.verdicts import Verdict


def _strict(case: Case) -> Limits:
    return default_limits(case.settings.dtype, STRICT)


@dataclass
class UpgradeCheck:
    """Checks cases on two sides: first the pictures and the work of each, then the speed of all together.

    Attributes:
        sides: baseline and candidate, in this order.
        processes: of these sides.
        journal: what is known already, and where each finding goes at once.
        announce: called with a line about what takes long.
        limits_of: how far the two pictures of a case may be apart.
        expected_error_of: what the golden of a case says that it raises.
    """

    sides: Sides
    processes: PictureProcesses
    plan: ComparisonPlan
    folder: RunFolder
    suite_folder: Path
    journal: Journal
    announce: Callable[[str], None] = print
    limits_of: Callable[[Case], Limits] = _strict
    expected_error_of: Callable[[Case], RaisedError | None] = lambda case: None
    rng: random.Random = field(default_factory=random.Random)
    measured: Measured | None = None
    _repeats: Repeats = field(default_factory=Repeats)
    _checkpoints: dict[str, Checkpoint] = field(default_factory=dict)

    def compare(self, case: Case) -> CaseFound:
        """Pictures and work of both sides; from the journal where it has them.

        Raises:
            PipelineError: the checkpoint of the case's model is missing.
        """
        known = self.journal.found(case)
        if known:
            return known
        began = time.perf_counter()
        baseline, candidate = self.processes.both((self.request(case),) * 2, self.plan.places)
        limits = self.limits_of(case)
        pictures = compare_pictures(baseline, candidate, limits)
        pictures = only_expected_errors(pictures, baseline.error, self.expected_error_of(case))
        if pictures.verdict == Verdict.IDENTICAL:
            self.folder.save_picture(case.id, make_grid(candidate.images, candidate.images[0].size))
        else:
            keep_pictures(self.folder, case.id, baseline, candidate, SIDES)
        self._repeats.expect(case.id, (baseline.images, candidate.images), limits)
        found = CaseFound(
            case=case.id,
            settings=case.settings.recorded(),
            pictures=pictures,
            unet_calls=(baseline.unet_calls, candidate.unet_calls),
            work=_work(baseline, candidate),
            work_reason=baseline.work_reason or candidate.work_reason,
            new_warnings=tuple(text for text in candidate.warnings if text not in baseline.warnings),
            checksums=(baseline.checksum, candidate.checksum),
            seconds=time.perf_counter() - began,
        )
        # A sentinel is never timed.
        self.journal.add_case(found, None if case.settings.sentinel else paired(baseline, candidate))
        return found

    def measure(self, cases: Sequence[Case]) -> Measured:
        """Speed and memory of all cases whose pictures both sides draw, once for all of them.

        Raises:
            WorkerBroken: a side cannot be started any more.
        """
        if self.measured is None:
            drawn = {case.id: self.compare(case) for case in cases}
            timed = [case for case in cases if all(drawn[case.id].checksums)]
            self.announce(f"measuring {len(timed)} cases, for up to {self.plan.budget_s:g} s")
            self.measured = measure_until_decided(
                self.sides,
                timed,
                {case.id: (self.request(case),) * 2 for case in timed},
                self.plan,
                rng=self.rng,
                starts=self.journal.starts,
                seen=self.journal.seen,
                known={case.id: drawn[case.id].checksums for case in timed},
                odd=self._repeats.note,
                keep=self.journal.add_start,
                announce=self.announce,
            )
        return self.measured

    def found(self, case: Case) -> CaseFound:
        """All that is known of a case so far."""
        found = self.compare(case)
        if self.measured is None or case.settings.sentinel:
            return found
        figures = self.measured.speeds.figures_of(case)
        found = found.model_copy(
            update={
                "speed": figures.get(SPEED),
                "load": figures.get(LOAD),
                "first_call": figures.get(FIRST_CALL),
                "memory": figures.get(MEMORY),
                "memory_reason": None if MEMORY in figures or not figures else "this system does not report it",
                "odd_parts": tuple(sorted(self.measured.speeds.samples.odd.get(case.id, ()))),
                "unsteady": self._repeats.sentences(case.id) + self._failed_once(case),
            }
        )
        return self._with_failures(self._repeats.judged(found), case)

    def _failed_once(self, case: Case) -> tuple[str, ...]:
        assert self.measured
        failures = self.measured.failed.get(case.id, []) if case.id not in self.measured.given_up else []
        return tuple(f"the {side} failed in one of its calls: {reason}" for side, reason in failures)

    def _with_failures(self, found: CaseFound, case: Case) -> CaseFound:
        """A case that failed again and again while it was measured: the candidate is broken, or nothing is known."""
        assert self.measured
        if case.id not in self.measured.given_up:
            return found
        side, reason = self.measured.given_up[case.id]
        if side == SIDES[0]:
            return found.model_copy(update={"speed_reason": f"the baseline failed while it was measured: {reason}"})
        message = f"{Verdict.BROKEN} while it was measured: {reason}"
        pictures = found.pictures.model_copy(update={"verdict": Verdict.BROKEN, "message": message})
        return found.model_copy(update={"pictures": pictures})

    def request(self, case: Case) -> dict[str, Any]:
        """What each side is to load for a case.

        Raises:
            PipelineError: the checkpoint of the case's model is missing.
        """
        return load_request(case, self._checkpoint(case), self.plan.device, self.plan.places.threads)

    def _checkpoint(self, case: Case) -> Checkpoint:
        name = case.model.name
        if name not in self._checkpoints:
            self._checkpoints[name] = find_checkpoint(case.model, self.suite_folder, self.announce)
        return self._checkpoints[name]


def _work(baseline: SideResult, candidate: SideResult) -> WorkFound | None:
    if not baseline.work or not candidate.work:
        return None
    found = compare_work(candidate.work, baseline.work)
    return WorkFound(
        verdict=found.verdict,
        message=found.message,
        baseline=baseline.work.to_json(),
        candidate=candidate.work.to_json(),
    )


@contextlib.contextmanager
def started_check(
    pythons: dict[str, Path],
    plan: ComparisonPlan,
    folder: RunFolder,
    suite_folder: Path,
    journal: Journal,
    **more: Any,
) -> Iterator[UpgradeCheck]:
    """A check of these two interpreters; all of its processes end with the block.

    Args:
        more: further attributes of ``UpgradeCheck``.
    """
    forks = plan.device == "cpu"
    with Sides(pythons, plan.timeout_s, forks=forks) as sides, PictureProcesses(sides.process) as processes:
        yield UpgradeCheck(sides, processes, plan, folder, suite_folder, journal, **more)
