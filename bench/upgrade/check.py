"""The upgrade check of one case, and of the import: sides in, findings out. Knows nothing of pytest."""

from __future__ import annotations

import contextlib
import math
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.calls.pipelines import Checkpoint, find_checkpoint
from bench.calls.work import compare_work
from bench.pictures.grids import make_grid
from bench.pictures.limits import STRICT, default_limits
from bench.pictures.similarity import Limits
from bench.record.folder import RunFolder
from bench.suite.case import Case
from bench.upgrade.comparison import (
    MIN_CHANGE_ONCE,
    SIDES,
    Plan,
    Samples,
    SideResult,
    decide_memory,
    decide_once,
    load_request,
    measure_until_decided,
    picture_in,
    picture_of,
)
from bench.upgrade.decision import Decision, decide
from bench.upgrade.outcome import CaseFound, Figure, PicturesFound, WorkFound
from bench.upgrade.pictures import compare_pictures, keep_pictures
from bench.upgrade.workers import Sides, WorkerBroken, WorkerProcess, fresh, started_worker
from bench.verdicts import Verdict

IMPORT_PAIRS = 5


@dataclass
class UpgradeCheck:
    """Checks cases on two sides.

    Attributes:
        sides: baseline and candidate, in this order.
        announce: told of what takes long.
        limits_of: how far the two pictures of a case may be apart.
    """

    sides: Sides
    plan: Plan
    folder: RunFolder
    suite_folder: Path
    announce: Callable[[str], None] = print
    limits_of: Callable[[Case], Limits] = lambda case: default_limits(case.settings.dtype, STRICT)
    rng: random.Random = field(default_factory=random.Random)
    _checkpoints: dict[str, Checkpoint] = field(default_factory=dict)
    _lasting: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _lasting_processes: list[WorkerProcess] = field(default_factory=list)

    def check(self, case: Case) -> CaseFound:
        """Pictures and work of both sides, then speed and memory if both have some; of a sentinel, the first two.

        Raises:
            PipelineError: there is no checkpoint of the case's model.
        """
        began = time.perf_counter()
        checkpoint = self._checkpoint(case)
        request = load_request(case, checkpoint, self.plan.device, self.plan.places.threads)
        baseline, candidate = self._sentinel(request) if case.settings.sentinel else self._pictures(request)
        pictures = compare_pictures(baseline, candidate, self.limits_of(case))
        if pictures.verdict == Verdict.IDENTICAL:
            self.folder.save_picture(case.id, make_grid(candidate.images, candidate.images[0].size))
        else:
            keep_pictures(self.folder, case.id, baseline, candidate, SIDES)
        samples = None
        if self.plan.speed and not case.settings.sentinel and not baseline.error and not candidate.error:
            try:
                samples = measure_until_decided(self.sides, (request, request), self.plan, rng=self.rng)
            except WorkerBroken as error:
                message = f"{Verdict.BROKEN} while it was measured: {error.side}: {error}"
                pictures = PicturesFound(verdict=Verdict.BROKEN, message=message)
            else:
                pictures = _repeatable(pictures, samples)
        return CaseFound(
            case=case.id,
            settings=case.settings.described() | {"slow": case.settings.slow},
            pictures=pictures,
            unet_calls=(baseline.unet_calls, candidate.unet_calls),
            work=_work(baseline, candidate),
            work_reason=baseline.work_reason or candidate.work_reason,
            new_notices=tuple(text for text in candidate.notices if text not in baseline.notices),
            seconds=time.perf_counter() - began,
            **(figures(samples, self.plan.min_change) if samples else {}),
        )

    def _checkpoint(self, case: Case) -> Checkpoint:
        name = case.model.name
        if name not in self._checkpoints:
            self._checkpoints[name] = find_checkpoint(case.model, self.suite_folder)
        return self._checkpoints[name]

    def _sentinel(self, request: dict) -> tuple[SideResult, SideResult]:
        """From processes that last, so that hundreds of small cases do not load their pipeline each for itself."""
        found: list[SideResult] = []
        for number in range(2):
            try:
                found.append(picture_in(self._lasting_process(number), request))
            except WorkerBroken as error:
                self._end_lasting()
                found.append(SideResult(error=str(error)))
        return found[0], found[1]

    def _lasting_process(self, number: int) -> WorkerProcess:
        if not self._lasting_processes:
            processes = [self._lasting.enter_context(fresh(worker)) for worker in self.sides.take()]
            self._lasting_processes = processes
        return self._lasting_processes[number]

    def _end_lasting(self) -> None:
        self._lasting_processes = []
        with contextlib.suppress(WorkerBroken):
            self._lasting.close()

    def _pictures(self, request: dict) -> tuple[SideResult, SideResult]:
        self._end_lasting()
        found: list[SideResult] = []
        for number in range(2):
            try:
                found.append(picture_of(self.sides.take()[number], request))
            except WorkerBroken as error:
                found.append(SideResult(error=str(error)))
        return found[0], found[1]

    def check_import(self) -> Figure:
        """How long both sides take to import the libraries, in new interpreters, one after the other.

        Raises:
            WorkerBroken: a side cannot be imported.
        """
        pairs = []
        for number in range(IMPORT_PAIRS):
            self.announce(f"import: pair {number + 1} of {IMPORT_PAIRS}")
            times = {}
            for name in self.rng.sample(list(self.sides.pythons), 2):
                with started_worker(name, self.sides.pythons[name], self.plan.timeout_s) as worker:
                    times[name] = worker.import_s
            pairs.append((times["baseline"], times["candidate"]))
        return _once(pairs)


