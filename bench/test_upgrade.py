"""The upgrade check, with ``--baseline`` and ``--candidate``: pictures and work of each case, then speed and memory."""

import pytest


@pytest.mark.upgrade
def test_upgrade(case, compared):
    """Pictures and work of the candidate against the baseline's."""
    compared(case)


@pytest.mark.upgrade
def test_speed(case, compared_speed):
    """Speed and memory of the candidate against the baseline's; the first test measures for all cases."""
    compared_speed(case)


@pytest.mark.upgrade
def test_components(compared_components):
    """The parts of the pipelines, each timed over all cases that share it."""
    compared_components()


@pytest.mark.upgrade
def test_import(compared_imports):
    """How long the candidate's libraries take to import, against the baseline's."""
    compared_imports()
