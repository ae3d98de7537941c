"""The groups of a report."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.record.groups import Group, leading
from bench.report.story import GroupCard
from bench.verdicts import Kind, Verdict


def group_cards(groups: Sequence[Group], key_of_case: Callable[[str], str], place: str = "") -> tuple[GroupCard, ...]:
    """The groups that say more than each case says for itself; none if no group has several cases.

    Args:
        key_of_case: the key of a case in the report.
        place: where it happened, such as a release, if there are several.
    """
    return tuple(
        GroupCard(
            sentence=_sentence(group, place),
            kind=_kind(group),
            cases=tuple((case, key_of_case(case)) for case in group.cases),
            notes=group.notes,
        )
        for group in leading(groups)
    )


def _sentence(group: Group, place: str) -> str:
    """The sentence with a capital letter, but for one that starts with a case or a place."""
    if place:
        return f"{place}: {group.sentence}."
    first = group.sentence[0].upper() if group.has_several else group.sentence[0]
    return f"{first}{group.sentence[1:]}."


def _kind(group: Group) -> Kind:
    return Kind.BAD if any(Verdict(word).is_worse for word in group.verdicts) else Kind.NOTE
