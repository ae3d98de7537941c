"""The life cycle of a golden: missing, stale, damaged, changed, accepted."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.calls.device import Device
from bench.calls.raised import RaisedError
from bench.calls.work import LESS_WORK, MORE_WORK, Work, compare_work
from bench.paths import shown
from bench.pictures.compared import ComparedWork, Pictures
from bench.pictures.limits import STRICT, Tier, choose_limits, default_limits, looser, tier_of
from bench.pictures.similarity import CHANGED, IDENTICAL, WITHIN_LIMITS, Incomparable, Limits, Similarity, compare
from bench.pictures.store import (
    EXACT,
    REFERENCE,
    TYPE,
    Golden,
    GoldenError,
    Origin,
    Place,
    find_golden,
    golden_place,
    read_golden,
    write_golden,
)
from bench.suite.case import Case

MISSING, STALE, BROKEN = "missing", "stale", "broken"
NOT_COMPARED, WORK_MISSING = "not compared", "work missing"
RAISES_NOW, WORKS_NOW, RAISES_ELSE, RAISES_AS_BEFORE = (
    "raises now",
    "works now",
    "raises something else",
    "raises as before",
)
PASSED = frozenset({IDENTICAL, WITHIN_LIMITS, RAISES_AS_BEFORE})


@dataclass(frozen=True)
class Check:
    """How a case compares with its golden.

    Attributes:
        work: ``None`` where nothing was counted.
        golden: as it was found; ``None`` if there is none that can be read.
        verdict: of the case: that of the pictures unless these pass and the work does not.
    """

    pictures: Pictures
    work: ComparedWork | None
    golden: Golden | None
    verdict: str


def _what_changed(now: Origin, then: Origin) -> list[str]:
    """Why a golden is stale: its recipe is no longer the case's."""
    changes = [f"{key} was {before!r} and is {after!r}" for key, before, after in _changes(then.settings, now.settings)]
    if now.weights != then.weights:
        changes.append(f"weights were {then.weights[:12]} and are {now.weights[:12]}")
    return changes


