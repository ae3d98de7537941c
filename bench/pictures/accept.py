"""Accepting what a case shows with other releases of its libraries, as a known difference from its golden."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from bench.calls.device import Device
from bench.pictures.check import (
    Check,
    compare_with_golden,
    judge,
    judge_work,
    refuse_another_accelerator,
    what_was_found,
    why_no_golden,
)
from bench.pictures.outcomes import Difference, Outcome, library_of, read_requirement
from bench.pictures.store import Golden, GoldenError, Origin, write_outcome
from bench.suite.case import Case
from bench.verdicts import Verdict


def accept_difference(
    case: Case,
    images: list[Image.Image],
    origin: Origin,
    root: Path,
    device: Device,
    *,
    difference: Difference,
    announce: Callable[[str], None] = print,
) -> Check:
    """Checks a case as ``check_golden`` does, and stores what it shows next to its golden if the two differ.

    Args:
        difference: applies to the libraries of this run.
        announce: called with a line for each golden that was written to.

    Returns:
        The comparison with the golden as it was found; what is written does not count as a pass.

    Raises:
        GoldenError: the difference would apply to the golden itself, the golden is of another type of device, or it
            cannot be written.
    """
    pictures, golden = judge(case, images, origin, root, device)
    work = judge_work(origin, golden)
    if golden is None or pictures.verdict == Verdict.STALE:
        message = f"{pictures.message}; a known difference needs a golden to differ from"
        return Check(pictures.model_copy(update={"message": message}), work, golden, Verdict(pictures.verdict))
    usual = golden.usual or golden
    found = compare_with_golden(case, images, origin, usual, device)
    if Verdict(found.verdict).passes or _is_there(difference, golden, pictures.verdict):
        return Check(pictures, work, golden, Verdict(pictures.verdict))
    if refused := why_no_golden(origin.error, has_issue=True):
        message = f"{found.message}; {refused}"
        return Check(found.model_copy(update={"message": message}), work, golden, Verdict(found.verdict))
    _refuse(difference, golden, device)
    write_outcome(golden, _outcome(difference, origin), images)
    before = what_was_found(found, None)
    announce(f"wrote {golden.place}, with {difference.releases} ({before})")
    message = (
        f"accepted as known difference with {difference.releases} in {golden.place} ({before}); run again without "
        "--golden-update to check it"
    )
    return Check(found.model_copy(update={"message": message}), work, golden, Verdict(found.verdict))


def _is_there(difference: Difference, golden: Golden, verdict: str) -> bool:
    known = golden.known if golden.usual else None
    same = known is not None and (known.when, known.reason) == (difference.when, difference.reason)
    return same and verdict in (Verdict.IDENTICAL, Verdict.RAISES_AS_BEFORE)


def _refuse(difference: Difference, golden: Golden, device: Device) -> None:
    made_on, made_with = golden.origin.device["type"], golden.origin.libraries
    refuse_another_accelerator(golden.place, device)
    if made_on != device.type:
        raise GoldenError(
            f"{golden.place}: not accepted, it was made on {made_on} and a known difference needs a golden of the same "
            f"type of device; accept one for {device.type} with --golden-update first."
        )
    if difference.holds_with(made_with):
        names = [library_of(read_requirement(text)) for text in difference.when]
        versions = ", ".join(f"{name} {made_with[name]}" for name in names)
        raise GoldenError(
            f"{golden.place}: not accepted, {difference.releases} also applies to the golden ({versions}); "
            "give --golden-for a narrower range."
        )


def _outcome(difference: Difference, origin: Origin) -> Outcome:
    names = [library_of(read_requirement(text)) for text in difference.when]
    return Outcome(
        when=difference.when,
        reason=difference.reason,
        error=origin.error,
        device=origin.device,
        libraries={name: origin.libraries[name] for name in names},
        date=datetime.date.today().isoformat(),
    )
