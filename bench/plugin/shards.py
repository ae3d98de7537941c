"""``--shard 2/5``: which of the chosen cases run here, the same on every machine."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.console import shown
from bench.errors import UsageError
from bench.plugin.session import Session, case_of
from bench.record.folder import RECORDS
from bench.record.record import read_records
from bench.record.run_info import Shard, read_run_info
from bench.suite.case import Case
from bench.suite.split import milliseconds_of, split
from bench.upgrade.outcome import UPGRADE, read_upgrade

# Tests of what the cases of this very run measured.
_OF_THE_SHARD = frozenset({"compared_components", "compared_imports"})
SETTINGS, DURATIONS = "settings", "durations"


def refuse_repeated_cases(items: Sequence[pytest.Item], option: str) -> None:
    """Raises:
    pytest.UsageError: a case has several records in this run, so that nobody could say whether it has ended.
    """
    counts = Counter(case.id for item in items if (case := case_of(item)))
    repeated = next((case for case, count in counts.items() if count > 1), None)
    if repeated:
        raise pytest.UsageError(
            f"{option}: several tests run {repeated}; run bench and golden (-m golden) one after the other."
        )


def choose_shard(config: pytest.Config, session: Session, items: list[pytest.Item]) -> None:
    """Removes the items of other shards, and reports them to pytest as deselected.

    Tests of no case, such as the search for unused goldens, belong to the first shard.

    Raises:
        pytest.UsageError: the expected durations cannot be read, or several tests run the same case.
    """
    asked = session.options.shard
    if not asked or not items:
        return
    if not session.upgrade:
        refuse_repeated_cases(items, "--shard")
    cases = list({case.id: case for item in items if (case := case_of(item))}.values())
    index, count = asked
    milliseconds, basis = _expected(cases, session.options.shard_durations)
    session.shard_cases = tuple(case.id for case in split(cases, milliseconds, count)[index - 1])
    here = set(session.shard_cases)
    session.shard = Shard(index=index, count=count, chosen=tuple(case.id for case in cases), basis=basis)

    def is_here(item: pytest.Item) -> bool:
        case = case_of(item)
        if case:
            return case.id in here
        return bool(here) if _OF_THE_SHARD & set(getattr(item, "fixturenames", ())) else index == 1

    kept = [item for item in items if is_here(item)]
    if len(kept) < len(items):
        config.hook.pytest_deselected(items=[item for item in items if not is_here(item)])
        items[:] = kept


def _expected(cases: Sequence[Case], folder: Path | None) -> tuple[list[int], str]:
    """What each case takes, and what that is known from.

    Nothing is read unless it is named: the latest run of each machine is another one.
    """
    try:
        seconds = read_seconds(folder) if folder else {}
    except UsageError as error:
        raise pytest.UsageError(str(error)) from None
    if folder and not any(case.id in seconds for case in cases):
        raise pytest.UsageError(
            f"--shard-durations: {shown(folder)} has a duration of none of the {len(cases)} chosen cases; give a run "
            "with the same cases."
        )
    milliseconds = milliseconds_of(cases, seconds)
    together = json.dumps(list(zip((case.id for case in cases), milliseconds, strict=True)))
    digits = hashlib.sha256(together.encode()).hexdigest()[:8]
    return milliseconds, f"{DURATIONS if folder else SETTINGS} {digits}"


def read_seconds(folder: Path) -> dict[str, float]:
    """How long each case of a run took, by id.

    Raises:
        UsageError: the folder has no readable run.
    """
    option = "--shard-durations"
    try:
        if (folder / UPGRADE).is_file():
            return {case.case: case.seconds for case in read_upgrade(folder / UPGRADE).cases}
        records = read_records(folder / RECORDS)
    except OSError as error:
        path = error.filename or folder
        raise UsageError(f"{option}: {shown(Path(path))} cannot be read ({error.strerror or error}).") from None
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"{option}: {shown(folder)} is damaged ({reason}); give another run.") from None
    return {record.case: record.seconds for record in records if record.seconds is not None}


def shard_line(session: Session) -> str | None:
    """Which part of the cases this shard has; ``None`` for a run of all cases.

    The controlling process of pytest-xdist collects nothing, so it reads what the others wrote.
    """
    shard, cases = session.shard, session.shard_cases
    if shard is None and (info := read_run_info(session.run.folder.path)):
        shard, cases = info.shard, info.planned
    if shard is None:
        return None
    return f"shard {shard}: {len(cases) or 'none'} of {len(shard.chosen)} cases, split by {shard.basis}"


def is_empty_shard(session: Session) -> bool:
    """Whether other shards have all cases and checks of this run."""
    info = read_run_info(session.run.folder.path)
    return info.is_empty_shard if info else session.shard is not None
