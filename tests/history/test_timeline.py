"""A timeline over made-up releases, as the command runs it."""

import pytest

from bench.history import (
    release_pictures,
    timeline,
)
from bench.history.timeline_outcome import read_timeline
from tests.history.helpers import CASE, OTHER


def test_a_timeline_goes_on_where_a_release_does_not_run(survey, capsys):
    code, folder = survey()
    assert code == 0
    found = read_timeline(folder / "timeline.json")
    assert [one.status for one in found.releases] == ["ran", "ran", "not installed", "not imported", "ran", "ran"]
    assert found.releases[2].reason == "'paint==1.1.2': no wheel."
    assert found.releases[3].reason == "ImportError: no brush"
    assert found.releases[3].libraries == {"paint": "1.2.0", "brush": "1.0"}
    assert found.releases[4].changes == ("paint 1.0.1 → 1.10.0",)
    told = [(release.release, case.case, case.marks) for release, case in found.happenings()]
    assert told == [
        ("1.0.1", OTHER, ("raises now",)),
        ("1.10.0", OTHER, ("raises something else",)),
        ("1.10.0", CASE, ("changed",)),
        ("2.0.1", OTHER, ("works now",)),
        ("2.0.1", CASE, ("other number of UNet calls", "new warning")),
    ]
    assert next(case for case in found.releases[4].cases if case.case == CASE).compared_with == "1.0.1"
    kept = sorted(path.relative_to(folder / "grids").as_posix() for path in folder.rglob("grids/**/*.png"))
    assert [one for one in kept if one.startswith("1.10.0/")] == [
        f"1.10.0/{CASE}.{role}.png" for role in ("after", "before", "difference")
    ]
    printed = capsys.readouterr().out
    assert "[3/6] paint 1.1.2: not installed: 'paint==1.1.2': no wheel." in printed
    assert "min left" in printed
    assert f"1.10.0  changed: {CASE}\n" in printed
    assert "without pictures: 1.1.2 not installed, 1.2.0 not imported\n" in printed
    results, report = printed.splitlines()[-2:]
    assert results == f"results: {folder}"
    assert report.startswith(f"report: {folder / 'report.html'} (")


def test_a_crash_loses_only_the_release_that_was_running(survey, script, tmp_path):
    script.releases["1.10.0"] = {}  # a fault of the suite, not of a user
    with pytest.raises(KeyError):
        survey()
    assert len(read_timeline(tmp_path / "latest" / "timeline.json").releases) == 4


def test_an_interrupted_timeline_keeps_what_was_done(survey, script, monkeypatch, tmp_path):
    usual = script.environment_of

    def interrupted(side, cache, announce):
        if "1.10.0" in side.text:
            raise KeyboardInterrupt
        return usual(side, cache, announce)

    monkeypatch.setattr(release_pictures, "environment_of", interrupted)
    code, folder = survey()
    assert code == 2
    found = read_timeline(folder / "timeline.json")
    assert len(found.releases) == 4
    assert not found.is_complete
    assert "in 4 of 6 releases" in (folder / "summary.md").read_text()
    assert (folder / "timeline.png").exists()


def test_the_file_is_written_after_each_release(survey, script, monkeypatch):
    lengths = []
    usual = timeline.write_timeline

    def noted(path, found):
        usual(path, found)
        lengths.append(len(read_timeline(path).releases))

    monkeypatch.setattr(timeline, "write_timeline", noted)
    survey()
    assert lengths == [1, 2, 3, 4, 5, 6]
