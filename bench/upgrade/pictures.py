"""The candidate's pictures against the baseline's."""

from __future__ import annotations

from bench.pictures.check import RAISES_AS_BEFORE, RAISES_ELSE, RAISES_NOW, WORKS_NOW
from bench.pictures.grids import make_grid
from bench.pictures.similarity import (
    CHANGED,
    IDENTICAL,
    WITHIN_LIMITS,
    Incomparable,
    Limits,
    compare,
    difference_picture,
)
from bench.record.folder import RunFolder
from bench.upgrade.comparison import SideResult
from bench.upgrade.outcome import PicturesFound

BROKEN = "broken"
BEFORE, AFTER = "before", "after"
# A worker's error begins with its type; these mean that there are no sound pictures, however it came about.
_NO_PICTURES = ("BrokenPicture:", "its process ")


def compare_pictures(baseline: SideResult, candidate: SideResult, limits: Limits) -> PicturesFound:
    """The verdict on both sides' pictures of one case; a side without pictures is a verdict too."""
    if baseline.error or candidate.error:
        return _without_pictures(baseline.error, candidate.error)
    try:
        similarity = compare(list(candidate.images), list(baseline.images))
    except Incomparable as error:
        return PicturesFound(verdict=BROKEN, message=f"broken: the candidate's pictures are others: {error}")
    verdict = similarity.verdict(limits)
    score = f"SSIM of the worst tile {similarity.ssim_worst_tile:.5f}, largest difference {similarity.max_diff}"
    message = {
        IDENTICAL: "identical",
        WITHIN_LIMITS: f"within limits: {score}",
        CHANGED: f"changed: {', '.join(similarity.excesses(limits))}",
    }[verdict]
    return PicturesFound.of(similarity, verdict=verdict, message=message, limits=limits)


def _without_pictures(baseline: str | None, candidate: str | None) -> PicturesFound:
    if baseline and candidate:
        if baseline == candidate:
            return PicturesFound(verdict=RAISES_AS_BEFORE, message=f"raises on both sides: {baseline}")
        message = f"raises something else: {candidate} (baseline: {baseline})"
        return PicturesFound(verdict=RAISES_ELSE, message=message)
    if baseline:
        return PicturesFound(verdict=WORKS_NOW, message=f"works now; the baseline raises: {baseline}")
    assert candidate is not None
    verdict = BROKEN if candidate.startswith(_NO_PICTURES) else RAISES_NOW
    return PicturesFound(verdict=verdict, message=f"{verdict}: {candidate}")


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
