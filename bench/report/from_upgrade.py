"""Builds a story from ``upgrade.json`` and the saved pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.record.run_info import RunInfo
from bench.report.group_cards import group_cards
from bench.report.plots import ForestRow, forest_chart
from bench.report.rerun import UPGRADED, rerun_case
from bench.report.story import (
    UNET_CALLS,
    CaseEntry,
    Chart,
    Chip,
    Count,
    NamedEnvironment,
    Section,
    Story,
    Table,
    Value,
    count,
    kept_picture,
    key_of,
    mebibytes,
    plural,
    scores_of,
    seconds,
    sums_of,
    tiles_of,
    worst_first,
)
from bench.upgrade.bisect_command import bisect_command
from bench.upgrade.groups import groups_in
from bench.upgrade.outcome import COMPONENTS, IMPORT, CaseFound, Figure, SideFound, UpgradeFound
from bench.upgrade.tables import notes, percent
from bench.upgrade.workers import SIDES
from bench.verdicts import Kind, Verdict


def story_of_upgrade(found: UpgradeFound, folder: Path, info: RunInfo | None = None) -> Story:
    """The verdicts of an upgrade check, the cases with problems first."""
    warnings = info.problems(case.case for case in found.cases) if info else ()
    keys = {case.case: key_of(case.case) for case in found.cases}
    sides = ("--baseline", found.baseline.asked, "--candidate", found.candidate.asked)
    options = (*sides, *(info.rerun_options if info else ()))
    entries = [_entry(case, folder, keys[case.case], rerun_case(UPGRADED, case.case, options)) for case in found.cases]
    headline, kind = _headline(found, bool(warnings))
    return Story(
        headline=headline,
        kind=kind,
        counts=worst_first(_counts(found)),
        facts=_facts(found, folder, info),
        changes=found.changes,
        entries=tuple(sorted(entries, key=_badness)),
        warnings=(*warnings, *found.problems.get(IMPORT, ()), *found.problems.get(COMPONENTS, ())),
        notes=tuple(notes(found)),
        sections=_sections(found, keys),
        environments=tuple(NamedEnvironment(name, dict(side.libraries)) for name, side in _sides(found).items()),
        groups=group_cards(groups_in(found), keys.__getitem__),
        next_step=bisect_command(found, info.rerun_options if info else ()) or "",
    )


def _sides(found: UpgradeFound) -> Mapping[str, SideFound]:
    return dict(zip(SIDES, (found.baseline, found.candidate), strict=True))


def _badness(entry: CaseEntry) -> tuple[bool, bool, float]:
    """Sorts failures first: pictures, least similar first, then times; unclear speeds come before equal ones."""
    changed = entry.verdict.kind is Kind.BAD
    unsure = any(chip.kind is Kind.UNSURE for chip in entry.more)
    alike = entry.worst_ssim if changed and entry.worst_ssim is not None else -1.0
    return not entry.failed, not (changed or unsure), alike if entry.failed else 0.0


def _headline(found: UpgradeFound, cut_short: bool) -> tuple[str, Kind]:
    problems = found.problems
    cases = plural(len(found.cases), "case")
    unsure = sum(case.speed is not None and case.speed.verdict == Verdict.CANNOT_TELL for case in found.cases)
    unclear = f"the speed of {plural(unsure, 'case')} is unclear" if unsure else ""
    if problems:
        words = Counter(word for case in found.cases for word in _bad_words(case))
        named = ", ".join(f"{number} {word}" for word, number in words.most_common())
        where = f"Worse in {len(problems.keys() - {IMPORT, COMPONENTS})} of {cases}: {named}" if words else ""
        slow = "importing the libraries is slower" if IMPORT in problems else ""
        part = f"slowest part: {problems[COMPONENTS][0]}" if COMPONENTS in problems else ""
        parts = [text for text in (where, part, slow, unclear) if text]
        return f"{'; '.join(parts).capitalize() if not where else '; '.join(parts)}.", Kind.BAD
    if not found.cases and not found.import_time:
        return "No case ran, so nothing was compared.", Kind.BAD
    if cut_short:
        return f"Nothing is worse in {cases}, but the check is incomplete.", Kind.BAD
    if unsure:
        return f"Nothing is measurably worse in {cases}, but {unclear}.", Kind.UNSURE
    return f"Nothing is worse in {cases}.", Kind.GOOD


def _bad_words(case: CaseFound) -> list[str]:
    words = [case.pictures.verdict, *([case.work.verdict] if case.work else [])]
    return [word for word in words if Verdict(word).is_worse] + [
        figure.verdict if name == "speed" else f"{figure.verdict} {name}"
        for name, figure in case.figures.items()
        if Verdict(figure.verdict).is_worse
    ]


def _chip(word: str) -> Chip:
    return Chip(word, Verdict(word).kind)


def _counts(found: UpgradeFound) -> list[Count]:
    return [
        (question, _chip(word), number)
        for question, words in found.counts().items()
        for word, number in words.most_common()
    ]


def _facts(found: UpgradeFound, folder: Path, info: RunInfo | None) -> tuple[tuple[str, str], ...]:
    facts = [
        ("baseline", found.baseline.asked),
        ("candidate", found.candidate.asked),
        ("device", f"{found.device} ({found.device_name})"),
        ("run", folder.name),
    ]
    if info:
        facts.append(("when", info.span))
    if found.mode == "pictures":
        return (*facts, ("compared", "pictures only"))
    how = f"{found.mode}, up to {found.budget_s:g} s of measuring, smallest change that matters {found.min_change:.1%}"
    return (*facts, ("measured", how))


def _entry(case: CaseFound, folder: Path, key: str, command: str) -> CaseEntry:
    pictures = case.pictures
    model, _, _ = case.case.partition("/")
    before, after = (kept_picture(folder, case.case, side, side) for side in SIDES)
    same = kept_picture(folder, case.case, "", "both sides")
    notes = [f"new warning: {text}" for text in case.new_warnings]
    if case.unet_calls[0] != case.unet_calls[1] and None not in case.unet_calls:
        notes.append(f"{case.unet_calls[1]} UNet calls instead of {case.unet_calls[0]}.")
    return CaseEntry(
        key=key,
        title=case.case,
        verdict=_chip(pictures.verdict),
        more=_work_verdicts(case)
        + tuple(
            _chip(figure.verdict) if name == "speed" else Chip(f"{name} {figure.verdict}", Kind.BAD)
            for name, figure in case.figures.items()
            if name == "speed" or Verdict(figure.verdict).is_worse
        ),
        problems=case.problems,
        notes=tuple(notes),
        before=before,
        after=same or after,
        tiles=tiles_of(case.settings, pictures.ssim_tiles),
        scores=scores_of(pictures),
        limits_reason=pictures.limits.reason if pictures.limits else "",
        figures=_figures(case),
        seconds=case.speed.candidate / case.settings["images"] if case.speed and case.speed.candidate else None,
        settings=case.settings,
        group={
            "model": model,
            "verdict": pictures.verdict,
            "speed": case.speed.verdict if case.speed else "",
            "scheduler": str(case.settings.get("scheduler", "")),
            "dtype": str(case.settings.get("dtype", "")),
            "work": case.work.verdict if case.work else "",
        },
        command=command,
    )


def _work_verdicts(case: CaseFound) -> tuple[Chip, ...]:
    if not case.work or case.work.verdict == Verdict.SAME_WORK:
        return ()
    return (_chip(case.work.verdict),)


def _change(figure: Figure) -> Value:
    return Value(f"{100 * (figure.ratio - 1):+.1f} %", figure.ratio)


def _measured(name: str, value: float | None) -> Value:
    return mebibytes(value) if name == "memory" else seconds(value)


def _figures(case: CaseFound) -> tuple[tuple[str, Value], ...]:
    rows: list[tuple[str, Value]] = []
    for name, figure in case.figures.items():
        rows += [
            (f"{name}, change", Value(f"{figure.verdict} {_change(figure).text}", figure.ratio)),
            (f"{name}, interval", Value(figure.interval)),
            (f"{name}, starts", Value(str(figure.pairs), figure.pairs)),
            (f"{name}, baseline", _measured(name, figure.baseline)),
            (f"{name}, candidate", _measured(name, figure.candidate)),
        ]
        if figure.more_pairs:
            rows.append((f"{name}, more starts needed", Value(str(figure.more_pairs), figure.more_pairs)))
    if case.work:
        rows.append(("work", Value(case.work.message)))
        rows += _counted("baseline", case.work.baseline) + _counted("candidate", case.work.candidate)
    if case.memory_reason:
        rows.append(("memory", Value(f"not known: {case.memory_reason}")))
    rows += [
        (f"{UNET_CALLS}, {side}", Value(str(calls), calls))
        for side, calls in zip(SIDES, case.unet_calls, strict=True)
        if calls is not None
    ]
    rows.append(("time spent on the case", seconds(case.seconds)))
    return tuple((name, value) for name, value in rows if value.text)


def _counted(side: str, work: Mapping[str, Any]) -> list[tuple[str, Value]]:
    """The counts of one side, but not the UNet calls, which have rows even where work is not counted."""
    return [(f"{name}, {side}", count(amount)) for name, amount in sums_of(work).items() if name != UNET_CALLS]


def _sections(found: UpgradeFound, keys: Mapping[str, str]) -> tuple[Section, ...]:
    charts = _forests(found, keys)
    named = [(case.case, name, figure) for case in found.cases for name, figure in case.figures.items()]
    if found.import_time:
        named.append((IMPORT, IMPORT, found.import_time))
    if not named:
        return ()
    rows = tuple(
        (
            Value(case),
            Value(name),
            Value(figure.verdict),
            _change(figure),
            Value(figure.interval),
            Value(str(figure.pairs), figure.pairs),
            _measured(name, figure.baseline),
            _measured(name, figure.candidate),
        )
        for case, name, figure in named
    )
    columns = ("case", "question", "verdict", "change", "interval", "starts", "baseline", "candidate")
    table = Table("All measurements", columns, rows, tuple(keys.get(case, "") for case, _, _ in named))
    tables = (_changes_table(found, keys), table, *_components_table(found, keys))
    return (Section("speed", "Speed and memory", charts, tables),)


def _forests(found: UpgradeFound, keys: Mapping[str, str]) -> tuple[Chart, ...]:
    """The components, above the cases that they are parts of."""
    components = sorted(found.components, key=lambda one: -one.share[1])
    rows = [ForestRow(one.name, one.figure, keys.get(one.cases[0], "")) for one in components]
    beyond = found.min_component_change or found.min_change
    of_small = f"matter only if they change a case by {found.min_change:.0%}"
    of_components = forest_chart(
        rows, beyond, "Speed of the components, candidate against baseline", "components", of_small
    )
    timed = [ForestRow(case.case, case.speed, keys[case.case]) for case in found.cases if case.speed]
    of_cases = forest_chart(
        timed, found.min_change, "Speed of the candidate against the baseline", "cases", "do not matter"
    )
    return tuple(chart for chart in (of_components, of_cases) if chart)


def _components_table(found: UpgradeFound, keys: Mapping[str, str]) -> tuple[Table, ...]:
    """A row for each component, those that take most of a call first."""
    components = sorted(found.components, key=lambda one: -one.share[1])
    if not components:
        return ()
    rows = tuple(
        (
            Value(one.name),
            Value(one.figure.verdict),
            _change(one.figure),
            Value(one.figure.interval),
            Value(str(one.figure.pairs), one.figure.pairs),
            Value(f"{one.share[1]:.1%}", one.share[1]),
            Value(f"{max(one.effect, key=abs):+.1%}", max(one.effect, key=abs)),
            Value(str(len(one.cases)), len(one.cases)),
        )
        for one in components
    )
    columns = ("component", "verdict", "change", "interval", "starts", "largest share", "largest effect", "cases")
    return (Table("Components", columns, rows, tuple(keys.get(one.cases[0], "") for one in components)),)


def _changes_table(found: UpgradeFound, keys: Mapping[str, str]) -> Table:
    """A row for each case, with the verdicts."""

    def verdict_of(figure: Figure | None) -> Value:
        return Value(percent(figure), figure.ratio) if figure else Value("")

    rows = tuple(
        (
            Value(case.case),
            Value(case.work.verdict if case.work else ""),
            verdict_of(case.speed),
            Value(case.speed.interval if case.speed else ""),
            verdict_of(case.memory),
            verdict_of(case.load),
            verdict_of(case.first_call),
        )
        for case in found.cases
    )
    columns = ("case", "work", "speed", "interval of the speed", "memory", "load", "first call")
    return Table("Changes from baseline to candidate", columns, rows, tuple(keys[case.case] for case in found.cases))
