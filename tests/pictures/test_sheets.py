"""Goldens of many cases in two files."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from bench import files
from bench.pictures.sheets import SHEET_WIDTH, GroupError, SheetEntry, read_group, unused_entries, write_entry


def picture(seed: int, width: int = 64, height: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def entry(seed: int, **size: int) -> SheetEntry:
    origin = {
        "weights": "w",
        "device": {"type": "cpu"},
        "date": f"2026-11-{seed % 3 + 1:02}",
        "settings": {"steps": seed},
    }
    return SheetEntry(origin, picture(seed, **size))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "group.png"


def test_there_is_no_group_before_the_first_entry(path):
    assert read_group(path) == {}


def test_every_entry_comes_back_with_its_origin_and_its_pixels(path):
    sizes = [{}, {"width": 200}, {"height": 16}, {"width": 72, "height": 56}]
    entries = {f"m/g/case-{seed}": entry(seed, **sizes[seed % 4]) for seed in range(40)}
    for name in reversed(entries):
        write_entry(path, name, entries[name])
    found = read_group(path)
    assert list(found) == sorted(entries)
    for name, written in entries.items():
        assert found[name].grid == written.grid
        assert {"case": name, **written.origin}.items() <= {**found[name].origin}.items()
    with Image.open(path) as sheet:
        assert sheet.width <= SHEET_WIDTH


def test_what_entries_share_is_written_once(path):
    for seed in range(9):
        write_entry(path, f"case-{seed}", entry(seed))
    document = json.loads(path.with_suffix(".json").read_text())
    assert len(document["common"]) == 3
    assert all("weights" not in line for line in document["cases"].values())


def test_an_entry_is_replaced_and_removed(path):
    for name, seed in (("a", 1), ("b", 2), ("a", 3)):
        write_entry(path, name, entry(seed))
    assert read_group(path)["a"].grid == picture(3)
    write_entry(path, "a", None)
    assert list(read_group(path)) == ["b"]


def test_an_entry_may_have_no_picture(path):
    write_entry(path, "raises", SheetEntry({"error": {"type": "KeyError"}}, None))
    assert read_group(path)["raises"].grid is None


def test_a_sheet_without_pictures_and_one_that_is_missing_differ(path):
    write_entry(path, "a", entry(1))
    path.unlink()
    with pytest.raises(GroupError, match=r"group\.png is missing"):
        read_group(path)


@pytest.mark.parametrize("damage", ["{", '{"cases": {"a": {}}}', "[]"])
def test_damaged_origins_are_reported(path, damage):
    write_entry(path, "a", entry(1))
    path.with_suffix(".json").write_text(damage)
    with pytest.raises(GroupError):
        read_group(path)


def test_a_sheet_that_was_cut_is_reported(path):
    write_entry(path, "a", entry(1))
    picture(1, 32, 32).save(path)
    with pytest.raises(GroupError, match="the sheet is too small"):
        read_group(path)


def test_a_full_disk_leaves_the_old_files_unchanged(path, monkeypatch):
    write_entry(path, "a", entry(1))
    before = {file: file.read_bytes() for file in path.parent.iterdir()}

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_entry(path, "b", entry(2))
    assert {file: file.read_bytes() for file in path.parent.iterdir()} == before


def test_entries_that_belong_to_no_case_are_named(path):
    for name in "abc":
        write_entry(path, name, entry(ord(name)))
    assert unused_entries(path, ["b"]) == ["a", "c"]
