"""What an interrupted run has done already, so that it can continue in its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.console import shown
from bench.errors import UsageError
from bench.record.folder import ENVIRONMENTS, RECORDS
from bench.record.record import Record, read_records
from bench.record.run_info import FILE, RunInfo, different_environment, different_request, named, read_run_info

# Exceptions that end a run, not a case.
_INTERRUPTIONS = ("KeyboardInterrupt", "SystemExit", "Exit")


@dataclass(frozen=True)
class Interrupted:
    """A run that is continued.

    Attributes:
        records: of the cases that have ended, by id.
    """

    folder: Path
    info: RunInfo
    environments: Mapping[str, Mapping[str, Any]]
    records: Mapping[str, Record]

    def refuse_other_environment(self, environment: Mapping[str, Any]) -> None:
        """Raises:
        UsageError: some of its cases ran in an environment whose cases cannot count as one run with new ones.
        """
        for before in self.environments.values():
            self._refuse(different_environment(before, environment))

    def refuse_other_request(self, suite: str, options: Mapping[str, Any]) -> None:
        """Raises:
        UsageError: something else was to be done with each case.
        """
        self._refuse(different_request(self.info, suite, options))

    def refuse_other_shard(self, shard: str | None) -> None:
        """Raises:
        UsageError: it is another shard, or only one of the two runs is a shard.
        """
        before = self.info.shard and str(self.info.shard)
        self._refuse(None if before == shard else f"the shard was {before} and is {shard}")

    def refuse_other_cases(self, planned: set[str]) -> None:
        """Raises:
        UsageError: the run was to run other cases.
        """
        before = set(self.info.planned)
        more, less = sorted(planned - before), sorted(before - planned)
        parts = [f"with {named(more)}"] if more else []
        parts += [f"without {named(less)}"] if less else []
        self._refuse(f"the cases are now {' and '.join(parts)}" if parts else None)

    def _refuse(self, difference: str | None) -> None:
        if difference:
            raise UsageError(
                f"--resume: {shown(self.folder)} is another run ({difference}); give the same options, or leave out "
                "--resume."
            )


def read_interrupted(folder: Path) -> Interrupted:
    """Raises:
    UsageError: the folder has no run, or one that cannot be read.
    """
    path = folder / FILE
    try:
        info = read_run_info(folder)
        if info is None:
            raise UsageError(f"--resume: {shown(path)} is missing; give the folder of a run, or leave out --resume.")
        path = folder / ENVIRONMENTS
        environments = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        path = folder / RECORDS
        records = read_records(path) if path.is_file() else []
    except OSError as error:
        raise UsageError(f"--resume: {shown(path)} cannot be read ({error.strerror or error}).") from None
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--resume: {shown(path)} is damaged ({reason}); start the run again.") from None
    ended = {record.case: record for record in records if not _was_interrupted(record)}
    return Interrupted(folder, info, environments, ended)


def _was_interrupted(record: Record) -> bool:
    return record.error is not None and record.error.type in _INTERRUPTIONS
