"""The candidate's pictures against the baseline's."""

from __future__ import annotations

from bench.calls.raised import RaisedError
from bench.pictures.grids import make_grid
from bench.pictures.similarity import Incomparable, Limits, compare, difference_picture
from bench.record.folder import RunFolder
from bench.upgrade.outcome import PicturesFound
from bench.upgrade.side_results import SideResult
from bench.verdicts import Verdict, verdict_of_errors

BEFORE, AFTER = "before", "after"
# A worker's error begins with its type; these mean that there are no sound pictures, however it came about.
_NO_PICTURES = ("BrokenPicture:", "its process ")
_ON_BOTH_SIDES = " (on both sides; "


def compare_pictures(baseline: SideResult, candidate: SideResult, limits: Limits) -> PicturesFound:
    """The verdict on both sides' pictures of one case; a side without pictures is a verdict too."""
    if baseline.error or candidate.error:
        return _without_pictures(baseline.error, candidate.error)
    try:
        similarity = compare(list(candidate.images), list(baseline.images))
    except Incomparable as error:
        message = f"{Verdict.BROKEN}: the candidate's pictures are others: {error}"
        return PicturesFound(verdict=Verdict.BROKEN, message=message)
    verdict = similarity.verdict(limits)
    score = f"SSIM of the worst tile {similarity.ssim_worst_tile:.5f}, largest difference {similarity.max_diff}"
    why = {
        Verdict.IDENTICAL: "",
        Verdict.WITHIN_LIMITS: f": {score}",
        Verdict.CHANGED: f": {', '.join(similarity.excesses(limits))}",
    }[verdict]
    return PicturesFound.of(similarity, verdict=verdict, message=f"{verdict}{why}", limits=limits)


def _without_pictures(baseline: str | None, candidate: str | None) -> PicturesFound:
    verdict = verdict_of_errors(baseline, candidate)
    if verdict is Verdict.RAISES_NOW and candidate and candidate.startswith(_NO_PICTURES):
        verdict = Verdict.BROKEN
    message = {
        Verdict.RAISES_AS_BEFORE: f"raises on both sides: {baseline}",
        Verdict.RAISES_ELSE: f"{verdict}: {candidate} (baseline: {baseline})",
        Verdict.WORKS_NOW: f"{verdict}; the baseline raises: {baseline}",
    }.get(verdict, f"{verdict}: {candidate}")
    return PicturesFound(verdict=verdict, message=message)


def only_expected_errors(found: PicturesFound, error: str | None, expected: RaisedError | None) -> PicturesFound:
    """Both sides may raise only what the golden of the case holds; of anything else, nothing was compared.

    Args:
        error: what the baseline raises.
    """
    if found.verdict != Verdict.RAISES_AS_BEFORE or (error and expected and error.startswith(expected.sentence)):
        return found
    verdict = Verdict.NOTHING_COMPARED
    golden = f"another error, {expected.sentence}" if expected else "no error"
    return PicturesFound(verdict=verdict, message=f"{verdict}: {error}{_ON_BOTH_SIDES}its golden holds {golden})")


def error_of(found: PicturesFound) -> str:
    """Why the candidate has no pictures, without the verdict and without what the baseline raises."""
    text = found.message.removeprefix(f"{found.verdict}: ").removeprefix(f"{found.verdict} ")
    ends = {Verdict.RAISES_ELSE: " (baseline: ", Verdict.NOTHING_COMPARED: _ON_BOTH_SIDES}
    return text.partition(ends.get(Verdict(found.verdict), "\0"))[0]


def keep_pictures(
    folder: RunFolder, name: str, before: SideResult, after: SideResult, roles: tuple[str, str] = (BEFORE, AFTER)
) -> None:
    """Writes ``grids/<name>.<role>.png`` of both and, where they can be compared, ``.difference.png``."""
    for role, side in zip(roles, (before, after), strict=True):
        if side.images:
            folder.save_picture(name, make_grid(side.images, side.images[0].size), role)
    sizes = [[image.size for image in side.images] for side in (before, after)]
    if before.images and sizes[0] == sizes[1]:
        folder.save_picture(name, difference_picture(list(after.images), list(before.images)), "difference")
