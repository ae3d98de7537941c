"""``timeline.json`` is read back as it was written."""

import json

from bench.history import (
    timeline_outcome,
)
from bench.history.timeline_outcome import read_timeline, write_timeline


def test_what_was_written_is_read_back_and_fits_the_schema(survey, tmp_path):
    _, folder = survey()
    found = read_timeline(folder / "timeline.json")
    write_timeline(tmp_path / "again.json", found)
    assert read_timeline(tmp_path / "again.json") == found
    assert (tmp_path / "again.json").read_bytes() == (folder / "timeline.json").read_bytes()
    assert json.loads((folder / "timeline.json").read_text())["schema"] == 1


def test_the_schema_file_is_up_to_date():
    assert timeline_outcome.SCHEMA_FILE.read_text() == timeline_outcome.schema(), "run the module"
