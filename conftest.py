"""Options, fixtures and hooks of the suite; what they do is in ``bench.plugin``."""

from __future__ import annotations

import pytest

from bench.plugin.checks import check_picture, measure_case
from bench.plugin.options import add_options
from bench.plugin.reporter import Reporter
from bench.plugin.selection import leave_out_slow
from bench.plugin.session import SESSION, Session, case_parameters, machine_environment, start_session


def pytest_addoption(parser):
    add_options(parser)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    config.stash[SESSION] = start_session(config)
    config.pluginmanager.register(Reporter(config, config.stash[SESSION]))


def pytest_generate_tests(metafunc):
    timed = "measured" in metafunc.fixturenames
    if timed or "pictured" in metafunc.fixturenames:
        metafunc.parametrize("case", list(case_parameters(metafunc.config.stash[SESSION], timed=timed)))


def pytest_collection_modifyitems(config, items):
    leave_out_slow(config, items, wanted=config.stash[SESSION].options.slow)


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
def pictured(bench_session, request):
    """``pictured(case)`` makes the grid of a case and fails unless it is its golden."""
    return lambda case: check_picture(bench_session, request.node, case)


@pytest.fixture
def measured(bench_session, request, benchmark):
    """``measured(case)`` times a case and fails unless the grid of its last round is its golden."""
    return lambda case: measure_case(bench_session, request.node, case, benchmark)
