"""Everything that one pytest session knows: options, suite, device and the run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.calls.device import (
    Accelerator,
    Device,
    check_clock,
    choose_device,
    is_simulated,
    make_deterministic,
    require_device,
    slow_dtypes,
)
from bench.errors import BenchError, UsageError
from bench.faults.quick import quick_cases
from bench.pictures.outcomes import Difference, holds, library_of, read_requirement
from bench.plugin.options import Options, UpgradeOptions
from bench.plugin.processes import device_id, give_devices, own_device
from bench.record.environment import describe_environment
from bench.record.folder import LATEST, RECORDS, RunFolder, new_run_name
from bench.record.record import Record, read_records
from bench.record.resume import Interrupted, read_interrupted
from bench.record.run_info import Shard
from bench.run import GoldenPolicy, Run
from bench.suite.case import Case
from bench.suite.file import Suite, read_suite
from bench.suite.selection import Selection, is_slow, select_cases


@dataclass
class Session:
    """What one pytest session knows.

    Attributes:
        records: those of this process, by node id; the run's folder has those of all processes.
        quick: ids of the cases with that marker.
        interrupted: the run that this one continues.
        shard: set when the cases are chosen, if this run is one.
        shard_cases: ids of its cases.
    """

    options: Options
    suite: Suite
    device: Device
    selection: Selection
    run: Run
    timing: bool
    upgrade: UpgradeOptions | None = None
    records: dict[str, Record] = field(default_factory=dict)
    quick: frozenset[str] = frozenset()
    interrupted: Interrupted | None = None
    shard: Shard | None = None
    shard_cases: tuple[str, ...] = ()

    @property
    def kept(self) -> Mapping[str, Record]:
        """The records of cases that ended before this run was interrupted, by id."""
        return self.interrupted.records if self.interrupted else {}

    def all_records(self) -> list[Record]:
        path = self.run.folder.path / RECORDS
        records = read_records(path) if path.is_file() else []
        # A case that was interrupted has a record of that too.
        return list({record.case: record for record in records}.values()) if self.interrupted else records


SESSION = pytest.StashKey[Session]()
UPGRADE_FILE = "test_upgrade.py"
# Takes the place of a case when none is left: without parameters, pytest would skip the test and the run would pass.
NO_CASE = object()


def wants_timing(config: pytest.Config) -> bool:
    """Whether the paths on the command line include the benchmarks."""
    benchmarks = config.rootpath / "bench"
    return any(
        path == benchmarks or benchmarks in path.parents or path in benchmarks.parents for path in _paths(config)
    )


def _paths(config: pytest.Config) -> list[Path]:
    """The paths on the command line."""
    return [(config.invocation_params.dir / argument.partition("::")[0]).resolve() for argument in config.args]


def _in_parallel(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput") or config.getoption("dist", "no") != "no"


def start_session(config: pytest.Config) -> Session:
    """Reads the options, the suite and the device.

    Raises:
        pytest.UsageError: something asked for is invalid or not available; nothing was run (exit code 4).
    """
    options = Options.from_config(config)
    upgrade = UpgradeOptions.from_config(config)
    if not upgrade and config.rootpath / "bench" / UPGRADE_FILE in _paths(config):
        raise pytest.UsageError(
            "an upgrade check compares two installs; give --baseline or --candidate, such as --candidate diffusers."
        )
    timing = wants_timing(config)
    if timing and _in_parallel(config):
        raise pytest.UsageError("benchmarks run one at a time: leave out -n, which is for picture checks (-m golden).")
    if timing and not upgrade:
        for option in ("cprofile", "disable_gc"):
            if config.getoption(f"benchmark_{option}"):
                name = option.replace("_", "-")
                raise pytest.UsageError(f"--benchmark-{name}: has no effect on calls that the suite times itself.")
    try:
        suite = read_suite(options.suite)
        device = choose_device(own_device(config) or options.device)
        if options.require_device:
            require_device(device, options.require_device)
        if timing and not upgrade and isinstance(device, Accelerator):
            check_clock(device)
        if is_simulated(device):
            refuse_on_simulated(options)
        selection = select_cases(suite, options.models, slow_dtypes(device), options.slow, device.type)
        quick = quick_cases()
        folder = _run_folder(config, options)
        interrupted = read_interrupted(folder.path) if options.resume and not upgrade else None
    except BenchError as error:
        raise pytest.UsageError(str(error)) from None
    if not timing:
        try:
            give_devices(config, options.device, device)
        except BenchError as error:
            raise pytest.UsageError(str(error)) from None
        make_deterministic()
    share_cores(int(getattr(config, "workerinput", {}).get("workercount", 1)))
    environment = describe_environment(device, config.rootpath)
    if options.golden_difference:
        require_releases(options.golden_difference, environment["libraries"])
    if interrupted:
        _refuse_other_environment(config, interrupted, environment)
    run = Run(
        device=device,
        folder=folder,
        goldens=GoldenPolicy(
            options.golden_dir, options.golden_update, options.golden_difference, options.golden_errors
        ),
        suite_folder=options.suite.parent,
        environment=environment,
        announce=announcer(config),
        counts_work=not options.pictures_only,
        device_id=device_id(config),
    )
    if timing and not upgrade and not is_simulated(device):
        config.option.benchmark_json = config.option.benchmark_json or _FreshFile(folder)
    return Session(
        options, suite, device, selection, run, timing and not upgrade, upgrade, quick=quick, interrupted=interrupted
    )


def _refuse_other_environment(config: pytest.Config, interrupted: Interrupted, environment: Mapping[str, Any]) -> None:
    """Raises:
    pytest.UsageError: the run to be continued was made in another environment.
    """
    if hasattr(config, "workerinput"):  # the controlling process has looked
        return
    processes = config.getoption("numprocesses", None) or 1
    try:
        interrupted.refuse_other_environment({**environment, "threads": share_of(environment["threads"], processes)})
    except BenchError as error:
        raise pytest.UsageError(str(error)) from None


def _run_folder(config: pytest.Config, options: Options) -> RunFolder:
    if options.resume:
        latest = options.resume == LATEST
        resumed = (options.results / LATEST if latest else config.invocation_params.dir / options.resume).resolve()
        return RunFolder(resumed.parent, resumed.name)
    worker = getattr(config, "workerinput", {})
    folder = RunFolder(options.results, worker.get("run_name") or new_run_name())
    folder.check_place()
    return folder


def refuse_on_simulated(options: Options) -> None:
    """What would keep pictures of a simulated accelerator as if they were those of a real one.

    Raises:
        UsageError: pictures or limits would be written.
    """
    if options.golden_difference or options.golden_calibrate:
        raise UsageError("a simulated accelerator draws no goldens: choose a real device with --device.")


def require_releases(difference: Difference, libraries: Mapping[str, str | None]) -> None:
    """Refuses to accept pictures for releases that did not draw them.

    Raises:
        pytest.UsageError: records do not include a library, or its version is out of range.
    """
    for text in difference.when:
        requirement = read_requirement(text)
        name = library_of(requirement)
        if name not in libraries:
            raise pytest.UsageError(f"--golden-for {text}: {name} is not one of {', '.join(libraries)}.")
        if not holds(requirement, libraries):
            installed = f"{name} {libraries[name]} is installed" if libraries[name] else f"{name} is not installed"
            raise pytest.UsageError(f"--golden-for {text}: {installed}; accept in an environment with such a release.")


def share_cores(processes: int) -> None:
    """Gives each process of pytest-xdist its share of the threads; more would wait for each other."""
    if processes > 1:
        torch.set_num_threads(share_of(torch.get_num_threads(), processes))


def share_of(threads: int, processes: int) -> int:
    return max(1, threads // processes)


class _FreshFile:
    """The path of ``benchmark.json``, whose folder is made only when pytest-benchmark opens it."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    def __fspath__(self) -> str:
        return str(self._folder.make() / "benchmark.json")

    def __str__(self) -> str:
        return str(self._folder.path / "benchmark.json")


