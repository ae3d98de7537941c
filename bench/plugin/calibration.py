"""``--golden-calibrate`` in pytest: all selected cases are measured first, then each test reports on its case."""

from __future__ import annotations

from typing import Any

import pytest

from bench.calibration.run import Calibrated, Calibration
from bench.calibration.table import render_calibration
from bench.plugin.reporter import session_header, status_without_letter, write_case_line
from bench.plugin.selection import nothing_selected
from bench.plugin.session import Session, announcer, case_of
from bench.suite.case import Case

CALIBRATION = pytest.StashKey["CalibrationReporter"]()


def check_options(config: pytest.Config, session: Session) -> None:
    """Refuses options that contradict ``--golden-calibrate``.

    Raises:
        pytest.UsageError: one was given.
    """
    others = {
        "-n": config.getoption("dist", "no") != "no",
        "--shard": session.options.shard is not None,
        "--resume": session.options.resume is not None,
        "--golden-update": session.options.golden_update is not None,
        "--baseline and --candidate": session.upgrade is not None,
    }
    for option, given in others.items():
        if given:
            raise pytest.UsageError(f"--golden-calibrate only measures limits: leave out {option}.")
    if session.timing:
        raise pytest.UsageError("--golden-calibrate measures pictures, not times: pytest -m golden --golden-calibrate.")


class CalibrationReporter:
    """A pytest plugin that calibrates when the tests start, and reports the result."""

    def __init__(self, config: pytest.Config, session: Session) -> None:
        self._config = config
        self._session = session
        self._found: dict[str, Calibrated] = {}

    def pytest_report_header(self) -> list[str]:
        golden_dir = self._session.options.golden_dir
        return [*session_header(self._session), f"goldens: {golden_dir} (their limits are measured and written)"]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        cases = [case for item in session.items if (case := case_of(item))]
        if not cases or session.config.getoption("collectonly"):
            return
        run = self._session.run
        calibration = Calibration(
            device=run.device,
            suite_folder=run.suite_folder.resolve(),
            goldens=run.goldens.root,
            libraries=run.environment["libraries"],
            announce=announcer(self._config),
            again=self._session.options.golden_remeasure,
        )
        self._found = calibration.run(cases)

    def check(self, case: Case) -> None:
        """Fails unless the case has limits that can detect a change; skips it if it raises."""
        __tracebackhide__ = True
        found = self._found[case.id]
        if found.raises:
            pytest.skip("raises, so there are no limits")
        if found.problem:
            pytest.fail(f"{case.id}: {found.problem}", pytrace=False)

    def pytest_report_teststatus(self, report: Any) -> tuple[str, str, str] | None:
        return status_without_letter(self._config, report)

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" and report.failed and not self._config.get_verbosity():
            write_case_line(self._config, f"{report.nodeid.rpartition('::')[2]}  failed", passed=False)

    def pytest_terminal_summary(self, terminalreporter: Any, exitstatus: int) -> None:
        write = terminalreporter.write_line
        if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
            write(nothing_selected(self._config, self._session.selection, "calibrated"), red=True)
        found = list(self._found.values())
        if not found:
            return
        terminalreporter.section("limits")
        write(render_calibration(found, terminalreporter.hasmarkup))
        written = [one for one in found if one.limits]
        write(f"limits of {len(written)} of {len(found)} cases written into {self._session.options.golden_dir}")
        for one in found:
            if one.problem:
                write(f"{one.case.id}: {one.problem}", red=True)
