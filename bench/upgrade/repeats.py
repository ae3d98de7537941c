"""Does a side draw the same pictures in every call? What does not repeat itself cannot be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.pictures.similarity import Incomparable, Limits, compare
from bench.upgrade.lockstep import Images
from bench.upgrade.outcome import CaseFound
from bench.upgrade.workers import SIDES
from bench.verdicts import Verdict


@dataclass(frozen=True)
class _Expected:
    images: tuple[Images, Images]
    limits: Limits


@dataclass
class Repeats:
    """The pictures of each case's first call, and how later calls of the same side differed from them."""

    _expected: dict[str, _Expected] = field(default_factory=dict)
    _odd: dict[str, dict[str, str]] = field(default_factory=dict)

    def expect(self, case: str, images: tuple[Images, Images], limits: Limits) -> None:
        self._expected[case] = _Expected(images, limits)

    def note(self, case: str, images: tuple[Images, Images]) -> None:
        """Notes the images of a call that are not those of the first one beyond the limits.

        With another number of threads, or other places in memory, a picture may differ by rounding.

        Args:
            images: of each side; none where they are the same.
        """
        for side, now, first in zip(SIDES, images, self._first(case), strict=True):
            if now:
                what = self._difference(case, first, now)
                if what:
                    self._odd.setdefault(case, {})[side] = what

    def _first(self, case: str) -> Sequence[Images]:
        return self._expected[case].images if case in self._expected else ((), ())

    def _difference(self, case: str, first: Images, now: Images) -> str:
        """How the pictures differ beyond the limits; empty where they do not, or where the first ones are unknown."""
        if not first:
            return ""
        limits = self._expected[case].limits
        try:
            similarity = compare(list(now), list(first))
        except Incomparable as error:
            return str(error)
        return ", ".join(similarity.excesses(limits)) if similarity.verdict(limits) == Verdict.CHANGED else ""

    def sentences(self, case: str) -> tuple[str, ...]:
        """A sentence for each side whose calls differ."""
        odd = self._odd.get(case, {})
        return tuple(f"the {side}'s pictures differ from call to call: {what}" for side, what in odd.items())

    def judged(self, found: CaseFound) -> CaseFound:
        """The case as *not repeatable* if its candidate differs from call to call beyond the limits, which its baseline
        does not."""
        _, candidate = SIDES
        if set(self._odd.get(found.case, ())) != {candidate}:
            return found
        verdict = Verdict.NOT_REPEATABLE
        message = f"{verdict}: {self.sentences(found.case)[-1]}; the baseline's do not"
        pictures = found.pictures.model_copy(update={"verdict": verdict, "message": message})
        return found.model_copy(update={"pictures": pictures})
