"""The question that a bisection asks about each side: is this case as it was under the first release?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bench.frozen import Frozen
from bench.history.release_pictures import Bench, Unusable, loss
from bench.history.search import BAD, GOOD, SKIP, Undecided
from bench.installs.installed import Environment
from bench.pictures.similarity import Limits
from bench.upgrade.imports import check_imports
from bench.upgrade.lockstep import places_for
from bench.upgrade.measuring import measure_until_decided
from bench.upgrade.outcome import Figure
from bench.upgrade.pictures import compare_pictures
from bench.upgrade.plan import ComparisonPlan
from bench.upgrade.request import case_of
from bench.upgrade.side_results import SideResult
from bench.upgrade.workers import SIDES, TIMEOUT_S, Sides, WorkerBroken
from bench.verdicts import Rank, Verdict

PICTURES, SPEED, USABLE = "pictures", "speed", "usable"


class Question(Frozen):
    """What is asked about each side.

    Attributes:
        case: its id.
        request: with which a worker loads the case; see ``load_request``.
        reference: the text of the side that the others are compared with.
        by: ``pictures`` (including whether the case raises), ``speed``, or ``usable``: whether the side can be
            installed and imported.
        limits: how far pictures may be apart.
        exact: whether pictures that differ within the limits count as changed.
        min_change: of speed, as a share.
        budget_s: for one comparison of speed, in seconds.
    """

    case: str
    request: dict[str, Any]
    limits: Limits
    reference: str
    by: Literal["pictures", "speed", "usable"]
    exact: bool
    min_change: float
    budget_s: float
    device: str
    environments: Path


class Answer(Frozen):
    """The answer for one side.

    Attributes:
        answer: ``good`` (as under the reference), ``bad`` or ``skip``.
        message: why, as a sentence.
        figures: of pictures.
        speed: against the reference.
    """

    answer: str
    message: str
    ssim_worst_tile: float | None = None
    max_diff: int | None = None
    limits: Limits | None = None
    speed: Figure | None = None


@dataclass
class Judge:
    """Answers the question for each side; the reference is looked at once.

    Attributes:
        announce: called with lines on the progress.
        looked: what is known about each side.
    """

    question: Question
    announce: Callable[[str], None]
    looked: dict[str, SideResult | Unusable] = field(default_factory=dict)

    @property
    def bench(self) -> Bench:
        on_cpu = self.question.device == "cpu"
        return Bench(self.question.environments, forks=on_cpu, announce=lambda line: self.announce(f"  {line}"))

    def look(self, side: str) -> SideResult | Unusable:
        """The result of the case under a side, or why the side cannot be used; each side runs once."""
        if side not in self.looked:
            request = {self.question.case: self.question.request}
            try:
                self.looked[side] = self.bench.pictures(side, request)[1][self.question.case]
            except Unusable as error:
                self.looked[side] = error
        return self.looked[side]

    def answer(self, side: str) -> Answer:
        """Raises:
        Undecided: the budget is too small to compare speeds, or nothing is known about the reference.
        """
        if side == self.question.reference:
            return Answer(answer=GOOD, message="the reference")
        if self.question.by == SPEED:
            return self._by_speed(side)
        before, now = self.look(self.question.reference), self.look(side)
        if reason := self.loss(before):
            raise Undecided(f"nothing is known about '{self.question.reference}': {reason}")
        if reason := self.loss(now):
            return Answer(answer=SKIP, message=f"skipped: {reason}")
        if self.question.by == USABLE:
            same = isinstance(before, Unusable) == isinstance(now, Unusable)
            message = f"{now.status}: {now}" if isinstance(now, Unusable) else "can be installed and imported"
            return Answer(answer=GOOD if same else BAD, message=message)
        if isinstance(before, Unusable):
            raise Undecided(f"'{self.question.reference}' is {before.status}: {before}")
        if isinstance(now, Unusable):
            return Answer(answer=SKIP, message=f"{now.status}: {now}")
        return self._by_pictures(before, now)

    def loss(self, found: SideResult | Unusable) -> str | None:
        """Why nothing is known about a side; it is usable even if its process was lost after the import."""
        return None if self.question.by == USABLE and isinstance(found, SideResult) else loss(found)

    def _by_pictures(self, before: SideResult, now: SideResult) -> Answer:
        found = compare_pictures(before, now, self.question.limits)
        worst_good = Rank.AS_BEFORE if self.question.exact else Rank.NO_WORSE
        return Answer(
            answer=GOOD if Verdict(found.verdict).rank <= worst_good else BAD,
            message=found.message,
            ssim_worst_tile=found.ssim_worst_tile,
            max_diff=found.max_diff,
            limits=found.limits,
        )

    def _by_speed(self, side: str) -> Answer:
        question = self.question
        try:
            environments = [self.bench.environment(text) for text in (question.reference, side)]  # in use meanwhile
            figure = self._measured(environments)
        except Unusable as error:
            return Answer(answer=SKIP, message=f"{error.status}: {error}")
        except WorkerBroken as error:
            if error.side == SIDES[0]:
                raise Undecided(f"'{question.reference}' has no speed to compare with: {error}") from None
            return Answer(answer=SKIP, message=f"has no speed: {error}")
        message = f"{figure.verdict} {figure.ratio - 1:+.1%} ({figure.interval}, {figure.pairs} starts)"
        if figure.verdict == Verdict.CANNOT_TELL:
            more = f"about {figure.more_pairs} more" if figure.more_pairs else "too many"
            raise Undecided(f"whether '{side}' is slower: {message}; starts needed: {more} (--budget)")
        answer = BAD if Verdict(figure.verdict).is_worse else GOOD
        return Answer(answer=answer, message=message, speed=figure)

    def _measured(self, environments: Sequence[Environment]) -> Figure:
        """Raises:
        WorkerBroken: a side failed while it was measured; says which.
        """
        question = self.question
        device_type = question.device.partition(":")[0]
        plan = ComparisonPlan(
            places=places_for(device_type),
            device=question.device,
            min_change=question.min_change,
            budget_s=question.budget_s,
        )
        case = case_of(question.request)
        request = question.request | {"threads": plan.places.threads}
        of_side = dict(zip(SIDES, environments, strict=True))
        pythons = {name: environment.python for name, environment in of_side.items()}
        with Sides(pythons, TIMEOUT_S, forks=device_type == "cpu") as sides:
            check_imports(of_side, {worker.name: worker.imported for worker in sides.take()})
            measured = measure_until_decided(
                sides, [case], {case.id: (request, request)}, plan, announce=lambda line: self.announce(f"  {line}")
            )
        if case.id in measured.given_up:
            side, reason = measured.given_up[case.id]
            raise WorkerBroken(reason, alive=False, side=side)
        return measured.speeds.cases[case.id]
