"""The golden regression tests: every picture of the suite, without timing (``pytest -m golden``)."""

import pytest

from bench.pictures.simulated_work import unused_simulated
from bench.pictures.store import unused_goldens


@pytest.mark.golden
def test_picture(case, pictured):
    """The case's grid is its golden, and took no more work."""
    pictured(case)


@pytest.mark.golden
def test_every_golden_is_used(bench_session):
    """A golden that no case uses guards nothing, and may hide that its case was lost."""
    root = bench_session.options.golden_dir
    cases = bench_session.suite.cases
    unused = [*unused_goldens(root, cases), *unused_simulated(root, cases)]
    listed = ", ".join(unused)
    assert not unused, f"no case of {bench_session.suite.file} uses {listed}: delete them, or restore their cases."