def announcer(config: pytest.Config) -> Callable[[str], None]:
    """A function that prints a line immediately, in spite of pytest's output capturing."""

    def announce(line: str) -> None:
        reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
        capture: Any = config.pluginmanager.get_plugin("capturemanager")
        if reporter:
            with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
                reporter.ensure_newline()
                reporter.write_line(line, yellow=True)
                reporter.flush()

    return announce


def case_of(item: pytest.Item) -> Case | None:
    """The case that a test is about; ``None`` for other tests."""
    callspec = getattr(item, "callspec", None)
    case = callspec.params.get("case") if callspec else None
    return case if isinstance(case, Case) else None


def case_parameters(session: Session, *, timed: bool) -> Iterator[object]:
    """The selected cases as pytest parameters, with their marks; sentinels are never timed.

    Without a case, ``NO_CASE`` is the only parameter.
    """
    cases = [case for case in session.selection.cases if not (timed and case.settings.sentinel)]
    if not cases:
        yield pytest.param(NO_CASE, id="no-case")
    slow = slow_dtypes(session.device)
    for case in cases:
        marks = [pytest.mark.slow] if is_slow(case, slow) else []
        if case.settings.sentinel:
            marks.append(pytest.mark.sentinel)
        if session.device.type != "cpu":
            marks.append(pytest.mark.gpu)
        if case.id in session.quick:
            marks.append(pytest.mark.quick)
        if timed:
            marks.append(pytest.mark.benchmark(group=case.model.name))
        yield pytest.param(case, id=case.id, marks=marks)


def machine_environment(session: Session) -> dict[str, object]:
    """The environment for pytest-benchmark's ``machine_info``, without the git revision: it is not of the machine."""
    return {key: value for key, value in session.run.environment.items() if key != "git"}
