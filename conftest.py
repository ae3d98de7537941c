"""Fixtures and hooks of the suite; ``bench.plugin`` has their implementation and the options."""

from __future__ import annotations

import pytest

from bench.plugin.calibration import CALIBRATION, CalibrationReporter, check_options
from bench.plugin.checks import check_picture, measure_case
from bench.plugin.processes import number_of_processes
from bench.plugin.reporter import Reporter
from bench.plugin.run_info import RunInfoWriter, refuse_another_run
from bench.plugin.selection import choose_items
from bench.plugin.session import (
    SESSION,
    Session,
    announcer,
    case_parameters,
    machine_environment,
    start_session,
)
from bench.plugin.shards import choose_shard
from bench.plugin.upgrade import (
    UPGRADE,
    UpgradeReporter,
    UpgradeSession,
    check_components,
    check_import,
    check_pictures,
    check_speed,
    environments_command,
    is_left_out,
    leave_out_timing,
)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    session = config.stash[SESSION] = start_session(config)
    if session.options.golden_calibrate:
        check_options(config, session)
    refuse_another_run(config, session)
    if session.upgrade:
        upgrade = config.stash[UPGRADE] = UpgradeSession(session, session.upgrade, announcer(config))
        config.pluginmanager.register(UpgradeReporter(config, upgrade))
        config.pluginmanager.register(RunInfoWriter(config, session, upgrade.reports))
    elif session.options.golden_calibrate:
        calibration = config.stash[CALIBRATION] = CalibrationReporter(config, session)
        config.pluginmanager.register(calibration)
    else:
        config.pluginmanager.register(Reporter(config, session))
        config.pluginmanager.register(RunInfoWriter(config, session))


def pytest_cmdline_main(config):
    return environments_command(config)


def pytest_ignore_collect(collection_path, config):
    return is_left_out(collection_path, config.rootpath, upgrade=config.stash[SESSION].upgrade is not None) or None


def pytest_generate_tests(metafunc):
    timed = bool({"measured", "compared_speed"} & set(metafunc.fixturenames))
    if timed or {"pictured", "compared"} & set(metafunc.fixturenames):
        metafunc.parametrize("case", list(case_parameters(metafunc.config.stash[SESSION], timed=timed)))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    session = config.stash[SESSION]
    choose_items(config, items)
    if session.upgrade and session.upgrade.pictures_only:
        leave_out_timing(items)
    choose_shard(config, session, items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    return number_of_processes(config)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    node.workerinput["run_name"] = node.config.stash[SESSION].run.folder.name


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(config, machine_info):
    machine_info["environment"] = machine_environment(config.stash[SESSION])


@pytest.fixture(scope="session")
def bench_session(pytestconfig) -> Session:
    """Options, suite, device and run of this session."""
    return pytestconfig.stash[SESSION]


@pytest.fixture
def pictured(bench_session, pytestconfig, request):
    """``pictured(case)`` fails unless the grid of a case matches its golden; to calibrate, unless it gets limits."""
    if bench_session.options.golden_calibrate:
        return pytestconfig.stash[CALIBRATION].check
    return lambda case: check_picture(bench_session, request.node, case)


@pytest.fixture
def measured(bench_session, request, benchmark):
    """``measured(case)`` times a case and fails unless the grid of its last round matches its golden."""
    return lambda case: measure_case(bench_session, request.node, case, benchmark)


@pytest.fixture
def compared(pytestconfig, request):
    """``compared(case)`` compares pictures and work of a case and fails if the candidate is worse."""
    return lambda case: check_pictures(pytestconfig.stash[UPGRADE], request.node, case)


@pytest.fixture
def compared_speed(pytestconfig, request):
    """``compared_speed(case)`` compares speed and memory of a case and fails if the candidate is worse."""
    return lambda case: check_speed(pytestconfig.stash[UPGRADE], request.node, case)


@pytest.fixture
def compared_components(pytestconfig):
    """``compared_components()`` fails if a part of a pipeline is slower on the candidate."""
    return lambda: check_components(pytestconfig.stash[UPGRADE])


@pytest.fixture
def compared_imports(pytestconfig):
    """``compared_imports()`` fails if the candidate's libraries take longer to import."""
    return lambda: check_import(pytestconfig.stash[UPGRADE])