def _changes(then: dict[str, Any], now: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Settings that differ, each with both values; one that is missing is ``None``."""
    pairs = ((key, then.get(key), now.get(key)) for key in sorted({*then, *now}))
    return [(key, before, after) for key, before, after in pairs if before != after]


def _tier(golden: Golden, device: Device) -> Tier:
    made_on = golden.origin.device
    return tier_of(made_on["type"], made_on["name"], device)


def _limits(golden: Golden, case: Case, device: Device) -> Limits | None:
    """``None`` where no limits can serve."""
    limits = choose_limits(golden.origin.limits, case.settings.dtype, _tier(golden, device), device)
    plain = _plain_of(golden)
    if plain is None or limits is None:
        return limits
    of_plain = _limits(plain, case, device)
    return looser(limits, of_plain) if of_plain else None


def _why_not_compared(golden: Golden) -> str:
    """Why this golden has no limits on another type of device."""
    limits = golden.origin.limits
    if limits and limits.unstable:
        return limits.unstable
    plain = _plain_of(golden)
    return _why_not_compared(plain) if plain else ""


def _plain_of(golden: Golden) -> Golden | None:
    """The golden of the case that this one must be like: what may move that one may move this one as much."""
    return read_golden(Place(golden.place.picture, golden.origin.like)) if golden.origin.like else None


def limits_side_by_side(root: Path, case: Case, device: Device) -> Limits:
    """How far two runs of a case on this very device may be apart.

    Those measured for the strict tier of its golden if that is a golden of this type of device and of this recipe, else
    the strict default. On which machine they were measured does not matter: both runs are on one machine here too.
    """
    place = find_golden(root, case, device)
    if place:
        with contextlib.suppress(GoldenError):
            golden = read_golden(place)
            plain = _plain_of(golden)
            same = golden.origin.device["type"] == device.type
            if same and not _changes(golden.origin.settings, case.settings.described()):
                origins = [one.origin for one in (golden, plain) if one]
                measured = [one.limits.strict for one in origins if one.limits]
                if len(measured) == len(origins):
                    return functools.reduce(looser, measured)
    return default_limits(case.settings.dtype, STRICT)


def _pictures(
    verdict: str,
    message: str,
    place: Place | None = None,
    similarity: Similarity | None = None,
    limits: Limits | None = None,
    *,
    tier: Tier | None = None,
) -> Pictures:
    golden = str(place) if place else None
    return Pictures.of(similarity, verdict=verdict, message=message, golden=golden, limits=limits, tier=tier)


def judge(
    case: Case, images: list[Image.Image], origin: Origin, root: Path, device: Device
) -> tuple[Pictures, Golden | None]:
    """Compares the images of a case with its golden; reads only."""
    place = find_golden(root, case, device)
    if place is None:
        wanted = golden_place(root, case, device, REFERENCE)
        what = f"raises {origin.error.sentence}; that" if origin.error else "look at the grid and"
        return _pictures(MISSING, f"no golden at {wanted}; {what} can be accepted with --golden-update"), None
    try:
        golden = read_golden(place)
    except GoldenError as error:
        return _pictures(BROKEN, str(error), place), None
    changes = _what_changed(origin, golden.origin)
    if origin.error or golden.origin.error:
        verdict, message = _verdict_of_errors(origin.error, golden.origin.error, case.settings.issue)
        if changes:
            verdict, message = STALE, f"{place} is stale: {'; '.join(changes)}"
        return _pictures(verdict, message, place), golden
    try:
        similarity = compare(images, golden.tiles)
    except Incomparable as error:
        verdict = STALE if changes else BROKEN
        message = f"{place} cannot be compared: {'; '.join([*changes, str(error)])}"
        return _pictures(verdict, message, place), golden
    limits, tier = _limits(golden, case, device), _tier(golden, device)
    if changes:
        return _pictures(STALE, f"{place} is stale: {'; '.join(changes)}", place, similarity, limits, tier=tier), golden
    if limits is None:
        message = (
            f"{NOT_COMPARED}: its golden was made on {golden.origin.device['type']}, and at the rounding of another "
            f"type of device {_why_not_compared(golden)}; accept a golden of this device with --golden-update"
        )
        return _pictures(NOT_COMPARED, message, place, similarity, tier=tier), golden
    verdict = similarity.verdict(limits)
    if verdict == CHANGED:
        whose = f"{golden.origin.like}, which it must be like" if golden.origin.like else str(place)
        message = f"differs from {whose}: {', '.join(similarity.excesses(limits))}"
    else:
        score = f"SSIM of the worst tile {similarity.ssim_worst_tile:.5f}"
        message = f"{verdict}: {score}, largest difference {similarity.max_diff}"
    return _pictures(verdict, message, place, similarity, limits, tier=tier), golden


def _verdict_of_errors(now: RaisedError | None, then: RaisedError | None, issue: str | None) -> tuple[str, str]:
    """At least one of both is there."""
    known = f" (known: {issue})" if issue else ""
    if now == then and now:
        return RAISES_AS_BEFORE, f"{RAISES_AS_BEFORE}: {now.sentence}{known}"
    if now is None and then:
        return WORKS_NOW, f"{WORKS_NOW}; it raised {then.sentence}{known}; accept its pictures with --golden-update"
    assert now
    before = f" instead of {then.sentence}" if then else ""
    return RAISES_ELSE if then else RAISES_NOW, f"{RAISES_ELSE if then else RAISES_NOW}: {now.sentence}{before}{known}"


def judge_work(origin: Origin, golden: Golden | None) -> ComparedWork | None:
    """Compares the work that was counted now with the golden's; ``None`` where nothing was counted.

    Work is compared with that of the same recipe on the same type of device alone: copies to and from a device are
    work too.
    """
    if origin.work is None:
        return None
    verdict, message = _verdict_of_work(origin, origin.work, golden)
    return ComparedWork(verdict=verdict, message=message, counts=origin.work)


def _verdict_of_work(origin: Origin, counts: dict[str, Any], golden: Golden | None) -> tuple[str, str]:
    if golden is None:
        return NOT_COMPARED, f"{NOT_COMPARED}: there is no golden"
    then = golden.origin
    if then.device["type"] != origin.device["type"]:
        types = f"{golden.place} was made on {then.device['type']}, this run is on {origin.device['type']}"
        return NOT_COMPARED, f"{NOT_COMPARED}: {types}"
    if _what_changed(origin, then):
        return NOT_COMPARED, f"{NOT_COMPARED}: {golden.place} is stale"
    if then.work is None:
        return MISSING, f"{shown(golden.place.origin)} holds no counted work; add it with --golden-update"
    found = compare_work(Work.from_json(counts), Work.from_json(then.work))
    return found.verdict, found.message


def _verdict_of_case(pictures: Pictures, work: ComparedWork | None, accepted: bool = False) -> str:
    """What was accepted is no pass: less work is then reported as more work always is."""
    if work is None or pictures.verdict not in PASSED:
        return pictures.verdict
    if work.verdict == MISSING:
        return WORK_MISSING
    if work.verdict == MORE_WORK or (accepted and work.verdict == LESS_WORK):
        return work.verdict
    return pictures.verdict


def check_golden(
    case: Case,
    images: list[Image.Image],
    origin: Origin,
    root: Path,
    device: Device,
    *,
    update: str | None = None,
    announce: Callable[[str], None] = print,
) -> Check:
    """The life cycle of a golden: missing, stale, damaged, changed, accepted.

    Args:
        origin: with the counted work, if that is to be compared too.
        update: ``None`` to write nothing; else write where the pictures are not identical or the work is not the
            same, as ``auto``, ``reference``, ``type`` or ``device``. ``auto`` is the reference where there is none or
            it is of this device type, else the device type's own. What was written keeps its verdict from before, so
            that no run passes by what it wrote.
        announce: told each file that was written.

    Returns:
        The comparison with the golden as it was found.

    Raises:
        GoldenError: the golden was to be written and could not be.
    """
    pictures, golden = judge(case, images, origin, root, device)
    work = judge_work(origin, golden)
    same = {IDENTICAL, RAISES_AS_BEFORE} | ({WITHIN_LIMITS} if origin.like else set())
    other_work = work is not None and work.verdict in (MORE_WORK, LESS_WORK, MISSING)
    if update is None or (pictures.verdict in same and not other_work):
        return Check(pictures, work, golden, _verdict_of_case(pictures, work))
    if origin.like and pictures.verdict == CHANGED:
        return Check(pictures, work, golden, pictures.verdict)
    place = golden_place(root, case, device, _level_to_write(update, case, root, device))
    before = _before(pictures, work if other_work else None)
    limits = golden.origin.limits if golden else None
    kept = limits if pictures.verdict == IDENTICAL else None
    write_golden(place, images, origin.model_copy(update={"limits": kept}))
    again = "; measure its limits again with --golden-calibrate" if limits and not kept else ""
    announce(f"wrote {place} ({before}){again}")
    message = f"accepted as {place} ({before}); run again without --golden-update to check it"
    verdict = CHANGED if pictures.verdict == WITHIN_LIMITS and not origin.like else pictures.verdict
    pictures = pictures.model_copy(update={"message": message, "verdict": verdict})
    if work and other_work:
        work = work.model_copy(update={"message": message})
    return Check(pictures, work, golden, _verdict_of_case(pictures, work, accepted=True))


def _before(pictures: Pictures, work: ComparedWork | None) -> str:
    """What was found in place of what is accepted; the work only where it was other."""
    if pictures.verdict == IDENTICAL:
        told = ["same pictures"]
    elif pictures.ssim_worst_tile is None:
        told = [pictures.verdict, "new"]
    else:
        told = [pictures.verdict, f"SSIM was {pictures.ssim_worst_tile:.5f}"]
    if work:
        changes = "none until now" if work.verdict == MISSING else work.message.removeprefix(f"{work.verdict}: ")
        told.append(f"work: {changes}")
    return ", ".join(told)


def _level_to_write(update: str, case: Case, root: Path, device: Device) -> str:
    if update != "auto":
        return update
    reference = golden_place(root, case, device, REFERENCE)
    found = find_golden(root, case, device)
    for level in (EXACT, TYPE):
        if found == golden_place(root, case, device, level):
            return level
    with contextlib.suppress(GoldenError):
        if reference.exists() and read_golden(reference).origin.device["type"] != device.type:
            return TYPE
    return REFERENCE


def same_pixels(one: list[Image.Image], other: list[Image.Image]) -> bool:
    return len(one) == len(other) and all(
        np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(one, other, strict=True)
    )
