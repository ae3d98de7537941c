"""Merges the shards of a run into one run, and proves that each of its cases ran exactly once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import UsageError
from bench.files import write_atomically
from bench.record.folder import ENVIRONMENTS, RECORDS, RunFolder
from bench.record.record import Record
from bench.record.run_info import (
    RunInfo,
    Shard,
    different_environment,
    different_request,
    named,
    read_run_info,
    write_run_info,
)
from bench.report.from_records import RunFiles, read_run
from bench.report.write import Unreadable
from bench.upgrade.journal import JOURNAL, different_origins
from bench.upgrade.merge import UpgradeShard, different_check, merge_checks
from bench.upgrade.outcome import UPGRADE, UpgradeFound, read_upgrade, write_upgrade
from bench.verdicts import Verdict

BENCHMARK = "benchmark.json"


@dataclass(frozen=True)
class ShardRun:
    """The files of one shard.

    Attributes:
        upgrade: what it found, if it is a shard of an upgrade check that compared any case.
    """

    files: RunFiles
    info: RunInfo
    shard: Shard
    upgrade: UpgradeFound | None

    @property
    def folder(self) -> Path:
        return self.files.folder

    @property
    def name(self) -> str:
        """Such as ``shard 2/5 (results/20261122-065103-4c5f)``."""
        return f"shard {self.shard} ({self.folder.name})"

    @property
    def environment(self) -> Mapping[str, Any]:
        return self.files.environments.get(self.info.environment or "", {})

    @property
    def ended(self) -> tuple[str, ...]:
        """The ids of the cases that ran here."""
        found = [record.case for record in self.files.records]
        return tuple(dict.fromkeys([*found, *(case.case for case in self.upgrade.cases)] if self.upgrade else found))


def read_shards(folders: Sequence[Path]) -> list[ShardRun] | None:
    """The shards in these folders, by index; ``None`` if none of them has one.

    Raises:
        UsageError: only some of the folders have a shard.
        Unreadable: a folder is missing, or a file is invalid.
    """
    try:
        absent = next((folder for folder in folders if not folder.is_dir()), None)
        if absent:
            raise Unreadable(f"{absent}: no such folder; give the folders of runs or shards.")
        infos = {folder: read_run_info(folder) for folder in folders}
        shards = [folder for folder, info in infos.items() if info and info.shard]
        if not shards:
            return None
        others = [folder for folder in folders if folder not in shards]
        if others:
            raise UsageError(
                f"{shards[0]} is a shard and {others[0]} is not: give the shards of one run, or complete runs."
            )
        found = [_read_shard(folder) for folder in folders]
    except (OSError, ValueError) as error:
        raise Unreadable(str(error).splitlines()[0]) from None
    return sorted(found, key=lambda one: one.shard.index)


def _read_shard(folder: Path) -> ShardRun:
    files = read_run(folder.resolve())
    assert files.info
    assert files.info.shard
    path = folder / UPGRADE
    return ShardRun(files, files.info, files.info.shard, read_upgrade(path) if path.is_file() else None)


def problems_of(shards: Sequence[ShardRun]) -> tuple[str, ...]:
    """Why these are not the shards of one run, of which each was given once; a sentence each.

    Cases that did not run are reported by ``RunInfo.problems``.
    """
    found = [f"{one.name} is of another run: {why}." for one in shards[1:] if (why := _difference(shards[0], one))]
    by_index: dict[int, list[ShardRun]] = {}
    for one in shards:
        by_index.setdefault(one.shard.index, []).append(one)
    count = max(one.shard.count for one in shards)
    missing = [f"{index}/{count}" for index in range(1, count + 1) if index not in by_index]
    if missing:
        found.append(f"Missing: {'shard' if len(missing) == 1 else 'shards'} {named(missing)}.")
    for index, same in by_index.items():
        if len(same) > 1:
            found.append(
                f"Shard {index}/{count} was given {len(same)} times: {', '.join(s.folder.name for s in same)}."
            )
    found += [f"{one.name} was cut short." for one in shards if not one.info.ended]
    return (*found, *_wrong_places(shards), *_weights(shards))


def _wrong_places(shards: Sequence[ShardRun]) -> list[str]:
    """Cases that ran in several shards, or without being chosen."""
    places: dict[str, list[ShardRun]] = {}
    for one in shards:
        for case in one.ended:
            places.setdefault(case, []).append(one)
    twice = [case for case, found in places.items() if len(found) > 1]
    sentences = []
    if twice:
        where = " and ".join(one.name for one in places[twice[0]])
        sentences.append(f"{len(twice)} of {len(places)} cases ran in several shards: {named(twice)} (in {where}).")
    strange = [case for case, found in places.items() if case not in found[0].shard.chosen]
    if strange:
        sentences.append(f"{len(strange)} cases ran without being chosen: {named(strange)}.")
    return sentences


def _weights(shards: Sequence[ShardRun]) -> list[str]:
    """Models whose weights differ from shard to shard."""
    known: dict[str, tuple[str, ShardRun]] = {}
    sentences: dict[str, str] = {}
    for one in shards:
        for record in one.files.records:
            if not record.weights or any(name.startswith("lora-") for name in record.settings["optimizations"]):
                continue
            weights, first = known.setdefault(record.model, (record.weights, one))
            if weights != record.weights:
                sentences[record.model] = (
                    f"The weights of {record.model} differ: {weights[:12]} in {first.name}, {record.weights[:12]} in "
                    f"{one.name}."
                )
    return list(sentences.values())


def _difference(first: ShardRun, other: ShardRun) -> str | None:
    """Why another shard is of another run than the first one; ``None`` if it is not."""
    if first.shard.count != other.shard.count:
        return f"it is one of {other.shard.count} shards, {first.name} is one of {first.shard.count}"
    why = different_request(first.info, other.info.suite, other.info.options)
    why = why or different_environment(first.environment, other.environment)
    if why:
        return why
    chosen = set(first.shard.chosen), set(other.shard.chosen)
    if first.shard.chosen != other.shard.chosen:
        apart = sorted(chosen[0] ^ chosen[1])
        return f"other cases were chosen for it ({named(apart) if apart else 'in another order'})"
    if first.shard.basis != other.shard.basis:
        return f"the split was by {first.shard.basis} and is by {other.shard.basis}"
    if first.upgrade and other.upgrade:
        return different_check(first.upgrade, other.upgrade) or different_origins(
            first.folder / JOURNAL, other.folder / JOURNAL
        )
    return None


def merged_info(shards: Sequence[ShardRun], command: str) -> RunInfo:
    """The run that these shards are parts of."""
    first = shards[0].info
    ends = [one.info.ended for one in shards]
    left_out: dict[str, int] = {}
    for one in shards:
        left_out |= {reason: max(left_out.get(reason, 0), count) for reason, count in one.info.left_out.items()}
    failures = [f"{one.name}: {failure}" for one in shards for failure in one.info.other_failures]
    return RunInfo(
        schema=1,
        command=command,
        began=min(one.info.began for one in shards),
        ended=max((end for end in ends if end), default=None),
        planned=tuple(dict.fromkeys(case for one in shards for case in one.shard.chosen)),
        left_out=left_out,
        rerun_options=first.rerun_options,
        other_failures=(*problems_of(shards), *failures, *_undecided(shards)),
        environment=first.environment,
        suite=first.suite,
        options=first.options,
    )


def _undecided(shards: Sequence[ShardRun]) -> list[str]:
    """What ``--must-decide`` failed for."""
    return [
        f"{case.case}: speed: {Verdict.CANNOT_TELL} within --budget (--must-decide)."
        for one in shards
        if one.upgrade and one.info.options.get("must_decide")
        for case in one.upgrade.cases
        if case.speed and case.speed.verdict == Verdict.CANNOT_TELL
    ]


def merge_shards(shards: Sequence[ShardRun], folder: RunFolder, command: str, announce: Callable[[str], None]) -> bool:
    """Writes the merged run into its folder.

    Args:
        shards: at least one.

    Returns:
        Whether it passes: each case ran exactly once, and nothing failed.

    Raises:
        FolderError: the folder cannot be created.
        OSError: a file cannot be written.
    """
    path = folder.make()
    records: list[Record] = []
    environments: dict[str, Any] = {}
    for one in shards:
        announce(f"{one.name}: {len(one.ended)} of {len(one.shard.chosen)} cases")
        if (one.folder / "grids").is_dir():
            shutil.copytree(one.folder / "grids", path / "grids", dirs_exist_ok=True)
        records += one.files.records
        environments |= one.files.environments
    order = {case: number for number, case in enumerate(shards[0].shard.chosen)}
    records.sort(key=lambda record: order.get(record.case, len(order)))
    info = merged_info(shards, command)
    if records:
        write_atomically(path / RECORDS, "".join(record.to_line() for record in records))
    write_atomically(path / ENVIRONMENTS, json.dumps(environments, indent=2) + "\n")
    _merge_benchmarks(shards, path / BENCHMARK)
    passes = not any(Verdict(record.verdict).fails for record in records)
    checks = [UpgradeShard(f"shard {one.shard}", one.upgrade) for one in shards if one.upgrade]
    if checks:
        found = merge_checks(checks, info.planned)
        write_upgrade(path / UPGRADE, found)
        passes = not found.problems
    write_run_info(path, info)
    return passes and not info.problems(case for one in shards for case in one.ended)


def _merge_benchmarks(shards: Sequence[ShardRun], path: Path) -> None:
    """The benchmarks of all shards in one file of pytest-benchmark, with the machine of the first."""
    files = [one.folder / BENCHMARK for one in shards if (one.folder / BENCHMARK).is_file()]
    documents = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    if documents:
        benchmarks = [entry for document in documents for entry in document["benchmarks"]]
        write_atomically(path, json.dumps({**documents[0], "benchmarks": benchmarks}, indent=4) + "\n")
