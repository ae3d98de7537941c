"""The upgrade check: one test per case, with ``--baseline`` and ``--candidate``."""

import pytest


@pytest.mark.upgrade
def test_upgrade(case, compared):
    """Pictures, speed and memory of the candidate against the baseline."""
    compared(case)


@pytest.mark.upgrade
def test_import(compared_imports):
    """How long the candidate's libraries take to import, against the baseline's."""
    compared_imports()