def _repeatable(pictures: PicturesFound, samples: Samples) -> PicturesFound:
    """The candidate must repeat itself where the baseline does."""
    if samples.unrepeatable != ("candidate",):
        return pictures
    verdict = Verdict.NOT_REPEATABLE
    message = f"{verdict}: calls of the candidate with the same seeds differ, those of the baseline do not"
    return pictures.model_copy(update={"verdict": verdict, "message": message})


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


def _once(pairs: Sequence[tuple[float, float]]) -> Figure:
    return _figure(decide_once(pairs), MIN_CHANGE_ONCE, pairs)


def _figure(decision: Decision, min_change: float, pairs: Sequence[tuple[float, float]]) -> Figure:
    """A decision with the medians of both sides and the ratio of each pair."""
    before, after = (statistics.median(side) for side in zip(*pairs, strict=True))
    return Figure.of(decision, min_change, before, after, [candidate / baseline for baseline, candidate in pairs])


def figures(samples: Samples, min_change: float) -> dict[str, Figure | str | None]:
    """What the samples say about each question."""
    calls = [call for pair in samples.calls for call in pair]
    decision = decide_memory(samples, min_change)
    memory = _figure(decision, min_change, samples.known_peaks) if decision else None
    return {
        "speed": Figure.of(
            decide(samples.log_ratios, min_change),
            min_change,
            statistics.median(sum(call.baseline) for call in calls),
            statistics.median(sum(call.candidate) for call in calls),
            [math.exp(ratio) for ratio in samples.log_ratios],
        ),
        "load": _once(samples.load_s),
        "first_call": _once(samples.first_call_s),
        "memory": memory,
        "memory_reason": None if memory else samples.memory_reason or "this system does not tell it",
    }


@contextlib.contextmanager
def started_check(
    pythons: dict[str, Path],
    plan: Plan,
    folder: RunFolder,
    suite_folder: Path,
    *,
    announce: Callable[[str], None],
    limits_of: Callable[[Case], Limits],
) -> Iterator[UpgradeCheck]:
    """A check of these two interpreters; all of its processes end with the block."""
    forks = plan.device == "cpu"
    with Sides(pythons, plan.timeout_s, forks=forks) as sides:
        yield UpgradeCheck(sides, plan, folder, suite_folder, announce, limits_of)
