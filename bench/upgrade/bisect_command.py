"""The command that finds the release which made a case worse, where an upgrade is over releases of one library."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class _Range:
    """Two releases of one library, and the requirements that both sides have beside it."""

    library: str
    first: Version
    last: Version
    alongside: tuple[str, ...]


def bisect_command(found: UpgradeFound, options: Sequence[str] = ()) -> str | None:
    """The search for the release that made the representative case of the worst group worse.

    ``None`` where the sides differ in more than the releases of one library, both from an index, or where nothing is
    worse that a search can find: it looks at pictures, errors and speed. Dependencies that change with the library,
    without being asked for, change in the search too.

    Args:
        options: of the check, as a run of one of its cases needs them.
    """
    span, case = _range_of(found), _case(found)
    if not span or not case:
        return None
    named, by = case
    words = [span.library, f"{span.first}..{span.last}"]
    words += ["--with", " ".join(span.alongside)] if span.alongside else []
    words += ["--case", named]
    if by == SPEED:
        words += ["--by", SPEED]
        words += [] if found.min_change == _USUAL_CHANGE else ["--min-change", f"{100 * found.min_change:g}%"]
    for option, value in pairwise(options):
        words += [option, value] if option in _PASSED_ON else []
    return shlex.join(["tox", "run", "-e", "bisect", "--", *words])


def _range_of(found: UpgradeFound) -> _Range | None:
    baseline, candidate = (_requirements(side.asked) for side in (found.baseline, found.candidate))
    if baseline is None or candidate is None:
        return None
    asked = {_name(text) for text in set(baseline) ^ set(candidate)}
    changes = [change for change in found.changes if change.partition(" ")[0] in asked]
    match = _CHANGE.fullmatch(changes[0]) if len(changes) == 1 else None
    if not match:
        return None
    try:
        before, after = Version(match["before"]), Version(match["after"])
    except InvalidVersion:
        return None
    library = match["library"]
    alongside = tuple(dict.fromkeys(text for text in (*baseline, *candidate) if _name(text) != library))
    return _Range(library, before, after, alongside) if before < after else None


def _requirements(asked: str) -> tuple[str, ...] | None:
    """The requirements of a side; ``None`` if it is more than releases of an index."""
    try:
        side = parse_side(asked, Path.cwd())
        for text in side.requirements:
            Requirement(text)
    except (SideError, InvalidRequirement):  # a path or an address
        return None
    return None if side.environment or side.files else side.requirements


def _name(requirement: str) -> str:
    return canonicalize_name(Requirement(requirement).name)


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
