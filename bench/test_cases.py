"""The benchmarks: one test per case of the suite."""

import pytest


@pytest.mark.bench
def test_case(case, measured):
    """Times the case and compares the grid of its last round and its work with its golden."""
    measured(case)
