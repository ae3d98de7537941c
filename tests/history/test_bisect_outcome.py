"""``bisect.json`` is read back as it was written."""

from bench.history import (
    bisect_outcome,
)
from bench.history.bisect_outcome import BisectFound


def test_a_bisection_is_read_back(bisected, tmp_path):
    _, found = bisected()
    bisect_outcome.write_bisect(tmp_path / "again.json", found)
    assert bisect_outcome.read_bisect(tmp_path / "again.json") == found
    assert isinstance(found, BisectFound)


def test_the_schema_file_is_up_to_date():
    assert bisect_outcome.SCHEMA_FILE.read_text() == bisect_outcome.schema(), "run the module"
