"""Writes ``run.json``: which cases were planned, and what failed other than cases."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

import pytest

from bench.calls.canary import time_canary
from bench.calls.device import is_simulated
from bench.errors import BenchError
from bench.plugin.session import Session, case_of
from bench.record.run_info import FILE, RunInfo, now, read_run_info, write_run_info
from bench.record.steadiness import why_not_comparable

# Options that define the cases, so rerunning one case needs them too.
_CHOOSING = ("suite", "device", "golden_dir")


class RunInfoWriter:
    """A pytest plugin. If several processes run the tests, each knows the plan and the first one writes it."""

    def __init__(
        self, config: pytest.Config, session: Session, is_reported: Callable[[str], bool] = lambda _: False
    ) -> None:
        self._session = session
        self._config = config
        self._folder = session.run.folder
        self._left_out = session.selection.left_out
        self._failures: dict[str, str] = {}
        self._is_reported = is_reported

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        planned = tuple(case.id for item in session.items if (case := case_of(item)))
        if not planned or session.config.getoption("collectonly") or (self._folder.path / FILE).is_file():
            return
        info = RunInfo(
            schema=1,
            command=shlex.join(["pytest", *self._config.invocation_params.args]),
            began=now(),
            planned=planned,
            left_out=self._left_out,
            rerun_options=rerun_options(self._config),
            canary_s=self._canary(),
        )
        try:
            folder = self._folder.make()
        except BenchError as error:
            raise pytest.UsageError(str(error)) from None
        write_run_info(folder, info)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and not self._is_reported(report.nodeid):
            self._failures[report.nodeid] = _first_line(report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        if hasattr(self._config, "workerinput"):
            return
        info = read_run_info(self._folder.path)
        if info:
            ended = None if exitstatus == pytest.ExitCode.INTERRUPTED else now()
            others = [name for name in self._failures if not _is_of_a_case(name, info)]
            failures = tuple(f"{name.rpartition('/')[2]}: {self._failures[name]}" for name in others)
            canary_s = (*info.canary_s, *(self._canary() if ended and info.canary_s else ()))
            found = {
                "ended": ended,
                "other_failures": failures,
                "canary_s": canary_s,
                "not_comparable": why_not_comparable(canary_s),
            }
            write_run_info(self._folder.path, info.model_copy(update=found))

    def _canary(self) -> tuple[float, ...]:
        """The canary's seconds; empty for a run without times, and where the device fails."""
        session = self._session
        if not session.timing or is_simulated(session.device):
            return ()
        session.run.release()
        try:
            return (time_canary(session.device),)
        except RuntimeError:
            return ()


def _is_of_a_case(nodeid: str, info: RunInfo) -> bool:
    """Whether a test has the id of a planned case in its brackets."""
    return nodeid.partition("[")[2].removesuffix("]") in info.planned


def _first_line(report: Any) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash else str(report.longrepr)
    return text.strip().splitlines()[0] if text.strip() else "failed"


def rerun_options(config: pytest.Config) -> tuple[str, ...]:
    """The options of this run that rerunning one of its cases needs."""
    options: list[str] = []
    for name in _CHOOSING:
        value = config.getoption(name)
        if value and value != "auto":
            options += [f"--{name.replace('_', '-')}", str(value)]
    if config.getoption("pictures_only"):
        options.append("--pictures-only")
    for model in config.getoption("model"):
        options += ["--model", model]
    if config.getoption("markexpr") == "slow":
        options += ["-m", "slow"]
    return tuple(options)
