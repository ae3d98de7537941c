"""Pictures of a run become goldens on request, and only those that were made as they would be made here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from bench import accept
from bench.calls.device import Cpu
from bench.calls.raised import RaisedError
from bench.pictures.store import Origin
from bench.record.environment import describe_environment
from bench.record.folder import ENVIRONMENTS, RECORDS, RunFolder, picture_path
from bench.record.record import Record, read_records
from bench.run import GoldenPolicy, Run
from bench.suite.file import read_suite
from tests.plugin.tiny_suite import CASES, SUITE

pytestmark = pytest.mark.usefixtures("one_thread", "quick_collections")

FILES = sorted(f"{case}{suffix}" for case in CASES for suffix in (".json", ".png"))


@pytest.fixture(scope="module")
def made(tiny_ddpm_folder, tmp_path_factory) -> Path:
    """A run without goldens, beside its suite."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "suite.toml").write_text(SUITE.format(folder=tiny_ddpm_folder))
    device = Cpu()
    run = Run(
        device, RunFolder(folder, "run"), GoldenPolicy(folder / "no"), folder, describe_environment(device, folder)
    )
    for case in read_suite(folder / "suite.toml").cases:
        if case.id in CASES:
            run.picture(case)
    return folder


@pytest.fixture
def folder(made, tmp_path, monkeypatch) -> Path:
    """A copy of the run that a test may break; the current folder is that above it."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    (tmp_path / "run" / "latest").unlink(missing_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run"


@pytest.fixture
def start(folder, capsys):
    """``start(…)`` is the exit code of the command, and what it printed."""

    def start(*more):
        code = accept.main([str(folder), "--suite=suite.toml", "--golden-dir=golden", *more])
        said = capsys.readouterr()
        return code, said.out + said.err

    return start


def change(folder, case=CASES[0], **update):
    """Changes the record of one case."""
    records = read_records(folder / RECORDS)
    lines = [(one.model_copy(update=update) if one.case == case else one).to_line() for one in records]
    (folder / RECORDS).write_text("".join(lines))


def record_of(folder, case=CASES[0]) -> Record:
    return next(one for one in read_records(folder / RECORDS) if one.case == case)


def goldens(folder) -> list[str]:
    root = folder.parent / "golden"
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def on_gpu(folder):
    """Lets the run be one of a GPU."""
    path = folder / ENVIRONMENTS
    environments = json.loads(path.read_text())
    for environment in environments.values():
        environment["device_name"] = "NVIDIA H100"
    path.write_text(json.dumps(environments))
    for case in CASES:
        change(folder, case, device="cuda")


def test_what_would_be_written_is_listed_and_nothing_is_written(start, folder):
    code, said = start()
    assert code == 0
    for case in CASES:
        assert f"{case}: would write golden/{case}.png (missing, new)" in said
        assert f"  {picture_path(folder, case)}" in said
    assert said.endswith(
        "nothing is written yet: look at the pictures of these 3 of 3 cases, then accept them with --yes\n"
    )
    assert not goldens(folder)


def test_accepted_goldens_are_those_that_the_run_itself_would_write(start, folder, tmp_path):
    code, said = start("--yes")
    assert code == 0
    assert goldens(folder) == FILES
    assert f"wrote golden/{CASES[0]}.png" in said
    assert "accepted: 3 of 3 cases" in said
    assert "--golden-calibrate), then commit" in said.splitlines()[-1]
    suite = read_suite(Path("suite.toml"))
    device = Cpu()
    policy = GoldenPolicy(tmp_path / "other", "auto")
    run = Run(
        device, RunFolder(tmp_path, "again"), policy, tmp_path, describe_environment(device, tmp_path), lambda _: None
    )
    for case in suite.cases:
        if case.id in CASES:
            run.picture(case)
    for name in FILES:
        written, expected = tmp_path / "golden" / name, tmp_path / "other" / name
        if name.endswith(".png"):
            assert written.read_bytes() == expected.read_bytes()
        else:
            assert Origin.model_validate_json(written.read_text()) == Origin.model_validate_json(expected.read_text())


def test_accepting_again_changes_nothing(start, folder):
    start("--yes")
    before = {name: (folder.parent / "golden" / name).stat().st_mtime_ns for name in FILES}
    code, said = start("--yes")
    assert (code, said) == (0, "3 of 3 cases show their goldens already\nnothing to accept\n")
    assert before == {name: (folder.parent / "golden" / name).stat().st_mtime_ns for name in FILES}


def test_another_picture_is_listed_with_its_score_before_it_replaces_a_golden(start, folder, alter_golden):
    start("--yes")
    golden = folder.parent / "golden" / f"{CASES[1]}.png"
    alter_golden(golden)
    before = golden.read_bytes()
    code, said = start()
    assert code == 0
    assert f"{CASES[1]}: would write golden/{CASES[1]}.png (changed, SSIM was 0." in said
    assert "2 of 3 cases show their goldens already" in said
    assert golden.read_bytes() == before
    start("--yes")
    assert golden.read_bytes() != before
    assert start()[1].startswith("3 of 3 cases show their goldens already")


def test_goldens_of_an_accelerator_stand_beside_the_reference(start, folder, alter_golden):
    start("--yes")
    for case in CASES:
        alter_golden(folder.parent / "golden" / f"{case}.png")
    on_gpu(folder)
    code, said = start("--yes")
    assert code == 0
    assert [name for name in goldens(folder) if "@" in name] == sorted(
        f"{case}@cuda-nvidia-h100{suffix}" for case in CASES for suffix in (".json", ".png")
    )
    origin = Origin.model_validate_json((folder.parent / "golden" / f"{CASES[0]}@cuda-nvidia-h100.json").read_text())
    assert origin.device == {"type": "cuda", "name": "NVIDIA H100"}
    work = record_of(folder).work
    assert work
    assert origin.work == work.counts
    assert "next: measure their limits on NVIDIA H100 (pytest -m golden -k 'ddpm-s2-fp32 or " in said


def test_the_level_can_be_chosen(start, folder):
    on_gpu(folder)
    start("--yes", "--golden-level=device", "-k", "s2")
    assert goldens(folder) == [f"{CASES[0]}@cuda-nvidia-h100{suffix}" for suffix in (".json", ".png")]


def test_an_exception_is_accepted_as_one(start, folder):
    error = RaisedError(type="IndexError", message="index 5 is out of bounds")
    record = record_of(folder)
    change(folder, error=error, work=None, pixels=None, pictures=record.pictures, verdict="missing")
    picture_path(folder, CASES[0]).unlink()
    code, said = start("--yes", "-k", "s2")
    assert code == 1
    assert "name the report of this error as 'issue' in the suite file, or add --golden-errors" in said
    code, said = start("--yes", "-k", "s2", "--golden-errors")
    assert code == 0
    assert "  raises IndexError: index 5 is out of bounds" in said
    assert goldens(folder) == [f"{CASES[0]}.json"]


def without_picture(folder):
    picture_path(folder, CASES[0]).unlink()


def other_picture(folder):
    path = picture_path(folder, CASES[0])
    with Image.open(path) as opened:
        grid = opened.rotate(180)
    grid.save(path)


OUT_OF_MEMORY = RaisedError(type="OutOfMemoryError", message="CUDA out of memory")
REFUSED = {
    "no picture": (without_picture, "its picture is missing: "),
    "another picture": (other_picture, " is not the picture of its record"),
    "no file of a picture": (
        lambda folder: picture_path(folder, CASES[0]).write_text("no"),
        "its picture cannot be read: ",
    ),
    "broken": (lambda folder: change(folder, verdict="broken"), "not accepted: broken"),
    "not repeatable": (lambda folder: change(folder, verdict="not repeatable"), "not accepted: not repeatable"),
    "raised": (
        lambda folder: change(folder, verdict="raises", pictures=None, error=RaisedError(type="E", message="x")),
        "not accepted: raises (E: x)",
    ),
    "memory": (lambda folder: change(folder, error=OUT_OF_MEMORY), "the machine failed (OutOfMemoryError: CUDA"),
    "no work": (lambda folder: change(folder, work=None), "its work was not counted; run it without --pictures-only"),
    "no weights": (lambda folder: change(folder, weights=None), "the hash of its weights is not known"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_case_that_cannot_be_accepted_is_named_and_the_others_are_written(name, start, folder):
    break_, why = REFUSED[name]
    break_(folder)
    code, said = start("--yes")
    assert code == 1
    assert said.startswith(f"{CASES[0]}: not accepted: ")
    assert why in said
    assert "accepted: 2 of 3 cases" in said
    assert goldens(folder) == [file for file in FILES if CASES[0] not in file]


def simulated(folder):
    for case in CASES:
        change(folder, case, device="sim")


def other_settings(folder):
    change(folder, settings=record_of(folder).settings | {"seed": 7})


def strange_case(folder):
    path = folder / RECORDS
    path.write_text(path.read_text().replace(f'"case":"{CASES[0]}"', '"case":"tiny/pndm-s9-fp32"'))


@pytest.mark.parametrize(
    ("break_", "why"),
    [
        (simulated, "a simulated accelerator draws no goldens; give a run on a real device."),
        (other_settings, f"of another suite ({CASES[0]}: seed was 7 and is 0 in the suite); accept it in the checkout"),
        (
            lambda folder: change(folder, weights="a" * 64),
            f"of another suite ({CASES[0]}: weights were aaaaaaaaaaaa and are ",
        ),
        (strange_case, "of another suite (tiny/pndm-s9-fp32 is not in "),
        (
            lambda folder: (folder / RECORDS).unlink(),
            "records.jsonl: cannot be read (No such file or directory); give the",
        ),
        (lambda folder: (folder / ENVIRONMENTS).write_text("{}"), "environments.json: has no environment "),
        (lambda folder: (folder / RECORDS).write_text("{}\n"), "records.jsonl: damaged ("),
    ],
)
def test_a_run_that_cannot_be_used_is_refused_in_one_sentence(break_, why, start, folder):
    break_(folder)
    code, said = start("--yes")
    assert code == 4
    assert why in said
    assert said.count("\n") == 1
    assert not goldens(folder)


def test_cases_are_chosen_as_by_pytest(start, folder):
    code, said = start("-k", "s2 or s3")
    assert code == 0
    assert "these 2 of 2 cases" in said
    code, said = start("-k", "gremlins")
    assert code == 4
    assert "none of the 3 cases matches" in said
