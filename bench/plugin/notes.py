"""Keeps ``run.json``: what the run was to do, and what failed besides its cases."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.plugin.session import Session, case_of
from bench.run_notes import FILE, RunNotes, now, read_notes, write_notes

# Options that choose what a case is, so that a run of one case needs them too.
_CHOOSING = ("suite", "device", "golden_dir")


class NoteKeeper:
    """A pytest plugin. Where several processes run the tests, each of them knows the plan, and the first writes it."""

    def __init__(
        self, config: pytest.Config, session: Session, is_told: Callable[[str], bool] = lambda _: False
    ) -> None:
        self._config = config
        self._folder = session.run.folder
        self._left_out = session.selection.left_out
        self._cases: set[str] = set()
        self._failures: list[str] = []
        self._is_told = is_told

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        planned = {item.nodeid: case.id for item in session.items if (case := case_of(item))}
        self._cases = set(planned)
        if not planned or session.config.getoption("collectonly") or (self._folder.path / FILE).is_file():
            return
        notes = RunNotes(
            schema=1,
            command=shlex.join(["pytest", *self._config.invocation_params.args]),
            began=now(),
            planned=tuple(planned.values()),
            left_out=self._left_out,
            rerun_options=rerun_options(self._config),
        )
        write_notes(self._folder.make(), notes)

    def pytest_runtest_logreport(self, report: Any) -> None:
        is_case = report.nodeid in self._cases or _names_a_case(report.nodeid)
        if report.failed and not is_case and not self._is_told(report.nodeid):
            self._failures.append(f"{report.nodeid.rpartition('/')[2]}: {_first_line(report)}")

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        if hasattr(self._config, "workerinput"):
            return
        notes = read_notes(self._folder.path)
        if notes:
            ended = None if exitstatus == pytest.ExitCode.INTERRUPTED else now()
            failures = tuple(self._failures)
            write_notes(self._folder.path, notes.model_copy(update={"ended": ended, "other_failures": failures}))


def _names_a_case(nodeid: str) -> bool:
    """Cases stand in brackets, and only their ids have a slash there."""
    return "/" in nodeid.rpartition("[")[2] and nodeid.endswith("]")


def _first_line(report: Any) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash else str(report.longrepr)
    return text.strip().splitlines()[0] if text.strip() else "failed"


def rerun_options(config: pytest.Config) -> tuple[str, ...]:
    """The options of this run that a run of one of its cases needs."""
    options: list[str] = []
    for name in _CHOOSING:
        value = config.getoption(name)
        if value and value != "auto":
            options += [f"--{name.replace('_', '-')}", str(Path(value) if name != "device" else value)]
    for model in config.getoption("model"):
        options += ["--model", model]
    if config.getoption("markexpr") == "slow":
        options += ["-m", "slow"]
    return tuple(options)
