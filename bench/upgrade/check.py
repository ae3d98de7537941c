"""The upgrade check of one case, and of the import: sides in, findings out. Knows nothing of pytest."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench.calls.pipelines import Checkpoint, find_checkpoint
from bench.calls.work import compare_work
from bench.pictures.grids import make_grid
from bench.pictures.limits import STRICT, default_limits
from bench.pictures.similarity import Limits
from bench.record.folder import RunFolder
from bench.suite.case import Case
from bench.upgrade.figures import figure_once, figures
from bench.upgrade.outcome import CaseFound, Figure, PicturesFound, WorkFound
from bench.upgrade.pairs import Plan, Samples, measure_until_decided
from bench.upgrade.pictures import compare_pictures, keep_pictures
from bench.upgrade.request import load_request
from bench.upgrade.side_results import PictureProcesses, SideResult
from bench.upgrade.workers import SIDES, Sides, WorkerBroken, started_worker
from bench.verdicts import Verdict

IMPORT_PAIRS = 5


@dataclass
class UpgradeCheck:
    """Checks cases on two sides.

    Attributes:
        sides: baseline and candidate, in this order.
        processes: of these sides.
        announce: told of what takes long.
        limits_of: how far the two pictures of a case may be apart.
    """

    sides: Sides
    processes: PictureProcesses
    plan: Plan
    folder: RunFolder
    suite_folder: Path
    announce: Callable[[str], None] = print
    limits_of: Callable[[Case], Limits] = lambda case: default_limits(case.settings.dtype, STRICT)
    rng: random.Random = field(default_factory=random.Random)
    _checkpoints: dict[str, Checkpoint] = field(default_factory=dict)

    def check(self, case: Case) -> CaseFound:
        """Pictures and work of both sides, then speed and memory if both have some; of a sentinel, the first two.

        Raises:
            PipelineError: there is no checkpoint of the case's model.
        """
        began = time.perf_counter()
        checkpoint = self._checkpoint(case)
        request = load_request(case, checkpoint, self.plan.device, self.plan.places.threads)
        baseline, candidate = (self.processes.result(number, request) for number in range(len(SIDES)))
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
        return figure_once(pairs)


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
    with Sides(pythons, plan.timeout_s, forks=forks) as sides, PictureProcesses(sides.take) as processes:
        yield UpgradeCheck(sides, processes, plan, folder, suite_folder, announce, limits_of)
