"""The life cycle of a golden: missing, stale, damaged, changed, accepted."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.calls.device import Device
from bench.calls.raised import RaisedError
from bench.calls.work import Work
from bench.calls.work_verdict import compare_work
from bench.console import shown
from bench.pictures.compared import ComparedWork, Pictures
from bench.pictures.limits import STRICT, CalibratedLimits, Tier, choose_limits, default_limits, looser, tier_of
from bench.pictures.outcomes import Outcome
from bench.pictures.similarity import Incomparable, Limits, Similarity, compare
from bench.pictures.store import (
    EXACT,
    REFERENCE,
    TYPE,
    Golden,
    GoldenError,
    GoldenPlace,
    Origin,
    find_golden,
    golden_place,
    maker_of,
    read_golden,
    remove_outcome,
    write_golden,
)
from bench.suite.case import Case
from bench.verdicts import Rank, Verdict, verdict_of_errors


@dataclass(frozen=True)
class Check:
    """How a case compares with its golden.

    Attributes:
        work: ``None`` where nothing was counted.
        golden: as it was found; ``None`` if no readable one exists.
        verdict: of the case: that of the pictures, unless they pass and the work does not.
    """

    pictures: Pictures
    work: ComparedWork | None
    golden: Golden | None
    verdict: Verdict


def _what_changed(now: Origin, then: Origin) -> list[str]:
    """Why a golden is stale: its recipe is no longer the case's."""
    changes = [f"{key} was {before!r} and is {after!r}" for key, before, after in _changes(then.settings, now.settings)]
    if now.weights != then.weights:
        changes.append(f"weights were {then.weights[:12]} and are {now.weights[:12]}")
    return changes


