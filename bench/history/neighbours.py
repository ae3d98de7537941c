"""Compares each case under a release with the same case under earlier releases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.calls.work_verdict import compare_work
from bench.history.timeline_outcome import CaseInRelease
from bench.pictures.similarity import Limits
from bench.upgrade.pictures import compare_pictures
from bench.upgrade.side_results import SideResult
from bench.verdicts import Verdict


@dataclass(frozen=True)
class Known:
    """The result of a case under a release."""

    release: str
    result: SideResult


SCORES = ("ssim_worst_tile", "ssim_tiles", "ssim_grid", "max_diff", "changed_share", "mean_diff", "limits")


@dataclass
class Neighbours:
    """Compares the releases that ran, oldest first.

    Attributes:
        limits: of each case.
    """

    limits: Mapping[str, Limits]
    _ran: dict[str, Known] = field(default_factory=dict)
    _pictured: dict[str, Known] = field(default_factory=dict)

    def before(self, case: str) -> Known | None:
        """The last release in which the case made pictures."""
        return self._pictured.get(case)

    def compare(self, results: Mapping[str, SideResult]) -> tuple[CaseInRelease, ...]:
        """Compares the cases of a release with those before it; changes nothing."""
        return tuple(
            compare_case(case, result, self._ran.get(case), self._pictured.get(case), self.limits[case])
            for case, result in results.items()
        )

    def remember(self, release: str, results: Mapping[str, SideResult]) -> None:
        """Makes this the release that the next one is compared with."""
        for case, result in results.items():
            self._ran[case] = Known(release, result)
            if not result.error:
                self._pictured[case] = Known(release, result)


def compare_case(
    case: str, result: SideResult, before: Known | None, pictured: Known | None, limits: Limits
) -> CaseInRelease:
    """Compares one case with the release before.

    Args:
        before: the last release that ran; ``None`` for the first.
        pictured: the last release in which the case made pictures; those of a case that works again are compared with
            it.
    """
    if before is None:
        return CaseInRelease(
            case=case,
            verdict=Verdict.RAISES if result.error else Verdict.FIRST,
            message=f"{Verdict.RAISES}: {result.error}" if result.error else "nothing to compare with",
            error=result.error,
            unet_calls=result.unet_calls,
        )
    found = compare_pictures(before.result, result, limits)
    verdict, message, scores = found.verdict, found.message, found
    if verdict == Verdict.WORKS_NOW and pictured:
        scores = compare_pictures(pictured.result, result, limits)
        same = Verdict(scores.verdict).passes
        message += f"; its pictures are {'still' if same else 'not'} those of {pictured.release} ({scores.message})"
    against = pictured if pictured and not result.error else None
    work = compare_work(result.work, against.result.work) if against and result.work and against.result.work else None
    return CaseInRelease(
        case=case,
        verdict=verdict,
        message=message,
        compared_with=before.release,
        pictures_compared_with=against.release if against else None,
        **{name: getattr(scores, name) for name in SCORES},
        error=result.error,
        new_warnings=tuple(text for text in result.warnings if text not in against.result.warnings) if against else (),
        unet_calls=result.unet_calls,
        unet_calls_before=against.result.unet_calls if against else None,
        work=work.verdict if work else None,
        work_message=work.message if work else None,
    )
