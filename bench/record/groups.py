"""Failures and changes grouped by what they share, each group with one sentence that says which cases it has."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from bench.frozen import Frozen
from bench.suite.cover import Cover, smallest_cover
from bench.verdicts import Verdict

# What is asked about a case; figures such as speed are further questions, by their names.
ERRORS, PICTURES, WORK, CALLS = "errors", "pictures", "work", "UNet calls"
RAISING = (Verdict.RAISES, Verdict.RAISES_NOW, Verdict.RAISES_ELSE)
_NUMBER = re.compile(r"0x[0-9a-fA-F]+|\d+(?:\.\d+)?(?:e[+-]?\d+)?")
_COUNT = re.compile(r"(?P<name>[^:;→]+?) (?P<before>[\d,]+) → (?P<after>[\d,]+)")
_OMITTED = "…"
# With fewer steps, a change in the first one looks like a change in a later one.
_ENOUGH_STEPS = 3

_PREDICATES = {
    Verdict.DIED: "end their process",
    Verdict.BROKEN: "give broken pictures",
    Verdict.NOTHING_COMPARED: "fail on both sides",
    Verdict.MISSING: "lack a golden",
    Verdict.STALE: "have stale goldens",
    Verdict.WORKS_NOW: "work now instead of raising an error",
    Verdict.NOT_REPEATABLE: "fail to repeat their pictures",
    Verdict.NOT_RUN: "fail to run",
    Verdict.CHANGED: "give changed pictures",
    Verdict.MORE_WORK: "do more work",
    Verdict.LESS_WORK: "do less work",
    Verdict.WORK_MISSING: "lack accepted work",
    Verdict.OTHER_CALLS: "call the UNet more or less often",
}
_SLOWER = {"speed": "take longer", "load": "load more slowly", "first call": "take longer for the first call"}


@dataclass(frozen=True)
class Finding:
    """The answer to one question about one case.

    Attributes:
        settings: of the case, as ``Settings.described`` gives them.
        question: ``ERRORS``, ``PICTURES``, ``WORK``, ``CALLS``, or the name of a figure.
        verdict: what is wrong or has changed; ``None`` if nothing is.
        what: the error, or the names of the counts that changed. Findings are in one group if they have the same
            question, verdict and, apart from numbers, the same ``what``.
        ratio: candidate / baseline of a figure.
        message: what is wrong as a sentence about this case alone.
    """

    case: str
    settings: Mapping[str, Any]
    question: str
    verdict: Verdict | None = None
    what: str = ""
    ratio: float | None = None
    message: str = ""


class Group(Frozen):
    """Cases that fail or have changed in the same way."""

    sentence: str = Field(description="which cases do what, without a full stop")
    questions: tuple[str, ...] = Field(
        description="errors, pictures, work, UNet calls, speed, load, first call or memory"
    )
    verdicts: dict[str, int] = Field(description="how often each verdict was given")
    cases: tuple[str, ...]
    notes: tuple[str, ...] = Field(default=(), description="what else is known, such as where a change starts")

    @property
    def has_several(self) -> bool:
        return len(self.cases) > 1


@dataclass(frozen=True)
class _Draft:
    """A group before its sentence: those with the same cases become one."""

    findings: tuple[Finding, ...]
    cover: Cover

    @property
    def cases(self) -> tuple[str, ...]:
        return tuple(finding.case for finding in self.findings)

    @property
    def place(self) -> tuple[Any, ...]:
        """The worst verdicts and the largest groups come first."""
        verdict = self.findings[0].verdict
        assert verdict
        return -verdict.rank, -len(self.findings), list(Verdict).index(verdict), self.cases


def groups_of(findings: Iterable[Finding]) -> tuple[Group, ...]:
    """Groups the findings with a verdict, worst first.

    Those without a verdict are the cases that a description must leave out. A case to which a question does not apply,
    such as the speed of a case that is never timed, should have no finding for it.
    """
    asked: dict[str, list[Finding]] = {}
    for finding in findings:
        asked.setdefault(finding.question, []).append(finding)
    drafts = sorted((draft for found in asked.values() for draft in _drafts(found)), key=lambda draft: draft.place)
    together: dict[tuple[Any, ...], list[_Draft]] = {}
    for draft in drafts:
        together.setdefault((draft.cases, draft.cover.sentence("") if len(draft.cases) > 1 else ""), []).append(draft)
    return tuple(_group(same) for same in together.values())


def leading(groups: Sequence[Group]) -> tuple[Group, ...]:
    """The groups if there is anything to say beyond each case's own sentence: several cases in one, or a note."""
    return tuple(groups) if any(group.has_several or group.notes for group in groups) else ()


def sentence_by_case(groups: Sequence[Group]) -> dict[str, str]:
    """The sentences of the groups with several cases that each case is in."""
    found: dict[str, list[str]] = {}
    for group in groups:
        for case in group.cases if group.has_several else ():
            found.setdefault(case, []).append(group.sentence)
    return {case: "; ".join(sentences) for case, sentences in found.items()}


