"""What differs between two environments."""

from dataclasses import replace
from pathlib import Path

import pytest

from bench.installs.installed import Change, Environment, changes


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        ("4.57.6", "5.23.0", "transformers 4.57.6 → 5.23.0"),
        (None, "6.3.1", "transformers (new) 6.3.1"),
        ("1.0", None, "transformers 1.0 → (removed)"),
    ],
)
def test_a_change_reads_as_a_line(before, after, text):
    assert str(Change("transformers", before, after)) == text


def test_changes_are_sorted_and_include_new_and_removed():
    before = Environment(Path("a"), {"a": "1", "b": "1", "c": "1"})
    after = replace(before, libraries={"a": "2", "c": "1", "d": "1"})
    assert changes(before, after) == (Change("a", "1", "2"), Change("b", "1", None), Change("d", None, "1"))
