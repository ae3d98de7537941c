"""The shards of an upgrade check, merged into one check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from bench.record.groups import Group
from bench.upgrade.groups import groups_in, upgrade_groups
from bench.upgrade.outcome import CaseFound, ComponentFound, Figure, UpgradeFound
from bench.verdicts import Verdict

# What must be the same in all shards.
_SHARED = ("changes", "device", "device_name", "mode", "min_change", "min_component_change")


@dataclass(frozen=True)
class UpgradeShard:
    """What a shard found, and the words for it, such as ``shard 2/5``."""

    name: str
    found: UpgradeFound


def different_check(before: UpgradeFound, now: UpgradeFound) -> str | None:
    """The first thing in which two checks differ, other than their cases, in words; ``None`` if nothing."""
    for side in ("baseline", "candidate"):
        one, other = getattr(before, side), getattr(now, side)
        if one.asked != other.asked:
            return f"the {side} was {one.asked} and is {other.asked}"
        for name in sorted({*one.libraries, *other.libraries}):
            was, is_ = one.libraries.get(name), other.libraries.get(name)
            if was != is_:
                return f"{name} of the {side} was {was} and is {is_}"
    for key in _SHARED:
        was, is_ = getattr(before, key), getattr(now, key)
        if was != is_:
            return f"{key.replace('_', ' ')} was {was} and is {is_}"
    return None


def merge_checks(shards: Sequence[UpgradeShard], order: Sequence[str]) -> UpgradeFound:
    """One check with the cases of all shards, in this order, and with groups over all of them.

    Each shard measured by itself: the budgets, the error rates and the numbers of questions add up. A component that
    several shards measured stays one of each, with the shard in its name. Of the import times, the worst counts.

    Args:
        shards: at least one.
    """
    found = [shard.found for shard in shards]
    place = {case: number for number, case in enumerate(order)}
    cases = sorted((case for one in found for case in one.cases), key=lambda case: place.get(case.case, len(place)))
    rates = [one.error_rate for one in found if one.error_rate is not None]
    questions = [one.questions for one in found if one.questions is not None]
    return found[0].model_copy(
        update={
            "budget_s": sum(one.budget_s for one in found),
            "error_rate": sum(rates) if rates else None,
            "questions": sum(questions) if questions else None,
            "import_time": _worst_figure([one.import_time for one in found if one.import_time]),
            "components": _components(shards),
            "cases": tuple(cases),
            "groups": _groups(found, cases),
        }
    )


def _worst_figure(figures: Sequence[Figure]) -> Figure | None:
    return max(figures, key=lambda one: (Verdict(one.verdict).rank, one.pairs), default=None)


def _components(shards: Sequence[UpgradeShard]) -> tuple[ComponentFound, ...]:
    counts = Counter(one.name for shard in shards for one in shard.found.components)
    return tuple(
        one.model_copy(update={"name": f"{one.name} ({shard.name})"}) if counts[one.name] > 1 else one
        for shard in shards
        for one in shard.found.components
    )


def _groups(found: Sequence[UpgradeFound], cases: Sequence[CaseFound]) -> tuple[Group, ...]:
    """The groups over all cases, with the notes of the groups of single shards that they contain."""
    parts = [group for one in found for group in groups_in(one)]

    def notes_of(group: Group) -> tuple[str, ...]:
        inside = [
            part for part in parts if set(part.cases) <= set(group.cases) and set(part.questions) & {*group.questions}
        ]
        return tuple(dict.fromkeys(note for part in inside for note in part.notes))

    return tuple(group.model_copy(update={"notes": notes_of(group)}) for group in upgrade_groups(cases))
