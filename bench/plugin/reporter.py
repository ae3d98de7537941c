"""The terminal side of the plugin: header, progress, table, and the last lines."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.calls.device import is_simulated
from bench.console import shown
from bench.plugin import terminal
from bench.plugin.junit import add_groups
from bench.plugin.selection import nothing_selected
from bench.plugin.session import Session, announcer, case_of
from bench.plugin.shards import is_empty_shard, shard_line
from bench.record.failures import record_groups
from bench.record.groups import group_lines
from bench.record.run_info import read_run_info
from bench.report.reasons import across_devices
from bench.report.write import Unreadable, write_report


def write_case_line(config: pytest.Config, line: str, *, passed: bool) -> None:
    """Prints the line of a case instead of pytest's own progress."""
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    reporter.showfspath = False
    reporter.ensure_newline()
    colour = {"green": True} if passed else {"red": True}
    reporter.write_line(line, **colour)


def status_without_letter(config: pytest.Config, report: Any) -> tuple[str, str, str] | None:
    """The outcome of a test whose line ``write_case_line`` prints instead of pytest's letter."""
    if config.get_verbosity() or report.when != "call":
        return None
    return report.outcome, "", report.outcome.upper()


SIMULATED = "simulated accelerator: the processor does its computing, so its times mean nothing"


def session_header(session: Session) -> list[str]:
    """Device, libraries and suite."""
    environment = session.run.environment
    versions = environment["libraries"]
    left_out = "; ".join(f"{count} {reason}" for reason, count in session.selection.left_out.items())
    shown = ("torch", "diffusers", "transformers", "accelerate")
    return [
        f"device: {session.device.type} ({session.device.name}), {environment['threads']} threads, "
        f"environment {session.run.environment_key}",
        *([SIMULATED] if is_simulated(session.device) else []),
        "libraries: " + ", ".join(f"{name} {versions[name]}" for name in shown),
        f"suite: {session.suite.file}, {len(session.selection.cases)} cases"
        + (f" (left out: {left_out})" if left_out else ""),
    ]


def write_results(write: Callable[..., None], folder: Path) -> None:
    """Writes the page and prints the last lines: where the results are."""
    write(f"results: {terminal.relative(folder)}")
    try:
        page = write_report(folder)
    except OSError as error:
        write(f"report: not written ({error.strerror or error}).", red=True)
    except Unreadable as error:
        write(f"report: not written: {error}", red=True)
    else:
        write(f"report: {page.within(terminal.relative(page.path))}")


def write_empty_shard(write: Callable[..., None], session: Session) -> bool:
    """Says that other shards have all cases, if that is so, and returns whether it is."""
    empty = is_empty_shard(session)
    if empty:
        write(f"{shard_line(session)}: nothing to do here")
        if session.run.folder.path.is_dir():  # not where tests are only collected
            write_results(write, session.run.folder.path)
    return empty


def shard_header(session: Session) -> list[str]:
    """The line about this shard, after the tests are collected."""
    line = shard_line(session)
    return [line] if line else []


class Reporter:
    """A pytest plugin that reports on cases; other tests are reported as usual."""

    def __init__(self, config: pytest.Config, session: Session) -> None:
        self._config = config
        self._session = session
        self._progress = terminal.Progress([])
        self._case_ids: dict[str, str] = {}
        self._began = self._wall_s = 0.0

    @property
    def _lines(self) -> bool:
        """One line per case, unless the user asked for pytest's own or several processes report at once."""
        return self._config.get_verbosity() == 0 and self._config.getoption("dist", "no") == "no"

    def pytest_report_header(self) -> list[str]:
        return [*session_header(self._session), f"goldens: {shown(self._session.options.golden_dir)}"]

    def pytest_report_collectionfinish(self) -> list[str]:
        return shard_header(self._session)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        cases = {item.nodeid: case for item in session.items if (case := case_of(item))}
        self._case_ids = {nodeid: case.id for nodeid, case in cases.items()}
        kept = self._session.kept
        self._progress = terminal.Progress(list(cases.values()), kept)
        if self._session.interrupted:
            done = sum(case.id in kept for case in cases.values()) or len(kept)
            announcer(self._config)(f"continuing {self._session.run.folder.path}: {done} cases are done")
        self._began = time.perf_counter()

    def pytest_sessionfinish(self) -> None:
        self._wall_s = time.perf_counter() - self._began
        self._session.run.release()

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: Any) -> tuple[str, str, str] | None:
        if not self._lines or report.nodeid not in self._case_ids or report.when != "call":
            return None
        return report.outcome, "", report.outcome.upper()

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: Any) -> None:
        case_id = self._case_ids.get(report.nodeid)
        if not self._lines or case_id is None or report.when != "call":
            return
        record = self._session.records.get(report.nodeid)
        write_case_line(self._config, self._progress.line(case_id, record, report.outcome), passed=report.passed)

    def pytest_terminal_summary(self, terminalreporter: Any, exitstatus: int) -> None:
        if exitstatus == pytest.ExitCode.USAGE_ERROR or hasattr(self._config, "workerinput"):
            return  # the folder may be that of another run; of several processes, the controlling one reports
        session = self._session
        write = terminalreporter.write_line
        records = session.all_records()
        if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and not write_empty_shard(write, session):
            write(nothing_selected(self._config, session.selection, "checked"), red=True)
        if not records:
            return
        if session.timing:
            terminalreporter.section("cases")
            write(terminal.render_table(records, terminalreporter.hasmarkup))
            for note in terminal.memory_notes(records):
                write(note)
            if is_simulated(session.device):
                write(SIMULATED, yellow=True)
            ran = [record for record in records if record.case not in session.kept]
            write(terminal.where_the_time_went(len(ran), self._wall_s, session.run.tally))
            info = read_run_info(session.run.folder.path)
            if info and info.times_warning:
                write(info.times_warning, yellow=True)
        else:
            terminalreporter.section("pictures")
        write(f"verdicts: {terminal.verdict_counts(records)}")
        across = across_devices(records)
        if across:
            write(across, yellow=True)
        write(f"work: {terminal.work_counts(records) or 'not counted'}")
        for line in terminal.savings(records):
            write(line, yellow=True)
        groups = record_groups(records)
        for line in (*group_lines(groups), *terminal.worst_cases(records)):
            write(line, red=True)
        add_groups(self._config.getoption("xmlpath", None), groups)
        write_results(write, session.run.folder.path)
