"""The errors of the suite: one base class, and no name twice."""

from __future__ import annotations

import ast
import builtins
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import bench
from bench import errors

FOLDER = Path(bench.__file__).parent
# The two ends of a channel exchange these; users never see them.
SIGNALS = {"Closed", "TimedOut"}
# bench/simulated can be copied out of the project, so its errors have no base in the project.
STANDS_ALONE = {"SimulationError", "Weightless"}
BASES = {errors.BenchError.__name__, errors.UsageError.__name__}


def _is_exception(name: str) -> bool:
    found = getattr(builtins, name, None)
    return isinstance(found, type) and issubclass(found, BaseException)


def error_classes() -> Iterator[tuple[str, set[str]]]:
    """Name and bases of every class of ``bench/`` that is derived from an exception."""
    for path in FOLDER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
                if any(base in BASES or _is_exception(base) for base in bases):
                    yield node.name, bases


def test_every_error_is_a_sentence_for_the_user():
    found = dict(error_classes())
    assert len(found) > 20
    assert {name for name, bases in found.items() if not bases & BASES} == SIGNALS | STANDS_ALONE | {
        errors.BenchError.__name__
    }


def test_no_two_errors_have_the_same_name():
    assert [name for name, count in Counter(name for name, _ in error_classes()).items() if count > 1] == []


def test_errors_can_be_raised_under_old_libraries():
    tree = ast.parse(Path(errors.__file__).read_text(encoding="utf-8"))
    assert not [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