def _changes(then: dict[str, Any], now: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Settings that differ, each with both values; a missing value is ``None``."""
    pairs = ((key, then.get(key), now.get(key)) for key in sorted({*then, *now}))
    return [(key, before, after) for key, before, after in pairs if before != after]


def _tier(golden: Golden, device: Device) -> Tier:
    return tier_of(golden.made_on["type"], golden.made_on["name"], device)


def _measured_limits(golden: Golden) -> CalibratedLimits | None:
    """Those of a golden itself, unless they are about pictures of another type of device than it has now."""
    return golden.origin.limits if golden.origin.device["type"] == golden.made_on["type"] else None


def _limits(golden: Golden, case: Case, device: Device) -> Limits | None:
    """``None`` if no useful limits exist."""
    limits = choose_limits(_measured_limits(golden), case.settings.dtype, _tier(golden, device), device)
    plain = _plain_of(golden)
    if plain is None or limits is None:
        return limits
    of_plain = _limits(plain, case, device)
    return looser(limits, of_plain) if of_plain else None


def _why_not_compared(golden: Golden) -> str:
    """Why this golden has no limits on another type of device."""
    limits = _measured_limits(golden)
    if limits and limits.unstable:
        return limits.unstable
    plain = _plain_of(golden)
    return _why_not_compared(plain) if plain else ""


def _plain_of(golden: Golden) -> Golden | None:
    """The golden of the case that this one must match: what moves that case may move this one as far."""
    plain = golden.plain
    return plain and (plain.usual or plain)


def limits_side_by_side(root: Path, case: Case, device: Device) -> Limits:
    """How far apart two runs of a case on this device may be.

    The strict limits measured for its golden, if that was made on this type of device with the same settings, else the
    strict defaults. They may come from another machine: there too, both runs were on one machine.
    """
    place = find_golden(root, case, device)
    if place:
        with contextlib.suppress(GoldenError):
            golden = read_golden(place)
            plain = _plain_of(golden)
            origins = [one.origin for one in (golden, plain) if one]
            same = all(origin.device["type"] == device.type for origin in origins)
            if same and not _changes(golden.origin.settings, case.settings.described()):
                measured = [one.limits.strict for one in origins if one.limits]
                if len(measured) == len(origins):
                    return functools.reduce(looser, measured)
    return default_limits(case.settings.dtype, STRICT)


def expected_error(root: Path, case: Case, device: Device, libraries: Mapping[str, str | None]) -> RaisedError | None:
    """What the golden of a case says it raises with these libraries; ``None`` if it is to give pictures, or unknown."""
    place = find_golden(root, case, device)
    with contextlib.suppress(GoldenError):
        return read_golden(place, libraries).error if place else None
    return None


def _pictures(
    verdict: Verdict,
    message: str,
    place: GoldenPlace | None = None,
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
    """Compares the images of a case with its golden, or with the known difference that applies; writes nothing."""
    pictures, golden, _ = _judge(case, images, origin, root, device)
    return pictures, golden


def _judge(
    case: Case, images: list[Image.Image], origin: Origin, root: Path, device: Device
) -> tuple[Pictures, Golden | None, bool]:
    """As ``judge``, and whether the known difference that applies no longer appears."""
    place = find_golden(root, case, device)
    if place is None:
        wanted = golden_place(root, case, device, REFERENCE)
        what = f"raises {origin.error.sentence}; accept that" if origin.error else "look at the grid and accept it"
        message = f"no golden at {wanted}; {what} with --golden-update"
        return _pictures(Verdict.MISSING, message), None, False
    try:
        golden = read_golden(place, origin.libraries)
    except GoldenError as error:
        return _pictures(Verdict.BROKEN, str(error), place), None, False
    found = compare_with_golden(case, images, origin, golden, device)
    if golden.known is None or found.verdict == Verdict.STALE:
        return found, golden, False
    with_usual = compare_with_golden(case, images, origin, golden.usual, device) if golden.usual else None
    gone = with_usual is not None and Verdict(with_usual.verdict).passes and not Verdict(found.verdict).passes
    return _as_known(found, golden.known, gone=gone), golden, gone


def _as_known(found: Pictures, known: Outcome, *, gone: bool) -> Pictures:
    """What was found where a known difference applies; one that is gone fails, so that it is noticed."""
    if not gone:
        return found.model_copy(update={"message": f"{found.message} (known difference {known})"})
    verdict = Verdict.CHANGED if found.verdict == Verdict.BROKEN else found.verdict
    message = (
        f"{verdict}: the known difference {known} no longer appears, the case matches its golden; "
        "remove the difference with --golden-update"
    )
    return found.model_copy(update={"verdict": verdict, "message": message})


def compare_with_golden(
    case: Case, images: list[Image.Image], origin: Origin, golden: Golden, device: Device
) -> Pictures:
    """Compares the images of a case, or what it raises, with this golden."""
    place, changes = golden.place, _what_changed(origin, golden.origin)
    if origin.error or golden.error:
        verdict, message = _of_errors(origin.error, golden.error, case.settings.issue)
        if changes:
            verdict, message = Verdict.STALE, f"{place} is stale: {'; '.join(changes)}"
        return _pictures(verdict, message, place)
    try:
        similarity = compare(images, golden.tiles)
    except Incomparable as error:
        verdict = Verdict.STALE if changes else Verdict.BROKEN
        message = f"{place} cannot be compared: {'; '.join([*changes, str(error)])}"
        return _pictures(verdict, message, place)
    limits, tier = _limits(golden, case, device), _tier(golden, device)
    if changes:
        return _pictures(Verdict.STALE, f"{place} is stale: {'; '.join(changes)}", place, similarity, limits, tier=tier)
    if limits is None:
        message = (
            f"{Verdict.NOT_COMPARED}: its golden was made on {golden.made_on['type']}, and at the rounding of "
            f"another type of device {_why_not_compared(golden)}; accept a golden of this device with --golden-update"
        )
        return _pictures(Verdict.NOT_COMPARED, message, place, similarity, tier=tier)
    verdict = similarity.verdict(limits)
    if verdict == Verdict.CHANGED:
        like = golden.origin.like if not golden.usual else None
        whose = f"{like}, which it must match" if like else str(place)
        message = f"differs from {whose}: {', '.join(similarity.excesses(limits))}"
    else:
        score = f"SSIM of the worst tile {similarity.ssim_worst_tile:.5f}"
        message = f"{verdict}: {score}, largest difference {similarity.max_diff}"
    return _pictures(verdict, message, place, similarity, limits, tier=tier)


def _of_errors(now: RaisedError | None, then: RaisedError | None, issue: str | None) -> tuple[Verdict, str]:
    """At least one of the two is not ``None``."""
    verdict = verdict_of_errors(then, now)
    known = f" (known: {issue})" if issue else ""
    if now is None:
        assert then
        return verdict, f"{verdict}; it raised {then.sentence}{known}; accept its pictures with --golden-update"
    before = f" instead of {then.sentence}" if then and then != now else ""
    return verdict, f"{verdict}: {now.sentence}{before}{known}"


def judge_work(origin: Origin, golden: Golden | None) -> ComparedWork | None:
    """Compares the work that was counted now with the golden's; ``None`` where nothing was counted.

    Only work of the same recipe on the same type of device is compared: copies to and from a device are work too.
    """
    if origin.work is None:
        return None
    verdict, message = _verdict_of_work(origin, origin.work, golden)
    return ComparedWork(verdict=verdict, message=message, counts=origin.work)


def _verdict_of_work(origin: Origin, counts: dict[str, Any], golden: Golden | None) -> tuple[Verdict, str]:
    if golden is None:
        return Verdict.NOT_COMPARED, f"{Verdict.NOT_COMPARED}: no golden exists"
    then = golden.origin
    if golden.known:
        return Verdict.NOT_COMPARED, f"{Verdict.NOT_COMPARED}: a known difference has no counted work"
    if then.device["type"] != origin.device["type"]:
        types = f"{golden.place} was made on {then.device['type']}, this run is on {origin.device['type']}"
        return Verdict.NOT_COMPARED, f"{Verdict.NOT_COMPARED}: {types}"
    if _what_changed(origin, then):
        return Verdict.NOT_COMPARED, f"{Verdict.NOT_COMPARED}: {golden.place} is stale"
    if then.work is None:
        return Verdict.MISSING, f"{shown(golden.place.origin)} has no counted work; add it with --golden-update"
    found = compare_work(Work.from_json(counts), Work.from_json(then.work))
    return found.verdict, found.message


def verdict_of_case(pictures: Pictures, work: ComparedWork | None, accepted: bool = False) -> Verdict:
    """Accepting is not a pass: less work then fails, as more work always does."""
    of_pictures = Verdict(pictures.verdict)
    if work is None or not of_pictures.passes:
        return of_pictures
    of_work = Verdict(work.verdict)
    if of_work is Verdict.MISSING:
        return Verdict.WORK_MISSING
    return of_work if of_work.is_worse or (accepted and of_work is Verdict.LESS_WORK) else of_pictures


def check_golden(
    case: Case,
    images: list[Image.Image],
    origin: Origin,
    root: Path,
    device: Device,
    *,
    update: str | None = None,
    errors: bool = False,
    announce: Callable[[str], None] = print,
) -> Check:
    """The life cycle of a golden: missing, stale, damaged, changed, accepted.

    Args:
        origin: with the counted work, if that is to be compared too.
        update: ``None`` to write nothing. Else the golden is written if the pictures are not identical, the work is
            not the same, or the nearest golden is of another type of device, whose work cannot be compared; as
            ``auto``, ``reference``, ``type`` or ``device``. ``auto`` is the reference, unless that is of another type
            of device or another accelerator; then it is a golden of this device. The verdict stays that of the
            comparison, so that no run passes by what it wrote. Where a known difference applies, it is removed if it
            no longer appears, and nothing else is written.
        errors: accept what a case raises also where it names no ``issue``; failures of memory or device never are.
        announce: called with a line for each file that was written.

    Returns:
        The comparison with the golden as it was found.

    Raises:
        GoldenError: the golden is to be written but cannot be, or would replace that of another accelerator.
    """
    pictures, golden, gone = _judge(case, images, origin, root, device)
    work = judge_work(origin, golden)
    verdict = Verdict(pictures.verdict)
    same = verdict.rank <= (Rank.NO_WORSE if origin.like else Rank.AS_BEFORE)
    other_work = work is not None and work.verdict in (Verdict.MORE_WORK, Verdict.LESS_WORK, Verdict.MISSING)
    if update is None:
        return Check(pictures, work, golden, verdict_of_case(pictures, work))
    place = golden_place(root, case, device, level_to_write(update, case, root, device))
    first_here = same and _is_first_here(golden, origin, place)
    if same and not other_work and not first_here:
        return Check(pictures, work, golden, verdict_of_case(pictures, work))
    if golden and golden.known and pictures.verdict != Verdict.STALE:
        if gone:
            refuse_another_accelerator(golden.place, device)
        pictures = _update_known(pictures, golden, golden.known, announce, gone=gone)
        return Check(pictures, work, golden, Verdict(pictures.verdict))
    if origin.like and verdict is Verdict.CHANGED:
        if golden and golden.made_on["type"] != device.type:
            first = f"{pictures.message}; accept {origin.like} on this device with --golden-update first"
            pictures = pictures.model_copy(update={"message": first})
        return Check(pictures, work, golden, verdict)
    if refused := why_no_golden(origin.error, has_issue=errors or case.settings.issue is not None):
        return Check(pictures.model_copy(update={"message": f"{pictures.message}; {refused}"}), work, golden, verdict)
    refuse_another_accelerator(place, device)
    before = what_was_found(pictures, work if other_work else None)
    limits = golden.origin.limits if golden and golden.origin.device["type"] == device.type else None
    kept = limits if pictures.verdict == Verdict.IDENTICAL else None
    others = golden.origin.others if golden and golden.place == place and pictures.verdict != Verdict.STALE else ()
    write_golden(place, images, origin.model_copy(update={"limits": kept, "others": others}))
    again = "; measure its limits again with --golden-calibrate" if limits and not kept else ""
    announce(f"wrote {place} ({before}){again}")
    message = f"accepted as {place} ({before}); run again without --golden-update to check it"
    if first_here:
        verdict = Verdict.MISSING
    elif verdict is Verdict.WITHIN_LIMITS and not origin.like:
        verdict = Verdict.CHANGED
    pictures = pictures.model_copy(update={"message": message, "verdict": verdict})
    if work and other_work:
        work = work.model_copy(update={"message": message})
    return Check(pictures, work, golden, verdict_of_case(pictures, work, accepted=True))


def _update_known(
    pictures: Pictures, golden: Golden, known: Outcome, announce: Callable[[str], None], *, gone: bool
) -> Pictures:
    """Removes a known difference that is gone; pictures of other releases never become the golden."""
    if gone:
        remove_outcome(golden)
        announce(f"removed from {golden.place}: known difference {known}")
        message = (
            f"removed from {golden.place}: known difference {known}; run again without --golden-update to check it"
        )
    elif not Verdict(pictures.verdict).passes:
        message = f"{pictures.message}; accept it with --golden-for and --golden-reason"
    else:
        return pictures
    return pictures.model_copy(update={"message": message})


def what_was_found(pictures: Pictures, work: ComparedWork | None) -> str:
    """What was found before accepting; the work only if it differed."""
    if pictures.verdict == Verdict.IDENTICAL:
        found = ["same pictures"]
    elif pictures.ssim_worst_tile is None:
        found = [pictures.verdict, "new"]
    else:
        found = [pictures.verdict, f"SSIM was {pictures.ssim_worst_tile:.5f}"]
    if work:
        is_new = work.verdict == Verdict.MISSING
        changes = "none until now" if is_new else work.message.removeprefix(f"{work.verdict}: ")
        found.append(f"work: {changes}")
    return ", ".join(found)


def _is_first_here(golden: Golden | None, origin: Origin, place: GoldenPlace) -> bool:
    """Whether the golden to be written gives the case its first work that can be compared on this type of device."""
    if golden is None or golden.known or origin.error:
        return False
    return golden.origin.device["type"] != origin.device["type"] and golden.place != place


def level_to_write(update: str, case: Case, root: Path, device: Device) -> str:
    """The level at which ``check_golden`` writes the golden of a case; see there for ``update``.

    Accelerators of different models round differently, so with ``auto`` none replaces the golden of another.
    """
    if update != "auto":
        return update
    found = find_golden(root, case, device)
    if found is None:
        return REFERENCE
    level = next(one for one in (EXACT, TYPE, REFERENCE) if golden_place(root, case, device, one) == found)
    maker = maker_of(found)
    if device.type == "cpu":
        return level if level != REFERENCE or maker is None or maker["type"] == "cpu" else TYPE
    return level if maker == {"type": device.type, "name": device.name} else EXACT


def why_no_golden(error: RaisedError | None, *, has_issue: bool) -> str:
    """Why what a case raises is not accepted; empty if it is.

    Args:
        has_issue: whether somebody has said why the case raises.
    """
    if error and error.is_of_the_machine:
        return "not accepted: memory or the device failed, not the case; run it again"
    if error and not has_issue:
        return "not accepted: name the report of this error as 'issue' in the suite file, or add --golden-errors"
    return ""


def refuse_another_accelerator(place: GoldenPlace, device: Device) -> None:
    """Raises:
    GoldenError: the golden at this place was made on another accelerator than this one.
    """
    maker = maker_of(place)
    if maker and "cpu" not in (maker["type"], device.type) and maker != {"type": device.type, "name": device.name}:
        raise GoldenError(
            f"{place}: not accepted, it was made on {maker['name']} and this is {device.name}; accept one for this "
            "device with --golden-level device."
        )


def same_pixels(one: list[Image.Image], other: list[Image.Image]) -> bool:
    return len(one) == len(other) and all(
        np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(one, other, strict=True)
    )
