"""From the records and grids of one run, of its shards, or of several runs, to a story."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from bench.calls.work import LESS_WORK, MORE_WORK, SAME_WORK, Work, compare_work
from bench.pictures.check import BROKEN, MISSING, NOT_COMPARED, PASSED, WORK_MISSING
from bench.pictures.compared import ComparedWork, Pictures
from bench.pictures.grids import split_grid
from bench.pictures.limits import PORTABLE, default_limits
from bench.pictures.similarity import IDENTICAL, Incomparable, compare
from bench.record.folder import ENVIRONMENTS, RECORDS
from bench.record.notes import RunNotes, read_notes
from bench.record.record import Record, read_records
from bench.report.plots import Timed, quality_chart, speed_charts
from bench.report.quality import compare_with_references, seconds_per_image
from bench.report.reasons import BAD_WORK, across_devices, reasons, saved_work
from bench.report.rerun import rerun_record
from bench.report.story import (
    BAD,
    GOOD,
    NOTE,
    UNSURE,
    Chart,
    Count,
    Entry,
    Section,
    Side,
    Story,
    Table,
    Value,
    Verdict,
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

FIRST = "compared with"


@dataclass(frozen=True)
class RunFiles:
    """What a run left in its folder."""

    folder: Path
    records: tuple[Record, ...]
    environments: Mapping[str, Mapping[str, Any]]
    notes: RunNotes | None

    @property
    def name(self) -> str:
        return self.folder.name


def read_run(folder: Path) -> RunFiles:
    """Reads a run's folder; of a case that was run again there, the last record counts.

    Raises:
        ValueError: a file is not what it should be; names it.
    """
    path = folder / RECORDS
    last = {record.case: record for record in (read_records(path) if path.is_file() else [])}
    environments = folder / ENVIRONMENTS
    try:
        known = json.loads(environments.read_text(encoding="utf-8")) if environments.is_file() else {}
        notes = read_notes(folder)
    except ValueError as error:
        raise ValueError(f"{folder}: {str(error).splitlines()[0]}") from None
    return RunFiles(folder, tuple(last.values()), known, notes)


def story_of_runs(runs: Sequence[RunFiles]) -> Story:
    """One run, or shards of one, or, where a case is in several, a comparison with the first run that has it."""
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
        warnings=_warnings(runs),
        sections=_sections([Timed(record, keys[record.case]) for _, record in shown], runs),
        environments=_environments(runs),
    )


def verdict_of(word: str) -> Verdict:
    return Verdict(word, GOOD if word in PASSED else NOTE if word == NOT_COMPARED else BAD)


def _work_verdict(word: str) -> Verdict:
    return Verdict(word, BAD if word in BAD_WORK else NOTE if word == NOT_COMPARED else GOOD)


def _failures_first(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """The least like its golden first; what has no score at all before that."""

    def badness(entry: Entry) -> tuple[bool, float]:
        return not entry.failed, -1.0 if entry.worst_ssim is None else entry.worst_ssim

    return tuple(sorted(entries, key=lambda entry: badness(entry) if entry.failed else (True, 0.0)))


def _entry(run: RunFiles, record: Record, key: str) -> Entry:
    pictures = record.pictures
    settings = record.settings
    saved = saved_work(record)
    return Entry(
        key=key,
        title=record.case,
        verdict=verdict_of(record.verdict),
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
        command=rerun_record(record, run.notes.rerun_options if run.notes else ()),
    )


def _work_verdicts(record: Record) -> tuple[Verdict, ...]:
    """What the verdict of the case does not say already."""
    if not record.work or record.work.verdict in (SAME_WORK, record.verdict) or record.verdict == WORK_MISSING:
        return ()
    return (_work_verdict(record.work.verdict),)


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
        "first call": seconds(record.first_call_s),
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


def _headline(runs: Sequence[RunFiles], entries: Sequence[Entry]) -> tuple[str, str]:
    if not entries:
        return "No case ran, so nothing was checked.", BAD
    failed = [entry for entry in entries if entry.failed]
    if failed:
        words = Counter(entry.verdict.word for entry in failed)
        told = ", ".join(f"{number} {word}" for word, number in words.most_common())
        return f"{len(failed)} of {plural(len(entries), 'case')} failed: {told}.", BAD
    if _warnings(runs):
        return f"{plural(len(entries), 'case')} passed, but the run is not whole.", BAD
    less = _cases_with_less(entries)
    identical = sum(entry.verdict.word == IDENTICAL for entry in entries)
    if identical == len(entries):
        return f"All {plural(len(entries), 'case')} look exactly like their goldens{less}.", GOOD
    return f"All {plural(len(entries), 'case')} look like their goldens, {identical} of them exactly{less}.", GOOD


def _cases_with_less(entries: Sequence[Entry]) -> str:
    number = sum(verdict.word == LESS_WORK for entry in entries for verdict in entry.more)
    return f"; {number} with less work" if number else ""


def _counts(runs: Sequence[RunFiles], entries: Sequence[Entry]) -> list[Count]:
    words = Counter(entry.verdict for entry in entries)
    counts = [("verdict", verdict, number) for verdict, number in words.most_common()]
    work = Counter(entry.group["work"] for entry in entries if entry.group["work"] and entry.verdict.word != FIRST)
    counts += [("work", _work_verdict(word), number) for word, number in work.most_common()]
    for reason, number in _left_out(runs).items():
        counts.append(("", Verdict(f"left out: {reason}", NOTE), number))
    return counts


def _left_out(runs: Sequence[RunFiles]) -> dict[str, int]:
    """Cases left out in all runs alike are told once: shards leave out the same ones."""
    left_out: dict[str, int] = {}
    for run in runs:
        for reason, number in (run.notes.left_out if run.notes else {}).items():
            left_out[reason] = max(left_out.get(reason, 0), number)
    return left_out


def _warnings(runs: Sequence[RunFiles]) -> tuple[str, ...]:
    ended = [record.case for run in runs for record in run.records]
    shortcomings = tuple(text for run in runs if run.notes for text in run.notes.shortcomings(ended))
    across = across_devices(record for run in runs for record in run.records)
    return (*shortcomings, f"{across}.") if across else shortcomings


def _facts(runs: Sequence[RunFiles]) -> tuple[tuple[str, str], ...]:
    environments = [environment for run in runs for environment in run.environments.values()]
    facts = [("run" if len(runs) == 1 else "runs", ", ".join(run.name for run in runs))]
    for run in runs:
        if run.notes:
            facts.append(("when", run.notes.span))
            facts.append(("command", run.notes.command))
    devices = [f"{one.get('device')} ({one.get('device_name')}), {one.get('threads')} threads" for one in environments]
    facts += [("device", text) for text in dict.fromkeys(devices)]
    libraries = [_libraries(one) for one in environments]
    facts += [("libraries", text) for text in dict.fromkeys(libraries)]
    return tuple(dict.fromkeys(facts))


def _libraries(environment: Mapping[str, Any]) -> str:
    versions = environment.get("libraries", {})
    shown = ("torch", "diffusers", "transformers", "accelerate")
    return ", ".join(f"{name} {versions[name]}" for name in shown if versions.get(name))


def _environments(runs: Sequence[RunFiles]) -> tuple[Side, ...]:
    sides = {key: environment for run in runs for key, environment in run.environments.items()}
    return tuple(Side(f"environment {key}", flattened(environment)) for key, environment in sides.items())


def flattened(environment: Mapping[str, Any]) -> dict[str, str]:
    """Nested names joined by a blank, values as text."""
    flat: dict[str, str] = {}
    for name, value in environment.items():
        if isinstance(value, Mapping):
            flat |= flattened(value)
        else:
            flat[name.replace("_", " ")] = "none" if value is None else str(value)
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
    table = Table("All that was counted", ("case", "verdict", *columns), tuple(rows), keys)
    return (Section("work", "Work", tables=(table,), notes=("One call of each case, counted and not timed.",)),)


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
                notes.append(f"{comparison.model}: {comparison.left_out} cases show something else and are left out.")
    if not charts:
        return ()
    columns = ("case", "SSIM to the reference", "time per image", "best for its time")
    table = Table("Likeness to each model's reference, and time", columns, tuple(rows), tuple(keys))
    return (Section("quality", "Quality against speed", tuple(charts), (table,), tuple(notes)),)


def _story_of_comparison(runs: Sequence[RunFiles]) -> Story:
    """Each case of a later run beside that of the first run that has it."""
    first: dict[str, tuple[RunFiles, Record]] = {}
    entries, timed = [], []
    for run in runs:
        for record in run.records:
            key = key_of(record.case, run.name)
            timed.append(Timed(record, key, run.name))
            if record.case in first:
                entries.append(_compared_entry(first[record.case], (run, record), key))
            else:
                first[record.case] = (run, record)
                entries.append(_alone_entry(run, record, key))
    changed = [entry for entry in entries if entry.verdict.kind == BAD]
    compared = [entry for entry in entries if entry.verdict.word != FIRST]
    if changed:
        words = Counter(entry.verdict.word for entry in changed)
        told = ", ".join(f"{number} {word}" for word, number in words.most_common())
        headline = f"{len(changed)} of {plural(len(compared), 'compared case')} changed between the runs: {told}."
    else:
        headline = f"All {plural(len(compared), 'compared case')} have the same pictures in these runs."
    return Story(
        headline=headline,
        kind=BAD if changed else GOOD,
        counts=worst_first(_counts(runs, entries)),
        facts=_facts(runs),
        entries=_failures_first(entries),
        warnings=(
            *_warnings(runs),
            "Runs that lie apart cannot tell a change of speed from one of the machine; the upgrade check can.",
        ),
        sections=_sections(timed, runs),
        environments=_environments(runs),
    )


def _alone_entry(run: RunFiles, record: Record, key: str) -> Entry:
    """A case of the run with which others are compared: nothing is wrong with it here."""
    return replace(
        _entry(run, record, key),
        title=f"{record.case} ({run.name})",
        verdict=Verdict(FIRST, NOTE),
        more=(verdict_of(record.verdict),) if record.verdict in PASSED else (Verdict(record.verdict, UNSURE),),
        problems=(),
        notes=(),
        before=None,
        after=kept_picture(run.folder, record.case, "", run.name),
        tiles=tiles_of(record.settings, None),
        scores=(),
        limits_reason="",
    )


def _compared_entry(before: tuple[RunFiles, Record], after: tuple[RunFiles, Record], key: str) -> Entry:
    (old_run, old), (run, record) = before, after
    pictures = _compared_pictures(old_run, old, run, record)
    work = _compared_work(old, record)
    verdict = verdict_of(pictures.verdict)
    problems = [] if verdict.kind == GOOD else [pictures.message]
    if work and work.verdict == MORE_WORK:
        verdict = verdict if verdict.kind == BAD else _work_verdict(MORE_WORK)
        problems.append(work.message)
    record = record.model_copy(update={"work": work})
    faster = []
    if old.median_s and record.median_s:
        ratio = record.median_s / old.median_s
        faster = [("time of a call against the earlier run", Value(f"{ratio - 1:+.1%}", ratio))]
    return replace(
        _alone_entry(run, record, key),
        verdict=verdict,
        problems=tuple(problems),
        notes=(work.message,) if work and work.verdict == LESS_WORK else (),
        before=kept_picture(old_run.folder, old.case, "", old_run.name),
        tiles=tiles_of(record.settings, pictures.ssim_tiles),
        scores=scores_of(pictures),
        limits_reason=pictures.limits.reason if pictures.limits else "",
        figures=(*faster, *_figures(record)),
        group=_group(record) | {"verdict": verdict.word},
    )


def _compared_work(old: Record, record: Record) -> ComparedWork | None:
    """Against the earlier run, where both counted on the same type of device."""
    before, after = old.work, record.work
    if not before or not after or not before.counts or not after.counts:
        return None
    if old.device.partition(":")[0] != record.device.partition(":")[0]:
        return None
    found = compare_work(Work.from_json(after.counts), Work.from_json(before.counts))
    return after.model_copy(update={"verdict": found.verdict, "message": found.message})


def _compared_pictures(old_run: RunFiles, old: Record, run: RunFiles, record: Record) -> Pictures:
    """Judged by the limits of one type of device."""
    tiles = [_tiles(one, of) for one, of in ((old_run, old), (run, record))]
    if not tiles[0] or not tiles[1]:
        return Pictures(verdict=MISSING, message="one of the runs has no picture of this case")
    limits = default_limits(record.settings["dtype"], PORTABLE)
    try:
        similarity = compare(tiles[1], tiles[0])
    except Incomparable as error:
        return Pictures(verdict=BROKEN, message=str(error))
    return Pictures.of(
        similarity,
        verdict=similarity.verdict(limits),
        message=", ".join(similarity.excesses(limits)),
        limits=limits,
    )


def _tiles(run: RunFiles, record: Record) -> list[Image.Image]:
    picture = kept_picture(run.folder, record.case, "", run.name)
    if not picture:
        return []
    with Image.open(picture.path) as opened:
        return split_grid(opened.convert("RGB"), record.settings["images"])
