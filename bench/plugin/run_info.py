"""Writes ``run.json``: which cases were planned, and what failed other than cases."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from bench.calls.canary import time_canary
from bench.calls.device import is_simulated
from bench.console import shown
from bench.errors import BenchError
from bench.plugin.session import Session, case_of
from bench.plugin.shards import is_empty_shard, refuse_repeated_cases
from bench.record.resume import read_interrupted
from bench.record.run_info import FILE, RunInfo, now, read_run_info, suite_hash, write_run_info
from bench.record.steadiness import gpu_reasons, why_not_comparable

# Options that define the cases, so rerunning one case needs them too.
_CHOOSING = ("suite", "device", "golden_dir")


class RunInfoWriter:
    """A pytest plugin. If several processes run the tests, each knows the plan and the first one writes it."""

    def __init__(
        self, config: pytest.Config, session: Session, is_reported: Callable[[str], bool] = lambda _: False
    ) -> None:
        self._config = config
        self._session = session
        self._folder = session.run.folder
        self._left_out = session.selection.left_out
        self._failures: dict[str, str] = {}
        self._is_reported = is_reported

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Refuses to continue a run of other cases; where pytest-xdist collects, see the next hook."""
        in_other_processes = self._config.getoption("dist", "no") != "no" or hasattr(self._config, "workerinput")
        if self._session.interrupted and not in_other_processes:
            refuse_repeated_cases(session.items, "--resume")
            self._refuse_other_cases(_cases_of(session))

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        known = {case.id for case in self._session.selection.cases}
        self._refuse_other_cases([case for nodeid in ids if (case := _in_brackets(nodeid)) in known])

    def _refuse_other_cases(self, cases: Sequence[str]) -> None:
        try:
            if self._session.interrupted:
                self._session.interrupted.refuse_other_cases(set(cases))
        except BenchError as error:
            raise pytest.UsageError(str(error)) from None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        planned = _cases_of(session)
        asked = planned or self._session.shard
        if not asked or session.config.getoption("collectonly") or (self._folder.path / FILE).is_file():
            return
        run = self._session.run
        info = RunInfo(
            schema=1,
            command=shlex.join(["pytest", *self._config.invocation_params.args]),
            began=now(),
            planned=planned,
            left_out=self._left_out,
            rerun_options=rerun_options(self._config),
            environment=run.environment_key,
            suite=suite_hash(self._session.selection.cases),
            options=deciding_options(self._config, self._session),
            shard=self._session.shard,
            canary_s=self._canary(),
        )
        try:
            folder = self._folder.make()
            self._folder.note_environment(run.environment_key, run.environment)
        except BenchError as error:
            raise pytest.UsageError(str(error)) from None
        write_run_info(folder, info)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and not self._is_reported(report.nodeid):
            self._failures[report.nodeid] = _first_line(report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if hasattr(self._config, "workerinput") or exitstatus == pytest.ExitCode.USAGE_ERROR:
            return
        if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and is_empty_shard(self._session):
            session.exitstatus = pytest.ExitCode.OK
        info = read_run_info(self._folder.path)
        if info:
            ended = None if exitstatus == pytest.ExitCode.INTERRUPTED else now()
            others = [name for name in self._failures if not _is_of_a_case(name, info)]
            failures = tuple(f"{name.rpartition('/')[2]}: {self._failures[name]}" for name in others)
            canary_s = (*info.canary_s, *(self._canary() if ended and info.canary_s else ()))
            states = [record.gpu for record in self._session.records.values() if record.gpu]
            found = {
                "ended": ended,
                "other_failures": failures,
                "canary_s": canary_s,
                "not_comparable": why_not_comparable(canary_s, gpu_reasons(states)),
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


def refuse_another_run(config: pytest.Config, session: Session) -> None:
    """Refuses to continue a run that was asked for something else, as far as is known before tests are collected.

    Raises:
        pytest.UsageError: it was; the sentence names the first difference.
    """
    folder, asked = session.run.folder.path, session.options.shard
    shard = f"{asked[0]}/{asked[1]}" if asked else None
    try:
        if session.interrupted:
            suite = suite_hash(session.selection.cases)
            session.interrupted.refuse_other_request(suite, deciding_options(config, session))
            session.interrupted.refuse_other_shard(shard)
        elif session.options.resume and (folder / FILE).is_file():  # the journal of an upgrade check knows the rest
            read_interrupted(folder).refuse_other_shard(shard)
    except BenchError as error:
        raise pytest.UsageError(str(error)) from None


def _is_of_a_case(nodeid: str, info: RunInfo) -> bool:
    """Whether a test has the id of a planned case in its brackets."""
    return _in_brackets(nodeid) in info.planned


def _in_brackets(nodeid: str) -> str:
    return nodeid.partition("[")[2].removesuffix("]")


def _cases_of(session: pytest.Session) -> tuple[str, ...]:
    """The ids of the cases of a session's tests."""
    return tuple(dict.fromkeys(case.id for item in session.items if (case := case_of(item))))


def _first_line(report: Any) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash else str(report.longrepr)
    return text.strip().splitlines()[0] if text.strip() else "failed"


def deciding_options(config: pytest.Config, session: Session) -> dict[str, Any]:
    """What decides what is done with each case: records of runs that differ here are not those of one run."""
    options, upgrade = session.options, session.upgrade
    found: dict[str, Any] = {
        "checks": "upgrade" if upgrade else "bench" if session.timing else "golden",
        "pictures_only": options.pictures_only,
        "golden_dir": shown(options.golden_dir),
        "golden_update": options.golden_update,
        "golden_for": options.golden_difference and options.golden_difference.releases,
    }
    if session.timing:
        found["rounds"] = options.rounds
    if upgrade:
        found |= {"baseline": upgrade.baseline, "candidate": upgrade.candidate, "must_decide": upgrade.must_decide}
        found |= {"min_change": upgrade.min_change, "min_component_change": upgrade.min_component_change}
    return found


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
