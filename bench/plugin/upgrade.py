"""The upgrade check in pytest: sides and environments, one test per case, and the table and files of the result."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bench.calls.device import is_simulated
from bench.calls.pipelines import find_checkpoint
from bench.errors import BenchError
from bench.installs.cache import list_environments, prune_environments
from bench.installs.environments import environment_of
from bench.installs.installed import Environment, changes
from bench.installs.sides import parse_side
from bench.pictures.check import limits_side_by_side
from bench.pictures.similarity import Limits
from bench.plugin.junit import add_groups
from bench.plugin.notes import rerun_options
from bench.plugin.options import UpgradeOptions
from bench.plugin.reporter import SIMULATED, session_header, status_without_letter, write_case_line, write_results
from bench.plugin.selection import nothing_selected
from bench.plugin.session import UPGRADE_FILE, Session
from bench.record.groups import Group, group_lines
from bench.suite.case import Case
from bench.upgrade.bisect_command import bisect_command
from bench.upgrade.change_start import note_starts, start_in
from bench.upgrade.check import UpgradeCheck, started_check
from bench.upgrade.groups import upgrade_groups
from bench.upgrade.lockstep import places_for
from bench.upgrade.outcome import UPGRADE as UPGRADE_JSON
from bench.upgrade.outcome import CaseFound, Figure, UpgradeFound, side_found, worst_cases, write_upgrade
from bench.upgrade.pairs import Plan
from bench.upgrade.request import load_request
from bench.upgrade.tables import case_line, counts_lines, remarks, render_upgrade
from bench.upgrade.workers import SIDES, WorkerBroken
from bench.verdicts import Verdict


@dataclass
class UpgradeSession:
    """The check of one pytest session; environments and processes are made when the tests start."""

    session: Session
    options: UpgradeOptions
    announce: Callable[[str], None]
    environments: dict[str, Environment] = field(default_factory=dict)
    found: dict[str, CaseFound] = field(default_factory=dict)
    import_time: Figure | None = None
    groups: tuple[Group, ...] = ()
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _check: UpgradeCheck | None = None

    @property
    def plan(self) -> Plan:
        device = self.session.device
        return Plan(
            places=places_for(device.type),
            device=str(device.torch_device),
            min_change=self.options.min_change,
            budget_s=self.options.budget_s,
            speed=not self.options.pictures_only,
        )

    def prepare(self) -> None:
        """Makes the environments and starts a process in each, so that a broken side ends the run immediately.

        Raises:
            pytest.UsageError: a side cannot be installed or imported.
        """
        asked = {"baseline": self.options.baseline, "candidate": self.options.candidate}
        try:
            for name in SIDES:
                side = parse_side(asked[name], self.options.folder)
                self.environments[name] = environment_of(side, self.options.environments, self.announce)
            pythons = {name: self.environments[name].python for name in SIDES}
            self._check = self._stack.enter_context(
                started_check(
                    pythons,
                    self.plan,
                    self.session.run.folder,
                    self.session.options.suite.parent,
                    announce=self.announce,
                    limits_of=self._limits_of,
                )
            )
            self.announce("starting both sides")
            self._check.sides.take()
        except BenchError as error:
            self.close()
            raise pytest.UsageError(str(error)) from None

    def _limits_of(self, case: Case) -> Limits:
        return limits_side_by_side(self.session.options.golden_dir, case, self.session.device)

    def tells_of(self, nodeid: str) -> bool:
        """Whether this is the test of the import, with a result for ``upgrade.json``."""
        return self.import_time is not None and nodeid.endswith("::test_import")

    @property
    def check(self) -> UpgradeCheck:
        assert self._check, "the environments are made before the first test"
        return self._check

    def close(self) -> None:
        self._stack.close()

    def outcome(self) -> UpgradeFound:
        plan = self.plan
        before, after = (self.environments[name] for name in SIDES)
        return UpgradeFound(
            baseline=side_found(self.options.baseline, before.libraries),
            candidate=side_found(self.options.candidate, after.libraries),
            changes=tuple(str(change) for change in changes(before, after)),
            device=plan.device,
            device_name=self.session.device.name,
            mode=plan.places.mode if plan.speed else "pictures",
            budget_s=plan.budget_s,
            min_change=plan.min_change,
            import_time=self.import_time,
            cases=tuple(self.found.values()),
            groups=self.groups or upgrade_groups(self.found.values()),
        )

    def find_groups(self) -> None:
        """Groups what is worse, and looks where changed pictures start to differ while the sides still run."""
        found = {case.case: case for case in self.found.values()}
        cases = {case.id: case for case in self.session.selection.cases}

        def start_of(name: str) -> str:
            self.announce(f"looking where the change of {name} starts")
            case = cases[name]
            checkpoint = find_checkpoint(case.model, self.session.options.suite.parent)
            request = load_request(case, checkpoint, self.plan.device, self.plan.places.threads)
            return start_in(self.check.processes.fresh_process, request)

        self.groups = note_starts(
            upgrade_groups(found.values()), {name: case.settings for name, case in found.items()}, start_of
        )


UPGRADE = pytest.StashKey[UpgradeSession]()


def is_left_out(path: Path, root: Path, *, upgrade: bool) -> bool:
    """An upgrade check runs only its own file from ``bench/``; any other run leaves that file out."""
    return path.parent == root / "bench" and path.name.startswith("test_") and (path.name == UPGRADE_FILE) != upgrade


def leave_out_imports(items: list[pytest.Item]) -> None:
    items[:] = [item for item in items if "compared_imports" not in getattr(item, "fixturenames", ())]


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


def check_upgrade(upgrade: UpgradeSession, node: pytest.Item, case: Case) -> None:
    """Runs a case on both sides and fails with a sentence if the candidate is worse."""
    __tracebackhide__ = True
    try:
        found = upgrade.check.check(case)
    except BenchError as error:
        pytest.fail(f"{case.id}: {error}", pytrace=False)
    upgrade.found[node.nodeid] = found
    node.user_properties += properties(found)
    if found.problems:
        pictures = upgrade.session.run.folder.path / "grids" / case.model.name
        kept = f" Pictures: {pictures}" if found.pictures.message in found.problems else ""
        pytest.fail(f"{case.id}: {'; '.join(found.problems).rstrip('.')}.{kept}", pytrace=False)


def check_import(upgrade: UpgradeSession) -> None:
    """Compares how long the libraries take to import and fails if the candidate is slower."""
    __tracebackhide__ = True
    try:
        upgrade.import_time = found = upgrade.check.check_import()
    except WorkerBroken as error:
        pytest.fail(f"import: {error.side}: {error}", pytrace=False)
    if Verdict(found.verdict).is_worse:
        pytest.fail(f"import: {found.verdict} by {found.ratio - 1:.1%} ({found.interval})", pytrace=False)


def properties(found: CaseFound) -> list[tuple[str, object]]:
    """Figures for JUnit."""
    figures: dict[str, object] = {"pictures": found.pictures.verdict, "seconds": round(found.seconds, 1)}
    if found.pictures.ssim_worst_tile is not None:
        figures |= {"ssim_worst_tile": found.pictures.ssim_worst_tile, "max_diff": found.pictures.max_diff}
    if found.work:
        figures["work"] = found.work.verdict
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
        how = f"{plan.places.mode}, up to {plan.budget_s:g} s a case, smallest change {plan.min_change:.1%}"
        return [
            *session_header(upgrade.session),
            f"baseline: {upgrade.options.baseline}",
            f"candidate: {upgrade.options.candidate}",
            f"measured: {'pictures' if not plan.speed else f'pictures, speed, memory ({how})'}",
        ]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        if session.items and not session.config.getoption("collectonly"):
            self._total = len(session.items)
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
        found = self._upgrade.found.get(report.nodeid)
        line = case_line(found) if found else f"{report.nodeid.rpartition('::')[2]}  {report.outcome}"
        count = f"[{self._done:>{len(str(self._total))}}/{self._total}]"
        write_case_line(self._config, f"{count} {line}", passed=report.passed)

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        if self._upgrade.found and exitstatus != pytest.ExitCode.INTERRUPTED:
            self._upgrade.find_groups()
        self._upgrade.close()

    def pytest_unconfigure(self) -> None:
        self._upgrade.close()

    def pytest_terminal_summary(self, terminalreporter: Any, exitstatus: int) -> None:
        upgrade = self._upgrade
        if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
            nothing = nothing_selected(self._config, upgrade.session.selection, "compared")
            terminalreporter.write_line(nothing, red=True)
        if not upgrade.found and not upgrade.import_time:
            return
        found = upgrade.outcome()
        folder = upgrade.session.run.folder.make()
        write_upgrade(folder / UPGRADE_JSON, found)
        write = terminalreporter.write_line
        terminalreporter.section("upgrade")
        if is_simulated(self._upgrade.session.device):
            write(SIMULATED, yellow=True)
        write(render_upgrade(found, terminalreporter.hasmarkup))
        write("changes: " + (", ".join(found.changes) or "none"))
        for line in (*counts_lines(found), *remarks(found)):
            write(line)
        lines = group_lines(found.groups)
        for line in (*lines, *(line for line in worst_cases(found) if f"{line}." not in lines)):
            write(line, red=True)
        add_groups(self._config.getoption("xmlpath", None), found.groups)
        write_results(write, folder)
        search = bisect_command(found, rerun_options(self._config))
        if search:
            write(f"which release did it: {search}")
