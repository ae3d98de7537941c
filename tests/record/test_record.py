"""Records as lines, the schema that documents them, and the folder of a run."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

import bench.record.record
from bench.calls.phases import Phases
from bench.calls.raised import RaisedError
from bench.pictures.compared import ComparedWork, Pictures
from bench.pictures.similarity import Limits
from bench.record.folder import ENVIRONMENTS, LATEST, RECORDS, FolderError, RunFolder, new_run_name
from bench.record.record import SCHEMA_FILE, Record, read_records, schema

PROJECT = Path(bench.record.record.__file__).parents[2]

RELIED_ON_BY_SCRIPTS = {
    "schema",
    "case",
    "model",
    "settings",
    "device",
    "environment",
    "load_s",
    "first_call_s",
    "samples_s",
    "unet_calls",
    "phases_s",
    "peak_memory_bytes",
    "peak_memory_reason",
    "pictures",
    "work",
    "error",
    "verdict",
}

WRITER = """
'One of two processes: waits for the file go, then writes as fast as it can.'
import pathlib, sys, time
from bench.record.record import Record
from bench.record.folder import RunFolder

root, device, size, rounds = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
values = {"schema": 1, "case": "c", "model": "m", "environment": "e", "verdict": "identical", "device": device}
record = Record(**values, settings={"prompts": [device * size]})
print("ready", flush=True)
while not (root / "go").exists():
    time.sleep(0.001)
for number in range(rounds):
    RunFolder(root, "run").append(record)
for number in range(rounds):
    RunFolder(root, f"run-{number}").note_environment("0a1b2c3d", {"settings": [device * size]})
