"""The upgrade check in pytest: sides and environments, one test per case, and the table and files of the result."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bench.calls.device import is_simulated
from bench.calls.raised import RaisedError
from bench.errors import BenchError
from bench.installs.cache import list_environments, prune_environments
from bench.installs.environments import environment_of
from bench.installs.installed import Environment, changes
from bench.installs.sides import parse_side
from bench.pictures.check import expected_error, limits_side_by_side
from bench.pictures.similarity import Limits
from bench.plugin.junit import add_groups
from bench.plugin.options import UpgradeOptions
from bench.plugin.reporter import (
    SIMULATED,
    session_header,
    shard_header,
    status_without_letter,
    write_case_line,
    write_empty_shard,
    write_results,
)
from bench.plugin.run_info import rerun_options
from bench.plugin.selection import nothing_selected
from bench.plugin.session import UPGRADE_FILE, Session, case_of
from bench.record.groups import Group, group_lines
from bench.suite.case import Case
from bench.upgrade.bisect_command import bisect_command
from bench.upgrade.change_start import note_starts, start_in
from bench.upgrade.check import UpgradeCheck, started_check
from bench.upgrade.groups import upgrade_groups
from bench.upgrade.imports import check_imports
from bench.upgrade.journal import JOURNAL, Compared, Journal, new_journal, read_journal
from bench.upgrade.lockstep import places_for
from bench.upgrade.measuring import Measured
from bench.upgrade.outcome import UPGRADE as UPGRADE_JSON
from bench.upgrade.outcome import CaseFound, UpgradeFound, side_found, slower_components, worst_cases, write_upgrade
from bench.upgrade.plan import SPELL_S, ComparisonPlan
from bench.upgrade.speeds import ERROR_RATE_OF_RUN, MEMORY, SPEED
from bench.upgrade.tables import component_lines, counts_lines, notes, pictures_line, render_upgrade, speed_line
from bench.upgrade.workers import SIDES, WorkerBroken
from bench.verdicts import Verdict


@dataclass
class UpgradeSession:
    """The check of one pytest session; environments and processes are made when the tests start.

    Attributes:
        compared: the cases whose pictures were compared, by test.
        timed: the cases whose speed is to be compared.
    """

    session: Session
    options: UpgradeOptions
    announce: Callable[[str], None]
    environments: dict[str, Environment] = field(default_factory=dict)
    compared: dict[str, Case] = field(default_factory=dict)
    timed: list[Case] = field(default_factory=list)
    groups: tuple[Group, ...] = ()
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _check: UpgradeCheck | None = None

    @functools.cached_property
    def plan(self) -> ComparisonPlan:
        device = self.session.device
        times = not is_simulated(device)
        return ComparisonPlan(
            places=places_for(device.type),
            device=str(device.torch_device),
            min_change=self.options.min_change,
            min_component_change=self.options.min_component_change,
            budget_s=self.options.budget_s,
            speed=not self.options.pictures_only,
            times=times,
            spell_s=SPELL_S if times else 0.0,
        )

    def prepare(self) -> None:
        """Makes the environments and starts a process in each, so that a broken side ends the run immediately.

        Raises:
            pytest.UsageError: a side cannot be installed or imported, imports other libraries than its own, or there is
                no check to continue.
        """
        asked = {"baseline": self.options.baseline, "candidate": self.options.candidate}
        try:
            for name in SIDES:
                side = parse_side(asked[name], self.options.folder)
                self.environments[name] = environment_of(side, self.options.environments, self.announce)
            self._check = self._stack.enter_context(
                started_check(
                    {name: self.environments[name].python for name in SIDES},
                    self.plan,
                    self.session.run.folder,
                    self.session.options.suite.parent,
                    self._journal(),
                    announce=self.announce,
                    limits_of=self._limits_of,
                    expected_error_of=self._expected_error_of,
                )
            )
            self.announce("starting both sides")
            check_imports(self.environments, {one.name: one.imported for one in self._check.sides.take()})
        except WorkerBroken as error:
            self.close()
            raise pytest.UsageError(f"the {error.side} cannot be imported: {error}") from None
        except BenchError as error:
            self.close()
            raise pytest.UsageError(str(error)) from None

    def _journal(self) -> Journal:
        before, after = (self.environments[name] for name in SIDES)
        compared = Compared(
            libraries=(dict(before.libraries), dict(after.libraries)),
            origins=(dict(before.origins), dict(after.origins)),
            device=self.plan.device,
            device_name=self.session.device.name,
            threads=self.plan.places.threads,
        )
        folder = self.session.run.folder
        if not self.session.options.resume:
            return new_journal(folder.make() / JOURNAL, compared)
        journal = read_journal(folder.path / JOURNAL, compared)
        self.announce(f"continuing {folder.path}: {len(journal.cases)} cases, {len(journal.starts)} starts are done")
        return journal

    def _limits_of(self, case: Case) -> Limits:
        return limits_side_by_side(self.session.options.golden_dir, case, self.session.device)

    def _expected_error_of(self, case: Case) -> RaisedError | None:
        libraries = self.environments[SIDES[0]].libraries
        return expected_error(self.session.options.golden_dir, case, self.session.device, libraries)

    def reports(self, nodeid: str) -> bool:
        """Whether ``upgrade.json`` has the result of this test, which is about no single case."""
        return self.measured is not None and nodeid.rpartition("::")[2] in ("test_import", "test_components")

    @property
    def check(self) -> UpgradeCheck:
        assert self._check, "the environments are made before the first test"
        return self._check

    @property
    def measured(self) -> Measured | None:
        return self._check.measured if self._check else None

    def found(self, case: Case) -> CaseFound:
        return self.check.found(case)

    def close(self) -> None:
        self._stack.close()

    def outcome(self) -> UpgradeFound:
        plan, speeds = self.plan, self.measured.speeds if self.measured else None
        before, after = (self.environments[name] for name in SIDES)
        cases = tuple(map(self.found, self.cases.values()))
        return UpgradeFound(
            baseline=side_found(self.options.baseline, before.libraries),
            candidate=side_found(self.options.candidate, after.libraries),
            changes=tuple(str(change) for change in changes(before, after)),
            device=plan.device,
            device_name=self.session.device.name,
            mode=plan.places.mode if plan.speed else "pictures",
            budget_s=plan.budget_s,
            min_change=plan.min_change,
            min_component_change=plan.min_component_change,
            error_rate=ERROR_RATE_OF_RUN if speeds else None,
            questions=speeds.questions if speeds else None,
            import_time=speeds.import_time if speeds else None,
            components=tuple(speeds.components.values()) if speeds else (),
            cases=cases,
            groups=self.groups or upgrade_groups(cases),
        )

    def find_groups(self) -> None:
        """Groups what is worse, and looks where changed pictures start to differ while the sides still run."""
        found = [self.found(case) for case in self.cases.values()]

        def start_of(name: str) -> str:
            self.announce(f"looking where the change of {name} starts")
            return start_in(self.check.processes.fresh_process, self.check.request(self.cases[name]))

        self.groups = note_starts(upgrade_groups(found), {case.case: case.settings for case in found}, start_of)

    @property
    def cases(self) -> dict[str, Case]:
        """The cases whose pictures were compared, by id."""
        return {case.id: case for case in self.compared.values()}


UPGRADE = pytest.StashKey[UpgradeSession]()


def timed_case_of(item: pytest.Item) -> Case | None:
    """The case whose speed a test is about."""
    return case_of(item) if "compared_speed" in getattr(item, "fixturenames", ()) else None


def is_left_out(path: Path, root: Path, *, upgrade: bool) -> bool:
    """An upgrade check runs only its own file from ``bench/``; any other run leaves that file out."""
    return path.parent == root / "bench" and path.name.startswith("test_") and (path.name == UPGRADE_FILE) != upgrade


_TIMING = {"compared_speed", "compared_components", "compared_imports"}


def leave_out_timing(items: list[pytest.Item]) -> None:
    items[:] = [item for item in items if not _TIMING & set(getattr(item, "fixturenames", ()))]


def environments_command(config: pytest.Config) -> int | None:
    """``--environments-list`` and ``--environments-prune``: an exit code, or ``None`` if neither was given."""
    cache = UpgradeOptions.environments_folder(config)
    if config.getoption("environments_list"):
        cached = list_environments(cache)
        for one in cached:
            changed = ", ".join(map(str, one.changes))
            print(
                f"{one.folder.name}  {one.occupied_bytes / 2**20:7.1f} MiB  used {one.last_used:%Y-%m-%d %H:%M}  "
                f"{one.asked}: {changed}"
            )
        print(f"{len(cached)} environments in {cache}")
        return 0
    if config.getoption("environments_prune"):
        print(f"{prune_environments(cache, print)} environments removed from {cache}")
        return 0
    return None


def check_pictures(upgrade: UpgradeSession, node: pytest.Item, case: Case) -> None:
    """Compares pictures and work of a case and fails with a sentence if the candidate is worse."""
    __tracebackhide__ = True
    try:
        found = upgrade.check.compare(case)
    except BenchError as error:
        pytest.fail(f"{case.id}: {error}", pytrace=False)
    upgrade.compared[node.nodeid] = case
    node.user_properties += properties_of_pictures(found)
    _fail_for(upgrade, found, found.problems)


def check_speed(upgrade: UpgradeSession, node: pytest.Item, case: Case) -> None:
    """Compares speed and memory of a case and fails with a sentence if the candidate is worse.

    The first call measures for all cases.
    """
    __tracebackhide__ = True
    try:
        compared = upgrade.check.compare(case)
        upgrade.compared.setdefault(node.nodeid, case)
        measured = upgrade.check.measure(upgrade.timed)
    except WorkerBroken as error:
        pytest.fail(f"{case.id}: the {error.side} cannot be started any more: {error}", pytrace=False)
    except BenchError as error:
        pytest.fail(f"{case.id}: {error}", pytrace=False)
    found = upgrade.found(case)
    node.user_properties += properties_of_speed(found)
    _fail_for(upgrade, found, tuple(problem for problem in found.problems if problem not in compared.problems))
    if not all(compared.checksums):
        pytest.skip("without pictures of both sides there is nothing to measure")
    if upgrade.options.must_decide and case.id in measured.speeds.undecided:
        what = SPEED if upgrade.plan.times else MEMORY
        pytest.fail(f"{case.id}: {what}: {Verdict.CANNOT_TELL} within --budget (--must-decide)", pytrace=False)


def _fail_for(upgrade: UpgradeSession, found: CaseFound, problems: Sequence[str]) -> None:
    __tracebackhide__ = True
    if problems:
        pictures = upgrade.session.run.folder.path / "grids" / found.case.partition("/")[0]
        kept = f" Pictures: {pictures}" if found.pictures.message in problems else ""
        pytest.fail(f"{found.case}: {'; '.join(problems).rstrip('.')}.{kept}", pytrace=False)


def check_components(upgrade: UpgradeSession) -> None:
    """Fails if a part of a pipeline is slower on the candidate."""
    __tracebackhide__ = True
    slower = slower_components(_measured_times(upgrade).speeds.components.values())
    if slower:
        pytest.fail("; ".join(one.sentence for one in slower), pytrace=False)


def check_import(upgrade: UpgradeSession) -> None:
    """Fails if the candidate's libraries take longer to import than the baseline's."""
    __tracebackhide__ = True
    found = _measured_times(upgrade).speeds.import_time
    if found and Verdict(found.verdict).is_worse:
        pytest.fail(f"import: {found.verdict} by {found.ratio - 1:.1%} ({found.interval})", pytrace=False)


def _measured_times(upgrade: UpgradeSession) -> Measured:
    if not upgrade.measured:
        pytest.skip("no case was measured")
    if not upgrade.plan.times:
        pytest.skip(SIMULATED)
    return upgrade.measured


def properties_of_pictures(found: CaseFound) -> list[tuple[str, object]]:
    """Figures for JUnit."""
    figures: dict[str, object] = {"pictures": found.pictures.verdict, "seconds": round(found.seconds, 1)}
    if found.pictures.ssim_worst_tile is not None:
        figures |= {"ssim_worst_tile": found.pictures.ssim_worst_tile, "max_diff": found.pictures.max_diff}
    if found.work:
        figures["work"] = found.work.verdict
    return list(figures.items())


def properties_of_speed(found: CaseFound) -> list[tuple[str, object]]:
    """Figures for JUnit."""
    figures: dict[str, object] = {}
    for name, figure in found.figures.items():
        figures |= {name: figure.verdict, f"{name} ratio": figure.ratio, f"{name} interval": figure.interval}
    return list(figures.items())


class UpgradeReporter:
    """A pytest plugin that prepares the check, prints a line per case, and writes the results."""

    def __init__(self, config: pytest.Config, upgrade: UpgradeSession) -> None:
        self._config = config
        self._upgrade = upgrade
        self._done = 0
        self._total = 0

    def pytest_report_header(self) -> list[str]:
        upgrade = self._upgrade
        plan = upgrade.plan
        how = f"{plan.places.mode}, up to {plan.budget_s:g} s in all, smallest change {plan.min_change:.1%}"
        what = "pictures, speed, memory" if plan.times else "pictures, memory"
        return [
            *session_header(upgrade.session),
            f"baseline: {upgrade.options.baseline}",
            f"candidate: {upgrade.options.candidate}",
            f"measured: {f'{what} ({how})' if plan.speed else 'pictures'}",
        ]

    def pytest_report_collectionfinish(self) -> list[str]:
        return shard_header(self._upgrade.session)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        if session.items and not session.config.getoption("collectonly"):
            self._total = len(session.items)
            self._upgrade.timed = [case for item in session.items if (case := timed_case_of(item))]
            self._upgrade.prepare()
            before, after = (self._upgrade.environments[name] for name in SIDES)
            changed = changes(before, after)
            for change in changed:
                self._upgrade.announce(f"  {change}")
            if not changed:
                self._upgrade.announce("both sides have the same libraries: any difference is a false alarm")

    def pytest_report_teststatus(self, report: Any) -> tuple[str, str, str] | None:
        return status_without_letter(self._config, report)

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when != "call" or self._config.get_verbosity():
            return
        self._done += 1
        line = self._line(report)
        count = f"[{self._done:>{len(str(self._total))}}/{self._total}]"
        write_case_line(self._config, f"{count} {line}", passed=report.passed)

    def _line(self, report: Any) -> str:
        test = report.nodeid.rpartition("::")[2]
        case = self._upgrade.compared.get(report.nodeid)
        if not case:
            return f"{test}  {report.outcome}"
        return (speed_line if test.startswith("test_speed") else pictures_line)(self._upgrade.found(case))

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        measured = self._upgrade.measured
        slower = slower_components(measured.speeds.components.values()) if measured else []
        if slower and exitstatus == pytest.ExitCode.OK:  # -k may have left out the test of the components
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if self._upgrade.compared and exitstatus != pytest.ExitCode.INTERRUPTED:
            self._upgrade.find_groups()
        self._upgrade.close()

    def pytest_unconfigure(self) -> None:
        self._upgrade.close()

    def pytest_terminal_summary(self, terminalreporter: Any, exitstatus: int) -> None:
        upgrade = self._upgrade
        empty = exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED
        if empty and not write_empty_shard(terminalreporter.write_line, upgrade.session):
            nothing = nothing_selected(self._config, upgrade.session.selection, "compared")
            terminalreporter.write_line(nothing, red=True)
        if not upgrade.compared:
            return
        found = upgrade.outcome()
        folder = upgrade.session.run.folder.make()
        write_upgrade(folder / UPGRADE_JSON, found)
        write = terminalreporter.write_line
        terminalreporter.section("upgrade")
        if is_simulated(self._upgrade.session.device):
            write(SIMULATED, yellow=True)
        write(render_upgrade(found, terminalreporter.hasmarkup))
        for line in component_lines(found):
            write(line)
        write("changes: " + (", ".join(found.changes) or "none"))
        for line in (*counts_lines(found), *notes(found)):
            write(line)
        lines = group_lines(found.groups)
        for line in (*lines, *(line for line in worst_cases(found) if f"{line}." not in lines)):
            write(line, red=True)
        add_groups(self._config.getoption("xmlpath", None), found.groups)
        write_results(write, folder)
        search = bisect_command(found, rerun_options(self._config))
        if search:
            write(f"which release did it: {search}")
