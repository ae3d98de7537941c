"""The pictures of cases under one side: its environment, one worker of it, fresh processes for the cases."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.installs.environments import Environment, environment_of
from bench.installs.sides import parse_side
from bench.installs.uv import EnvironmentFailed
from bench.upgrade.comparison import SideResult, pictures_of
from bench.upgrade.workers import TIMEOUT_S, WorkerBroken, started_worker

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
            return environment, self._cases(environment.python, side, requests, tell)
        except WorkerBroken as error:
            raise Unusable(NOT_IMPORTED, str(error), environment.libraries) from None

    def _cases(
        self, python: Path, side: str, requests: Mapping[str, dict[str, Any]], tell: Callable[[int], None]
    ) -> dict[str, SideResult]:
        """One worker for all cases, and another one if a case took it along.

        Sentinels come from one process, so that hundreds of small cases do not load their pipeline each for itself.

        Raises:
            WorkerBroken: the libraries cannot be imported.
        """
        results: dict[str, SideResult] = {}
        left = list(requests)
        while left:
            try:
                with started_worker(side, python, TIMEOUT_S, forks=self.forks) as worker:
                    while left and worker.process.poll() is None:
                        together = {case: requests[case] for case in _together(left, requests)}
                        for case, result in pictures_of(worker, together):
                            results[case] = result
                            left.remove(case)
                            tell(len(results))
            except WorkerBroken as error:
                if not results:
                    raise
                results |= {case: SideResult(error=str(error)) for case in left}
                left = []
        return results


def _together(left: Sequence[str], requests: Mapping[str, dict[str, Any]]) -> Sequence[str]:
    """The next case alone, or the sentinels up to the next case that is none."""
    sentinels = list(itertools.takewhile(lambda case: requests[case]["settings"]["sentinel"], left))
    return sentinels or left[:1]
