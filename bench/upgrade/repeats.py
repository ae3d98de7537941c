"""Does a side draw the same pictures in every call? What does not repeat itself cannot be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.pictures.similarity import Incomparable, Limits, compare
from bench.upgrade.lockstep import Images
from bench.upgrade.outcome import CaseFound
from bench.upgrade.workers import SIDES
from bench.verdicts import Rank, Verdict


@dataclass(frozen=True)
class _Expected:
    images: tuple[Images, Images]
    limits: Limits


@dataclass
class Repeats:
    """The pictures of each case's first call, and how later calls of the same side differed from them."""

    _expected: dict[str, _Expected] = field(default_factory=dict)
    _odd: dict[str, dict[str, tuple[Verdict, str]]] = field(default_factory=dict)

    def expect(self, case: str, images: tuple[Images, Images], limits: Limits) -> None:
        self._expected[case] = _Expected(images, limits)

    def note(self, case: str, images: tuple[Images, Images]) -> None:
        """Notes the images of a call that differ from those of the first one; of a side without any, none differ."""
        for side, now, first in zip(SIDES, images, self._first(case), strict=True):
            if now:
                verdict, what = self._difference(case, first, now)
                known = self._odd.setdefault(case, {}).get(side)
                if not known or verdict.rank > known[0].rank:
                    self._odd[case][side] = verdict, what

    def _first(self, case: str) -> Sequence[Images]:
        return self._expected[case].images if case in self._expected else ((), ())

    def _difference(self, case: str, first: Images, now: Images) -> tuple[Verdict, str]:
        if not first:
            return Verdict.NOT_COMPARED, "the pictures of the first call are not at hand any more"
        limits = self._expected[case].limits
        try:
            similarity = compare(list(now), list(first))
        except Incomparable as error:
            return Verdict.CHANGED, str(error)
        verdict = similarity.verdict(limits)
        if verdict == Verdict.CHANGED:
            return verdict, ", ".join(similarity.excesses(limits))
        return Verdict.WITHIN_LIMITS, f"largest difference {similarity.max_diff}, within the limits"

    def sentences(self, case: str) -> tuple[str, ...]:
        """A sentence for each side whose calls differ."""
        odd = self._odd.get(case, {})
        return tuple(f"the {side}'s pictures differ from call to call: {what}" for side, (_, what) in odd.items())

    def judged(self, found: CaseFound) -> CaseFound:
        """The case as *not repeatable* if its candidate differs from call to call beyond the limits, which its baseline
        does not."""
        baseline, candidate = SIDES
        changed = {side for side, (verdict, _) in self._odd.get(found.case, {}).items() if verdict.rank >= Rank.WRONG}
        if candidate not in changed or baseline in changed:
            return found
        verdict = Verdict.NOT_REPEATABLE
        message = f"{verdict}: {self.sentences(found.case)[-1]}; the baseline's do not"
        pictures = found.pictures.model_copy(update={"verdict": verdict, "message": message})
        return found.model_copy(update={"pictures": pictures})
