"""The pictures of cases under one side: its environment, one worker of it, and processes for the cases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.installs.environments import environment_of
from bench.installs.installed import Environment
from bench.installs.sides import parse_side
from bench.installs.uv import EnvironmentFailed
from bench.upgrade.imports import check_side
from bench.upgrade.side_results import PictureProcesses, SideResult
from bench.upgrade.workers import TIMEOUT_S, Sides, WorkerBroken

NOT_INSTALLED, NOT_IMPORTED = "not installed", "not imported"


class Unusable(BenchError):
    """A side has no pictures at all.

    Attributes:
        status: ``not installed`` or ``not imported``.
        libraries: what is installed there, if anything is.
    """

    def __init__(self, status: str, reason: str, libraries: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.libraries = dict(libraries or {})


@dataclass(frozen=True)
class Bench:
    """Where sides are made and where their cases run.

    Attributes:
        environments: where environments are cached.
        forks: whether fresh processes are forked; see ``started_worker``.
        announce: told of what takes long.
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
        self, side: str, requests: Mapping[str, dict[str, Any]], tell: Callable[[int], None] = lambda done: None
    ) -> tuple[Environment, dict[str, SideResult]]:
        """The environment of a side and what it makes of each case.

        Args:
            requests: what the worker is to load, by case; see ``load_request``.
            tell: told how many cases are done.

        Raises:
            Unusable: the side cannot be installed, or its libraries cannot be imported.
        """
        environment = self.environment(side)
        try:
            return environment, self._cases(environment, side, requests, tell)
        except WorkerBroken as error:
            raise Unusable(NOT_IMPORTED, str(error), environment.libraries) from None

    def _cases(
        self, environment: Environment, side: str, requests: Mapping[str, dict[str, Any]], tell: Callable[[int], None]
    ) -> dict[str, SideResult]:
        """What each case gives, one after the other.

        Raises:
            WorkerBroken: the libraries cannot be imported.
        """
        results: dict[str, SideResult] = {}
        pythons = {side: environment.python}
        with Sides(pythons, TIMEOUT_S, forks=self.forks) as sides, PictureProcesses(sides.process) as processes:
            (worker,) = sides.take()  # what cannot be imported at all is no fault of a case
            check_side(f"worker of '{side}'", environment, worker.imported)
            for case, request in requests.items():
                results[case] = processes.result(side, request)
                tell(len(results))
        return results
