"""The command that finds the release which made a case worse, where an upgrade is over releases of one library."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from bench.installs.sides import SideError, parse_side
from bench.record.groups import ERRORS, PICTURES, Group, representative
from bench.upgrade.groups import groups_in
from bench.upgrade.outcome import UpgradeFound
from bench.verdicts import Verdict

SPEED = "speed"
_CHANGE = re.compile(r"(?P<library>\S+) (?P<before>\S+) → (?P<after>\S+)")
# Options of a check that mean the same to the search.
_PASSED_ON = ("--suite", "--device")
_USUAL_CHANGE = 0.03


def bisect_command(found: UpgradeFound, options: Sequence[str] = ()) -> str | None:
    """The search for the release that made the representative case of the worst group worse.

    ``None`` where the sides differ in more than the releases of one library, both from an index, or where nothing is
    worse that a search can find: it looks at pictures, errors and speed.

    Args:
        options: of the check, as a run of one of its cases needs them.
    """
    span, case = _span(found), _case(found)
    if not span or not case:
        return None
    library, first, last = span
    alongside = _alongside(found, library)
    if alongside is None:
        return None
    named, by = case
    words = [library, f"{first}..{last}", *(("--with", " ".join(alongside)) if alongside else ()), "--case", named]
    if by == SPEED:
        words += ["--by", SPEED]
        words += [] if found.min_change == _USUAL_CHANGE else ["--min-change", f"{100 * found.min_change:g}%"]
    for option, value in pairwise(options):
        words += [option, value] if option in _PASSED_ON else []
    return shlex.join(["tox", "run", "-e", "bisect", "--", *words])


def _span(found: UpgradeFound) -> tuple[str, Version, Version] | None:
    """The one library that differs, and its releases on both sides, the older first."""
    match = _CHANGE.fullmatch(found.changes[0]) if len(found.changes) == 1 else None
    if not match:
        return None
    try:
        before, after = Version(match["before"]), Version(match["after"])
    except InvalidVersion:
        return None
    return (match["library"], before, after) if before < after else None


def _alongside(found: UpgradeFound, library: str) -> tuple[str, ...] | None:
    """What both sides have beside the library; ``None`` if a side is more than requirements of an index."""
    kept: dict[str, None] = {}
    for asked in (found.baseline.asked, found.candidate.asked):
        try:
            side = parse_side(asked, Path.cwd())
            if side.environment or side.files:
                return None
            for text in side.requirements:
                if canonicalize_name(Requirement(text).name) != library:
                    kept[text] = None
        except (SideError, InvalidRequirement):  # a path or an address
            return None
    return tuple(kept)


def _case(found: UpgradeFound) -> tuple[str, str] | None:
    settings = {case.case: case.settings for case in found.cases}
    for group in groups_in(found):
        by = _by(group)
        if by:
            return representative((case, settings[case]) for case in group.cases), by
    return None


def _by(group: Group) -> str | None:
    """What a search has to look at; ``None`` if it does not look at that."""
    if set(group.questions) & {ERRORS, PICTURES} and set(group.verdicts) != {Verdict.NOT_REPEATABLE}:
        return PICTURES
    return SPEED if SPEED in group.questions else None