"""


def record(**given) -> Record:
    values = {
        "schema": 1,
        "case": "tiny-sd/pndm-s20-g7.5-fp32",
        "model": "tiny-sd",
        "settings": {"steps": 20, "guidance": 7.5, "size": None, "prompts": ["a fox"], "optimizations": []},
        "device": "cuda",
        "environment": "0a1b2c3d",
        "verdict": "changed",
    }
    return Record(**(values | given))


def full_record() -> Record:
    return record(
        revision="1f2e3d",
        weights="a" * 64,
        load_average=0.25,
        load_s=1.5,
        first_call_s=0.1 + 0.2,
        samples_s=(1 / 3, 0.25, 1e-9),
        median_s=0.25,
        mad_s=0.0,
        unet_calls=21,
        phases_s=Phases(text_encoding=0.01, denoising=(0.1, 0.2), unet_calls=(1, 2), decoding=0.05),
        peak_memory_reason="the peak counter of cuda returns 0",
        pictures=Pictures(
            verdict="changed",
            message="differs",
            ssim_worst_tile=0.5,
            ssim_tiles=(1.0, 0.5),
            ssim_grid=0.75,
            max_diff=9,
            changed_share=0.125,
            mean_diff=(-1.0, 0.0, 2.5),
            limits=Limits(ssim=0.9, max_diff=4, changed_share=0.5, mean_diff=0.25, reason="measured"),
            golden="golden/tiny-sd/pndm-s20-g7.5-fp32.png",
        ),
        work=ComparedWork(
            verdict="more work",
            message="more work: UNet calls 20 → 21 (+5.0 %)",
            counts={"operators": {"aten::mm": 84}, "host_syncs": {}, "unet_calls": 21},
        ),
        error=RaisedError(type="NotRepeatable", message="the first and the last call differ"),
    )


@pytest.fixture
def file(tmp_path):
    return tmp_path / RECORDS


def test_the_schema_beside_the_code_is_that_of_the_classes():
    hint = "make it anew with python -m bench.record.record"
    assert json.loads(SCHEMA_FILE.read_text(encoding="utf-8")) == json.loads(schema()), hint


def test_the_schema_describes_every_key_of_a_line_and_no_other():
    described = json.loads(schema())
    assert set(described["properties"]) == set(json.loads(full_record().to_line()))
    assert described["additionalProperties"] is False


def test_the_names_that_scripts_rely_on_are_in_every_line():
    for line in (record().to_line(), full_record().to_line()):
        assert set(json.loads(line)) >= RELIED_ON_BY_SCRIPTS


def test_the_documented_picture_scores_are_in_a_line():
    scores = {"verdict", "ssim_worst_tile", "ssim_grid", "max_diff", "changed_share", "mean_diff", "limits", "golden"}
    assert set(json.loads(full_record().to_line())["pictures"]) >= scores


def test_the_documented_parts_of_the_work_are_in_a_line():
    assert set(json.loads(full_record().to_line())["work"]) == {"verdict", "message", "counts"}
    assert json.loads(record().to_line())["work"] is None


def test_the_schema_version_is_in_every_line():
    assert json.loads(record().to_line())["schema"] == 1


def test_a_record_survives_being_written_and_read(file):
    written = [full_record(), record(), record(verdict="raises")]
    file.write_text("".join(one.to_line() for one in written), encoding="utf-8")
    assert read_records(file) == written


@pytest.mark.parametrize(
    "prompt",
    [
        "a fox\nin two lines",
        "a\r\nb",
        "ein süßer Fuchs 🦊",
        'a "quoted" fox',
        "tab\there",
        "a\u2028b",
        "a\x85b",
        "a\x0cb",
    ],
)
def test_a_record_is_one_line_whatever_the_prompt(file, prompt):
    written = record(settings={"prompts": [prompt]})
    line = written.to_line()
    assert line.count("\n") == 1
    assert line.endswith("\n")
    file.write_text(line + record().to_line(), encoding="utf-8", newline="")
    assert read_records(file) == [written, record()]


@pytest.mark.parametrize(
    "broken",
    [
        full_record().to_line()[:70] + "\n",
        "\n",
        "null\n",
        "{}\n",
        record().to_line().replace('"verdict"', '"verdikt"'),
        record().to_line().replace('"changed"', "7"),
    ],
    ids=["cut off", "empty", "null", "no keys", "unknown key", "wrong type"],
)
def test_a_broken_line_is_reported_with_file_and_line(file, broken):
    file.write_text(record().to_line() + broken + record().to_line())
    with pytest.raises(ValueError) as caught:
        read_records(file)
    assert str(caught.value).startswith(f"{file}, line 2: not a record (")
    assert "\n" not in str(caught.value)


def test_a_record_refuses_undocumented_keys():
    with pytest.raises(ValueError, match="colour"):
        record(colour="red")


@pytest.mark.parametrize("part", ["phases_s", "pictures", "work", "error"])
def test_no_part_of_a_record_takes_undocumented_keys(part):
    line = json.loads(full_record().to_line())
    line[part]["colour"] = "red"
    with pytest.raises(ValueError, match="colour"):
        Record.model_validate_json(json.dumps(line))


def test_parts_of_older_records_are_read_though_they_lack_keys():
    line = json.loads(full_record().to_line())
    del line["phases_s"]["text_encoding"], line["pictures"]["limits"]["changed_share"], line["pictures"]["tier"]
    found = Record.model_validate_json(json.dumps(line))
    assert found.phases_s == Phases(denoising=(0.1, 0.2), unet_calls=(1, 2), decoding=0.05)
    assert found.pictures is not None
    assert found.pictures.limits == Limits(ssim=0.9, max_diff=4, mean_diff=0.25, reason="measured")


def test_no_folder_is_made_before_something_is_written(tmp_path):
    folder = RunFolder(tmp_path / "results", "20260101-000000-abcd")
    assert folder.path == tmp_path / "results" / "20260101-000000-abcd"
    assert not folder.root.exists()


def test_a_folder_that_cannot_be_created_is_one_sentence(tmp_path):
    root = tmp_path / "file" / "results"
    root.parent.touch()
    with pytest.raises(FolderError) as caught:
        RunFolder(root, "run").append(record())
    assert str(caught.value) == (
        f"{root}: cannot create the run's folder here (Not a directory); "
        "give a folder that you can write to with --results."
    )


def test_latest_points_to_the_newest_run_and_stays_there(tmp_path):
    older, newer = RunFolder(tmp_path, "20260101-000000-abcd"), RunFolder(tmp_path, "20260102-000000-abcd")
    older.append(record())
    assert (tmp_path / LATEST).resolve() == older.path
    newer.append(record())
    older.append(record())
    assert (tmp_path / LATEST).resolve() == newer.path
    assert len(read_records(tmp_path / LATEST / RECORDS)) == 1


def test_latest_still_works_in_a_results_folder_that_was_moved(tmp_path):
    RunFolder(tmp_path / "results", "run").append(record())
    (tmp_path / "results").rename(tmp_path / "artifacts")
    assert read_records(tmp_path / "artifacts" / LATEST / RECORDS) == [record()]


def test_a_run_folder_holds_nothing_but_what_was_written(tmp_path):
    RunFolder(tmp_path, "run").append(record())
    assert sorted(path.name for path in tmp_path.iterdir()) == [LATEST, "run"]
    assert [path.name for path in (tmp_path / "run").iterdir()] == [RECORDS]


def test_a_run_continues_where_links_cannot_be_created(tmp_path):
    (tmp_path / LATEST).mkdir()
    RunFolder(tmp_path, "run").append(record())
    assert read_records(tmp_path / "run" / RECORDS) == [record()]
    assert sorted(path.name for path in tmp_path.iterdir()) == [LATEST, "run"]


def test_records_are_in_the_order_in_which_cases_ended(tmp_path):
    folder = RunFolder(tmp_path, "run")
    written = [record(case=f"tiny-sd/case-{number}") for number in (3, 1, 2)]
    for one in written:
        folder.append(one)
        assert read_records(folder.path / RECORDS)[-1] == one
    assert read_records(folder.path / RECORDS) == written


def test_names_of_runs_sort_by_time_and_differ_within_a_second():
    names = [new_run_name() for _ in range(8)]
    assert len(set(names)) > 1
    times = [time.strptime(name[:15], "%Y%m%d-%H%M%S") for name in names]
    assert times == sorted(times)


def test_an_environment_is_written_once_and_never_changed(tmp_path):
    folder = RunFolder(tmp_path, "run")
    folder.note_environment("0a1b2c3d", {"python": "3.11"})
    folder.note_environment("0a1b2c3d", {"python": "3.12"})
    folder.note_environment("4e5f6a7b", {"python": "3.13"})
    known = json.loads((folder.path / ENVIRONMENTS).read_text())
    assert known == {"0a1b2c3d": {"python": "3.11"}, "4e5f6a7b": {"python": "3.13"}}


def test_a_known_environment_is_not_written_again(tmp_path):
    folder = RunFolder(tmp_path, "run")
    folder.note_environment("0a1b2c3d", {"python": "3.11"})
    os.utime(folder.path / ENVIRONMENTS, (1, 1))
    folder.note_environment("0a1b2c3d", {"python": "3.11"})
    assert (folder.path / ENVIRONMENTS).stat().st_mtime == 1


def test_environments_are_replaced_atomically(tmp_path):
    folder = RunFolder(tmp_path, "run")
    folder.note_environment("0a1b2c3d", {"python": "3.11"})
    (tmp_path / "old").hardlink_to(folder.path / ENVIRONMENTS)
    folder.note_environment("4e5f6a7b", {"python": "3.13"})
    assert json.loads((tmp_path / "old").read_text()) == {"0a1b2c3d": {"python": "3.11"}}
    assert [path.name for path in folder.path.iterdir()] == [ENVIRONMENTS]


def test_pictures_are_under_grids_by_case_and_role(tmp_path):
    folder, picture = RunFolder(tmp_path, "run"), Image.new("RGB", (4, 2), (1, 2, 3))
    paths = [folder.save_picture("tiny-sd/a-s5-g7.5", picture, role) for role in ("", "golden")]
    assert [path.relative_to(folder.path).as_posix() for path in paths] == [
        "grids/tiny-sd/a-s5-g7.5.png",
        "grids/tiny-sd/a-s5-g7.5.golden.png",
    ]
    assert Image.open(paths[1]).getpixel((3, 1)) == (1, 2, 3)


@pytest.fixture(scope="module")
def two_writers(tmp_path_factory):
    """The results folder after two processes wrote 200 long records and environments into one run."""
    root = tmp_path_factory.mktemp("results")
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(root), device, "20000", "200"],
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for device in ("x", "y")
    ]
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.readline()
    (root / "go").touch()
    errors = [writer.communicate(timeout=60)[1] for writer in writers]
    return root, errors


def test_lines_of_two_processes_do_not_mix(two_writers):
    root, _ = two_writers
    records = read_records(root / "run" / RECORDS)
    assert all(set(one.settings["prompts"][0]) == {one.device} for one in records)
    assert [sum(one.device == device for one in records) for device in ("x", "y")] == [200, 200]


def test_two_processes_may_note_the_same_environment(two_writers):
    root, errors = two_writers
    assert errors == ["", ""]
    for number in range(200):
        known = json.loads((root / f"run-{number}" / ENVIRONMENTS).read_text())
        assert len(set(known["0a1b2c3d"]["settings"][0])) == 1
