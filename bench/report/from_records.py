"""Builds a story from the records and grids of one run, of its shards, or of several runs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from bench.calls.work import Work
from bench.calls.work_verdict import compare_work
from bench.pictures.compared import ComparedWork, Pictures
from bench.pictures.grids import split_grid
from bench.pictures.limits import PORTABLE, default_limits
from bench.pictures.similarity import Incomparable, compare
from bench.record.failures import record_groups
from bench.record.folder import ENVIRONMENTS, RECORDS
from bench.record.record import Record, read_records
from bench.record.run_info import RunInfo, named, read_run_info
from bench.report.group_cards import group_cards
from bench.report.plots import Timed, quality_chart, speed_charts
from bench.report.quality import compare_with_references, seconds_per_image
from bench.report.reasons import across_devices, reasons, saved_work
from bench.report.rerun import rerun_record
from bench.report.story import (
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
    ssim,
    sums_of,
    tiles_of,
    worst_first,
)
from bench.verdicts import Kind, Verdict, verdict_of_errors, worst


@dataclass(frozen=True)
class RunFiles:
    """The files that a run wrote into its folder."""

    folder: Path
    records: tuple[Record, ...]
    environments: Mapping[str, Mapping[str, Any]]
    info: RunInfo | None

    @property
    def name(self) -> str:
        return self.folder.name


def read_run(folder: Path) -> RunFiles:
    """Reads a run's folder; if a case has several records, the last one counts.

    Raises:
        ValueError: a file is invalid; the message names it.
    """
    path = folder / RECORDS
    last = {record.case: record for record in (read_records(path) if path.is_file() else [])}
    environments = folder / ENVIRONMENTS
    try:
        known = json.loads(environments.read_text(encoding="utf-8")) if environments.is_file() else {}
        info = read_run_info(folder)
    except ValueError as error:
        raise ValueError(f"{folder}: {str(error).splitlines()[0]}") from None
    return RunFiles(folder, tuple(last.values()), known, info)


def story_of_runs(runs: Sequence[RunFiles]) -> Story:
    """The story of one run or of its shards; if runs share cases, a comparison with the first run that has each."""
    cases = Counter(record.case for run in runs for record in run.records)
    if cases and max(cases.values()) > 1:
        return _story_of_comparison(runs)
    shown = [(run, record) for run in runs for record in run.records]
    keys = {record.case: key_of(record.case) for _, record in shown}
    entries = [_entry(run, record, keys[record.case]) for run, record in shown]
    headline, kind = _headline(runs, entries)
    return Story(
        headline=headline,
        kind=kind,
        counts=worst_first(_counts(runs, entries)),
        facts=_facts(runs),
        entries=_failures_first(entries),
        warnings=(*_warnings(runs), *_times_warnings(runs)),
        sections=_sections([Timed(record, keys[record.case]) for _, record in shown], runs),
        environments=_environments(runs),
        groups=group_cards(record_groups(record for _, record in shown), keys.__getitem__),
    )


def _chip_of_case(word: str) -> Chip:
    return Chip(word, Verdict(word).kind_of_case)


def _chip_of_work(word: str) -> Chip:
    return Chip(word, Verdict(word).kind)


def _failures_first(entries: Sequence[CaseEntry]) -> tuple[CaseEntry, ...]:
    """Failed cases first: those without a score, then those least similar to their goldens."""

    def badness(entry: CaseEntry) -> tuple[bool, float]:
        return not entry.failed, -1.0 if entry.worst_ssim is None else entry.worst_ssim

    return tuple(sorted(entries, key=lambda entry: badness(entry) if entry.failed else (True, 0.0)))


def _entry(run: RunFiles, record: Record, key: str) -> CaseEntry:
    pictures = record.pictures
    settings = record.settings
    saved = saved_work(record)
    return CaseEntry(
        key=key,
        title=record.case,
        verdict=_chip_of_case(record.verdict),
        more=_work_verdicts(record),
        problems=reasons(record),
        notes=(saved,) if saved else (),
        before=kept_picture(run.folder, record.case, "golden", "golden"),
        after=kept_picture(run.folder, record.case, "", "this run"),
        tiles=tiles_of(settings, pictures.ssim_tiles if pictures else None),
        scores=scores_of(pictures) if pictures else (),
        limits_reason=pictures.limits.reason if pictures and pictures.limits else "",
        figures=_figures(record),
        seconds=seconds_per_image(record),
        settings=settings,
        group=_group(record),
        command=rerun_record(record, run.info.rerun_options if run.info else ()),
    )


def _work_verdicts(record: Record) -> tuple[Chip, ...]:
    """The verdict on the work, unless the verdict of the case already says it."""
    known = (Verdict.SAME_WORK, record.verdict)
    if not record.work or record.work.verdict in known or record.verdict == Verdict.WORK_MISSING:
        return ()
    return (_chip_of_work(record.work.verdict),)


def _group(record: Record) -> dict[str, str]:
    return {
        "model": record.model,
        "verdict": record.verdict,
        "scheduler": str(record.settings.get("scheduler", "")),
        "dtype": str(record.settings.get("dtype", "")),
        "work": record.work.verdict if record.work else "",
    }


def _figures(record: Record) -> tuple[tuple[str, Value], ...]:
    phases = record.phases_s
    found = {
        "time per image": seconds(seconds_per_image(record)),
        "median of the calls": seconds(record.median_s),
        "median absolute deviation": seconds(record.mad_s),
        **{f"call {number}": seconds(value) for number, value in enumerate(record.samples_s, start=1)},
        "load": seconds(record.load_s),
        "first call" if record.first_call_cold is not False else "first call, of a warm pipeline": seconds(
            record.first_call_s
        ),
        "text encoding": seconds(phases.text_encoding) if phases else Value(""),
        "denoising": seconds(sum(phases.denoising)) if phases else Value(""),
        "decoding": seconds(phases.decoding) if phases else Value(""),
        "peak memory": mebibytes(record.peak_memory_bytes)
        if record.peak_memory_bytes is not None
        else Value(f"not known: {record.peak_memory_reason}" if record.peak_memory_reason else ""),
        "UNet calls": count(record.unet_calls),
        **_work_figures(record),
    }
    return tuple((name, value) for name, value in found.items() if value.text)


def _work_figures(record: Record) -> dict[str, Value]:
    if not record.work:
        return {}
    sums = sums_of(record.work.counts or {})
    return {"work": Value(record.work.message)} | {name: count(amount) for name, amount in sums.items()}


def _headline(runs: Sequence[RunFiles], entries: Sequence[CaseEntry]) -> tuple[str, Kind]:
    shards = [run.info.shard for run in runs if run.info and run.info.is_empty_shard]
    if not entries and len(runs) == 1 and shards[0:1] and shards[0]:
        return f"Shard {shards[0]} has none of the {len(shards[0].chosen):,} cases.", Kind.GOOD
    if not entries:
        return "No case ran, so nothing was checked.", Kind.BAD
    failed = [entry for entry in entries if entry.failed]
    if failed:
        words = Counter(entry.verdict.word for entry in failed)
        counts = ", ".join(f"{number} {word}" for word, number in words.most_common())
        return f"{len(failed)} of {plural(len(entries), 'case')} failed: {counts}.", Kind.BAD
    if _problems(runs):
        return f"{plural(len(entries), 'case')} passed, but the run is incomplete.", Kind.BAD
    less = _cases_with_less(entries)
    identical = sum(entry.verdict.word == Verdict.IDENTICAL for entry in entries)
    exactly = " exactly" if identical == len(entries) else ""
    if len(entries) == 1:
        return f"The one case looks{exactly} like its golden{less}.", Kind.GOOD
    some = "" if exactly else f", {identical} of them exactly"
    return f"All {len(entries):,} cases look{exactly} like their goldens{some}{less}.", Kind.GOOD


def _cases_with_less(entries: Sequence[CaseEntry]) -> str:
    number = sum(verdict.word == Verdict.LESS_WORK for entry in entries for verdict in entry.more)
    return f"; {number} with less work" if number else ""


def _counts(runs: Sequence[RunFiles], entries: Sequence[CaseEntry]) -> list[Count]:
    words = Counter(entry.verdict for entry in entries)
    counts = [("verdict", verdict, number) for verdict, number in words.most_common()]
    work = Counter(
        entry.group["work"] for entry in entries if entry.group["work"] and entry.verdict.word != Verdict.REFERENCE
    )
    counts += [("work", _chip_of_work(word), number) for word, number in work.most_common()]
    for reason, number in _left_out(runs).items():
        counts.append(("", Chip(f"left out: {reason}", Kind.NOTE), number))
    return counts


def _left_out(runs: Sequence[RunFiles]) -> dict[str, int]:
    """Shards leave out the same cases, so the largest number of each reason counts."""
    left_out: dict[str, int] = {}
    for run in runs:
        for reason, number in (run.info.left_out if run.info else {}).items():
            left_out[reason] = max(left_out.get(reason, 0), number)
    return left_out


def _problems(runs: Sequence[RunFiles]) -> tuple[str, ...]:
    """What the runs did not do."""
    ended = [record.case for run in runs for record in run.records]
    return tuple(text for run in runs if run.info for text in run.info.problems(ended))


def _warnings(runs: Sequence[RunFiles]) -> tuple[str, ...]:
    across = across_devices(record for run in runs for record in run.records)
    return (*_problems(runs), *([f"{across}."] if across else []))


def _times_warnings(runs: Sequence[RunFiles]) -> tuple[str, ...]:
    """Which runs have times that cannot be compared, and why."""
    found = {run.name: run.info.times_warning for run in runs if run.info and run.info.times_warning}
    return tuple(f"{name}: {text}" if len(runs) > 1 else text for name, text in found.items())


def _facts(runs: Sequence[RunFiles]) -> tuple[tuple[str, str], ...]:
    environments = [environment for run in runs for environment in run.environments.values()]
    facts = [("run" if len(runs) == 1 else "runs", ", ".join(run.name for run in runs))]
    for run in runs:
        if run.info:
            facts.append(("when", run.info.span))
            facts.append(("command", run.info.command))
    devices = [f"{one.get('device')} ({one.get('device_name')}), {one.get('threads')} threads" for one in environments]
    facts += [("device", text) for text in dict.fromkeys(devices)]
    libraries = [_libraries(one) for one in environments]
    facts += [("libraries", text) for text in dict.fromkeys(libraries)]
    return tuple(dict.fromkeys(facts))


def _libraries(environment: Mapping[str, Any]) -> str:
    versions = environment.get("libraries", {})
    shown = ("torch", "diffusers", "transformers", "accelerate")
    return ", ".join(f"{name} {versions[name]}" for name in shown if versions.get(name))


def _environments(runs: Sequence[RunFiles]) -> tuple[NamedEnvironment, ...]:
    sides = {key: environment for run in runs for key, environment in run.environments.items()}
    return tuple(NamedEnvironment(f"environment {key}", flattened(environment)) for key, environment in sides.items())


def flattened(environment: Mapping[str, Any]) -> dict[str, str]:
    """Nested values in one level, with spaces in their names, other than those of environment variables, as text."""
    flat: dict[str, str] = {}
    for name, value in environment.items():
        if isinstance(value, Mapping):
            flat |= flattened(value)
        else:
            flat[name if name.isupper() else name.replace("_", " ")] = "none" if value is None else str(value)
    return flat


def _sections(shown: Sequence[Timed], runs: Sequence[RunFiles]) -> tuple[Section, ...]:
    return (*_measured_sections(shown, runs), *_work_section(shown))


def _work_section(shown: Sequence[Timed]) -> tuple[Section, ...]:
    """A row of sums for each case whose work was counted."""
    counted = [(one, one.record.work) for one in shown if one.record.work and one.record.work.counts]
    if not counted:
        return ()
    columns = tuple(dict.fromkeys(name for _, work in counted for name in sums_of(work.counts or {})))
    rows = []
    for one, work in counted:
        sums = sums_of(work.counts or {})
        amounts = (count(sums.get(name)) for name in columns)
        rows.append((Value(one.name), Value(work.verdict), *amounts))
    keys = tuple(one.key for one, _ in counted)
    table = Table("All counts", ("case", "verdict", *columns), tuple(rows), keys)
    return (Section("work", "Work", tables=(table,), notes=("Counts of one call of each case, without timing.",)),)


def _measured_sections(timed: Sequence[Timed], runs: Sequence[RunFiles]) -> tuple[Section, ...]:
    measured = [one for one in timed if one.record.median_s is not None]
    if not measured:
        return ()
    reasons = {one.record.peak_memory_reason for one in measured if one.record.peak_memory_reason}
    speed = Section(
        "speed",
        "Speed",
        tuple(speed_charts(measured)),
        (_times_table(measured),),
        tuple(f"Peak memory is not known: {reason}." for reason in sorted(reasons)),
    )
    return (speed, *_quality(measured, runs))


def _times_table(timed: Sequence[Timed]) -> Table:
    def row(one: Timed) -> tuple[Value, ...]:
        record = one.record
        phases = record.phases_s
        return (
            Value(one.name),
            seconds(seconds_per_image(record)),
            seconds(record.median_s),
            seconds(record.mad_s),
            seconds(record.load_s),
            seconds(record.first_call_s),
            seconds(phases.text_encoding if phases else None),
            seconds(sum(phases.denoising) if phases else None),
            seconds(phases.decoding if phases else None),
            mebibytes(record.peak_memory_bytes),
            count(record.unet_calls),
        )

    columns = (
        "case", "time per image", "median call", "deviation (MAD)", "load", "first call", "text encoding", "denoising",
        "decoding", "peak memory", "UNet calls",
    )  # fmt: skip
    return Table("All times", columns, tuple(map(row, timed)), tuple(one.key for one in timed))


def _quality(timed: Sequence[Timed], runs: Sequence[RunFiles]) -> tuple[Section, ...]:
    charts: list[Chart] = []
    rows: list[tuple[Value, ...]] = []
    keys: list[str] = []
    notes = []
    for run in runs:
        own = {record.case for record in run.records}
        key_of_case = {one.record.case: one.key for one in timed if one.record.case in own}
        for comparison in compare_with_references(run.records, run.folder / "grids"):
            charts.append(quality_chart(comparison, key_of_case))
            front = {point.case for point in comparison.front}
            for point in sorted(comparison.points, key=lambda point: point.seconds):
                best = Value("yes" if point.case in front else "")
                rows.append((Value(point.case), ssim(point.ssim), seconds(point.seconds), best))
                keys.append(key_of_case[point.case])
            if comparison.left_out:
                left_out = plural(comparison.left_out, "case")
                notes.append(f"{comparison.model}: left out {left_out} with other prompts, seeds or sizes.")
    if not charts:
        return ()
    columns = ("case", "SSIM to the reference", "time per image", "best for its time")
    table = Table("Similarity to each model's reference, and time", columns, tuple(rows), tuple(keys))
    return (Section("quality", "Quality against speed", tuple(charts), (table,), tuple(notes)),)


def _story_of_comparison(runs: Sequence[RunFiles]) -> Story:
    """Compares each case of a later run with the first run that has it."""
    first: dict[str, tuple[RunFiles, Record]] = {}
    entries, timed = [], []
    compared: dict[str, list[Record]] = {}
    for run in runs:
        for record in run.records:
            key = key_of(record.case, run.name)
            timed.append(Timed(record, key, run.name))
            if record.case in first:
                after = _compared_record(first[record.case], (run, record))
                compared.setdefault(run.name, []).append(after)
                entries.append(_compared_entry(first[record.case], (run, after), key))
            else:
                first[record.case] = (run, record)
                entries.append(_alone_entry(run, record, key))
    gaps = _gaps(runs)
    headline, kind = _headline_of_comparison(entries, gaps)
    not_run: list[Count] = [("", _chip_of_case(Verdict.NOT_RUN), len(gap.cases)) for gap in gaps]
    return Story(
        headline=headline,
        kind=kind,
        counts=worst_first([*not_run, *_counts(runs, entries)]),
        facts=_facts(runs),
        entries=_failures_first(entries),
        warnings=(
            *(f"Not run in {gap.run}: {named(gap.cases)}." for gap in gaps),
            *_warnings(runs),
            *(f"Times were not compared: {text}" for text in _times_warnings(runs)),
            "Separate runs cannot tell whether the libraries or the machine changed speed; the upgrade check can.",
        ),
        sections=_sections(timed, runs),
        environments=_environments(runs),
        groups=tuple(
            card
            for name, records in compared.items()
            for card in group_cards(
                record_groups(records), partial(_key_in_run, name), name if len(compared) > 1 else ""
            )
        ),
    )


@dataclass(frozen=True)
class _Gap:
    """The cases that a run lacks, out of the ``known`` ones of earlier runs."""

    run: str
    cases: tuple[str, ...]
    known: int

    @property
    def sentence(self) -> str:
        were = "was" if len(self.cases) == 1 else "were"
        return f"{len(self.cases):,} of {plural(self.known, 'case')} {were} not run in {self.run}"


def _gaps(runs: Sequence[RunFiles]) -> list[_Gap]:
    """A gap for each later run that lacks cases; shards count as one run."""
    gaps = []
    known: dict[str, None] = {}
    for shards in _together(runs):
        ended = dict.fromkeys(record.case for run in shards for record in run.records)
        missing = tuple(case for case in known if case not in ended)
        if missing:
            gaps.append(_Gap(", ".join(run.name for run in shards), missing, len(known)))
        known |= ended
    return gaps


def _together(runs: Sequence[RunFiles]) -> list[list[RunFiles]]:
    """Groups the runs: consecutive ones without a common case are shards of one run."""
    groups: list[list[RunFiles]] = []
    seen: set[str] = set()
    for run in runs:
        cases = {record.case for record in run.records}
        if not groups or cases & seen:
            groups.append([])
            seen = set()
        groups[-1].append(run)
        seen |= cases
    return groups


def _headline_of_comparison(entries: Sequence[CaseEntry], gaps: Sequence[_Gap]) -> tuple[str, Kind]:
    compared = [entry for entry in entries if entry.verdict.word != Verdict.REFERENCE]
    changed = [entry for entry in compared if entry.verdict.kind is Kind.BAD]
    if changed:
        words = Counter(entry.verdict.word for entry in changed)
        counts = ", ".join(f"{number} {word}" for word, number in words.most_common())
        pictures = f"{len(changed)} of {plural(len(compared), 'compared case')} changed between the runs: {counts}"
    else:
        all_have = "the one compared case has" if len(compared) == 1 else f"all {len(compared):,} compared cases have"
        pictures = f"{all_have} the same pictures in these runs"
    text = "; ".join([*(gap.sentence for gap in gaps), pictures])
    return f"{text[0].upper()}{text[1:]}.", Kind.BAD if changed or gaps else Kind.GOOD


def _alone_entry(run: RunFiles, record: Record, key: str) -> CaseEntry:
    """A case of the run that others are compared with, so it has no problems here."""
    return replace(
        _entry(run, record, key),
        title=f"{record.case} ({run.name})",
        verdict=_chip_of_case(Verdict.REFERENCE),
        more=(Chip(record.verdict, Kind.GOOD if Verdict(record.verdict).passes else Kind.UNSURE),),
        problems=(),
        notes=(),
        before=None,
        after=kept_picture(run.folder, record.case, "", run.name),
        tiles=tiles_of(record.settings, None),
        scores=(),
        limits_reason="",
    )


def _key_in_run(run: str, case: str) -> str:
    return key_of(case, run)


def _compared_record(before: tuple[RunFiles, Record], after: tuple[RunFiles, Record]) -> Record:
    """The later record, with pictures and work compared with those of the earlier one."""
    (old_run, old), (run, record) = before, after
    pictures = _compared_pictures(old_run, old, run, record)
    work = _compared_work(old, record)
    verdict = Verdict(pictures.verdict)
    if work and Verdict(work.verdict).is_worse:
        verdict = worst((verdict, Verdict(work.verdict)))
    return record.model_copy(update={"pictures": pictures, "work": work, "verdict": str(verdict)})


def _compared_entry(before: tuple[RunFiles, Record], after: tuple[RunFiles, Record], key: str) -> CaseEntry:
    """Args:
    after: as ``_compared_record`` gives it.
    """
    (old_run, old), (run, record) = before, after
    pictures, work = record.pictures, record.work
    assert pictures
    of_pictures = Verdict(pictures.verdict)
    problems = [] if of_pictures.passes else [pictures.message]
    notes = [pictures.message] if of_pictures is Verdict.RAISES_AS_BEFORE else []
    if work and Verdict(work.verdict).is_worse:
        problems.append(work.message)
    elif work and work.verdict == Verdict.LESS_WORK:
        notes.append(work.message)
    faster = []
    if old.median_s and record.median_s and not _times_warnings((old_run, run)):
        ratio = record.median_s / old.median_s
        faster = [("time of a call against the earlier run", Value(f"{ratio - 1:+.1%}", ratio))]
    return replace(
        _alone_entry(run, record, key),
        verdict=_chip_of_case(record.verdict),
        problems=tuple(problems),
        notes=tuple(notes),
        before=kept_picture(old_run.folder, old.case, "", old_run.name),
        tiles=tiles_of(record.settings, pictures.ssim_tiles),
        scores=scores_of(pictures),
        limits_reason=pictures.limits.reason if pictures.limits else "",
        figures=(*faster, *_figures(record)),
        group=_group(record),
    )


def _compared_work(old: Record, record: Record) -> ComparedWork | None:
    """Compares the work with that of the earlier run, if both counted it on the same type of device."""
    before, after = old.work, record.work
    if not before or not after or not before.counts or not after.counts:
        return None
    if old.device.partition(":")[0] != record.device.partition(":")[0]:
        return None
    found = compare_work(Work.from_json(after.counts), Work.from_json(before.counts))
    return after.model_copy(update={"verdict": found.verdict, "message": found.message})


def _compared_pictures(old_run: RunFiles, old: Record, run: RunFiles, record: Record) -> Pictures:
    """Compares pictures within the limits for one type of device; without pictures, compares the errors."""
    tiles = [_tiles(one, of) for one, of in ((old_run, old), (run, record))]
    if not all(tiles):
        return _compared_errors(*(None if made else one for made, one in zip(tiles, (old, record), strict=True)))
    limits = default_limits(record.settings["dtype"], PORTABLE)
    try:
        similarity = compare(tiles[1], tiles[0])
    except Incomparable as error:
        return Pictures(verdict=Verdict.BROKEN, message=str(error))
    return Pictures.of(
        similarity,
        verdict=similarity.verdict(limits),
        message=", ".join(similarity.excesses(limits)),
        limits=limits,
    )


def _compared_errors(old: Record | None, new: Record | None) -> Pictures:
    """Compares the errors of two records; ``None`` stands for a record with pictures."""
    before, now = (record.error if record else None for record in (old, new))
    if any(record and not record.error for record in (old, new)):
        return Pictures(verdict=Verdict.MISSING, message="one of the runs has no picture of this case")
    verdict = verdict_of_errors(before, now)
    if now is None:
        return Pictures(verdict=verdict, message=f"{verdict}; it raised {before.sentence if before else ''}")
    instead = f" instead of {before.sentence}" if verdict is Verdict.RAISES_ELSE and before else ""
    return Pictures(verdict=verdict, message=f"{verdict}: {now.sentence}{instead}")


def _tiles(run: RunFiles, record: Record) -> list[Image.Image]:
    picture = kept_picture(run.folder, record.case, "", run.name)
    if not picture:
        return []
    with Image.open(picture.path) as opened:
        return split_grid(opened.convert("RGB"), record.settings["images"])