def changed_counts(message: str, verdict: Verdict) -> str:
    """The names of the counts that grew, or for ``less work`` shrank, in a sentence of ``WorkVerdict``."""
    names = []
    for part in message.removeprefix(f"{verdict}: ").split("; "):
        match = _COUNT.match(part)
        if match:
            before, after = (int(match[side].replace(",", "")) for side in ("before", "after"))
            if (after > before) is (verdict is not Verdict.LESS_WORK):
                names.append(match["name"])
    return ", ".join(names)


def shared_text(texts: Sequence[str]) -> str:
    """One text for several that differ in numbers and addresses alone, with ``…`` in place of these."""
    first, *others = dict.fromkeys(texts)
    if not others:
        return first
    between = _NUMBER.split(first)
    columns = zip(*(_NUMBER.findall(text) for text in (first, *others)), strict=True)
    numbers = [column[0] if len(set(column)) == 1 else _OMITTED for column in columns]
    return "".join(part for pair in zip(between, [*numbers, ""], strict=True) for part in pair)


def _kind(finding: Finding) -> tuple[str, str]:
    """Findings with the same one share a group; how a case that raises did before does not matter."""
    raising = finding.verdict in RAISING
    return "raises" if raising else str(finding.verdict), _NUMBER.sub("\0", finding.what)


def _drafts(asked: Sequence[Finding]) -> list[_Draft]:
    kinds: dict[tuple[str, str], list[Finding]] = {}
    for finding in asked:
        if finding.verdict:
            kinds.setdefault(_kind(finding), []).append(finding)
    drafts = []
    for kind, found in kinds.items():
        rest = [finding for finding in asked if not finding.verdict or _kind(finding) != kind]
        cover = smallest_cover([_described(finding) for finding in found], [_described(finding) for finding in rest])
        drafts.append(_Draft(tuple(found), cover))
    return drafts


def _described(finding: Finding) -> dict[str, Any]:
    return {"model": finding.case.partition("/")[0], **finding.settings}


def _group(drafts: Sequence[_Draft]) -> Group:
    findings = [finding for draft in drafts for finding in draft.findings]
    cases = drafts[0].cases
    if len(cases) == 1:
        messages = dict.fromkeys(finding.message.rstrip(".") for finding in findings)
        sentence = f"{cases[0]}: {'; '.join(messages)}"
    else:
        sentence = drafts[0].cover.sentence(" and ".join(_predicate(draft.findings) for draft in drafts))
    return Group(
        sentence=sentence,
        questions=tuple(draft.findings[0].question for draft in drafts),
        verdicts=dict(Counter(str(finding.verdict) for finding in findings).most_common()),
        cases=cases,
    )


def _predicate(findings: Sequence[Finding]) -> str:
    """What the cases of a group do, in the plural."""
    one = findings[0]
    assert one.verdict
    what = shared_text([finding.what for finding in findings])
    if one.verdict in RAISING:
        return f'raise "{what}"'
    if one.verdict is Verdict.SLOWER:
        return f"{_SLOWER.get(one.question, f'are slower in {one.question}')}{_by(findings)}"
    if one.verdict is Verdict.MORE:
        return f"use more {one.question}{_by(findings)}"
    predicate = _PREDICATES.get(one.verdict, f"have the verdict {one.verdict}")
    if one.question == ERRORS and what:
        return f'{predicate} ("{what}")'
    return f"{predicate} ({what})" if what else predicate


def _by(findings: Sequence[Finding]) -> str:
    """Such as ``(+4.1 % to +12.0 %)``."""
    changes = sorted(finding.ratio - 1 for finding in findings if finding.ratio is not None)
    ends = dict.fromkeys(f"{100 * change:+.1f} %" for change in (*changes[:1], *changes[-1:]))
    return f" ({' to '.join(ends)})" if ends else ""


def group_lines(groups: Sequence[Group], most: int = 4) -> list[str]:
    """The first groups, a line each and one for each note, and how many more there are; empty if none has to lead."""
    shown = leading(groups)
    lines = [text for group in shown[:most] for text in (f"{group.sentence}.", *(f"  {note}" for note in group.notes))]
    rest = len(shown) - most
    return [*lines, f"and {rest} more group{'' if rest == 1 else 's'} (in the report)"] if rest > 0 else lines


def representative(cases: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
    """The case of a group to look at first: called in the usual way, with several steps, and quick.

    Args:
        cases: id and settings of each case.

    Raises:
        ValueError: there is no case.
    """

    def place(one: tuple[str, Mapping[str, Any]]) -> tuple[Any, ...]:
        case, settings = one
        unusual = any(settings.get(key) for key in ("scenario", "task", "optimizations"))
        steps, images = settings.get("steps", 1), settings.get("images", 1)
        return bool(settings.get("slow")), unusual, steps < _ENOUGH_STEPS, steps * images, case

    return min(cases, key=place)[0]
