"""Runs cases under one side: makes its environment, starts a worker, and collects the pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.installs.environments import environment_of
from bench.installs.installed import Environment
from bench.installs.sides import parse_side
from bench.installs.uv import EnvironmentFailed
from bench.upgrade.imports import check_side
from bench.upgrade.side_results import PictureProcesses, SideResult
from bench.upgrade.workers import TIMEOUT_S, Sides, WorkerBroken, WorkerProcess, is_loss

NOT_INSTALLED, NOT_IMPORTED = "not installed", "not imported"


class Unusable(BenchError):
    """A side cannot run any case.

    Attributes:
        status: ``not installed`` or ``not imported``.
        libraries: what is installed, if the environment was made.
    """

    def __init__(self, status: str, reason: str, libraries: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.libraries = dict(libraries or {})


def loss(found: SideResult | Unusable) -> str | None:
    """Why nothing is known about a side: its process was killed, ended or hung, maybe not by its release."""
    error = str(found) if isinstance(found, Unusable) else found.error
    return error if is_loss(error) else None


@dataclass(frozen=True)
class Bench:
    """Makes environments and runs cases there.

    Attributes:
        environments: where environments are cached.
        forks: whether fresh processes are forked; see ``started_worker``.
        announce: called with lines on the progress.
    """

    environments: Path
    forks: bool
    announce: Callable[[str], None]

    def environment(self, side: str) -> Environment:
        """The environment of a side.

        Raises:
            Unusable: it cannot be resolved, built or installed.
        """
        try:
            return environment_of(parse_side(side, Path.cwd()), self.environments, self.announce)
        except EnvironmentFailed as error:
            raise Unusable(NOT_INSTALLED, str(error)) from None

    def pictures(
        self, side: str, requests: Mapping[str, dict[str, Any]], progress: Callable[[int], None] = lambda done: None
    ) -> tuple[Environment, dict[str, SideResult]]:
        """The environment of a side, and its result for each case.

        Args:
            requests: with which a worker loads each case; see ``load_request``.
            progress: called with the number of cases that are done.

        Raises:
            Unusable: the side cannot be installed, or its libraries cannot be imported.
        """
        environment = self.environment(side)
        try:
            return environment, self._cases(environment, side, requests, progress)
        except WorkerBroken as error:
            raise Unusable(NOT_IMPORTED, str(error), environment.libraries) from None

    def _cases(
        self,
        environment: Environment,
        side: str,
        requests: Mapping[str, dict[str, Any]],
        progress: Callable[[int], None],
    ) -> dict[str, SideResult]:
        """The result of each case.

        Raises:
            WorkerBroken: the libraries cannot be imported.
        """
        results: dict[str, SideResult] = {}
        pythons = {side: environment.python}
        with Sides(pythons, TIMEOUT_S, forks=self.forks) as sides, PictureProcesses(sides.process) as processes:
            worker = self._first_process(sides, side)  # if this fails, no case is to blame
            check_side(f"worker of '{side}'", environment, worker.imported)
            for case, request in requests.items():
                results[case] = self._result(processes, side, request)
                progress(len(results))
        return results

    def _first_process(self, sides: Sides, side: str) -> WorkerProcess:
        """Raises:
        WorkerBroken: the libraries cannot be imported; if the process was lost, it was lost twice.
        """
        try:
            return sides.process(side)
        except WorkerBroken as error:
            if error.alive:
                raise
            self.announce(f"trying again: {error}")
        try:
            return sides.process(side)
        except WorkerBroken as error:
            raise WorkerBroken(_twice(str(error)), alive=error.alive, side=error.side) from None

    def _result(self, processes: PictureProcesses, side: str, request: dict[str, Any]) -> SideResult:
        """The result of a case; it is tried again if its process was lost."""
        first = processes.result(side, request)
        if not is_loss(first.error):
            return first
        self.announce(f"trying again: {first.error}")
        second = processes.result(side, request)
        return replace(second, error=_twice(second.error)) if second.error else second


def _twice(error: str) -> str:
    """The message of a second try; only a process that was lost again is said to be tried twice."""
    return f"{error} (tried twice)" if is_loss(error) else error
