"""A project of its own for tests that run pytest, with this project's conftest and settings."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]


def make_project(pytester: pytest.Pytester, suite: str, *tests: str) -> None:
    """Fills the folder of ``pytester``.

    Args:
        suite: text of its ``suite.toml``.
        tests: files of this project that it has too, such as ``bench/test_cases.py``.
    """
    pytester.makeconftest((PROJECT / "conftest.py").read_text())
    settings = (PROJECT / "tox.ini").read_text()
    assert "\npythonpath = .\n" in settings
    pytester.makefile(".ini", tox=settings.replace("\npythonpath = .\n", f"\npythonpath = {PROJECT}\n"))
    for name in tests:
        (pytester.path / name).parent.mkdir(exist_ok=True)
        shutil.copy(PROJECT / name, pytester.path / name)
    (pytester.path / "suite.toml").write_text(suite)
