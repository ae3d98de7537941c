"""The suite as pytest runs it: exit codes, what is printed and what is written, on a suite of three tiny cases."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import huggingface_hub.constants
import pytest
import torch

from bench.calls.device import Cpu
from bench.plugin.session import share_cores
from bench.record.environment import describe_environment
from bench.record.folder import RECORDS
from bench.record.record import Record, read_records
from bench.record.run_info import RunInfo, read_run_info
from tests.plugin.tiny_suite import CASES, run_folders, text_of
from tests.project import PROJECT

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.usefixtures("one_thread", "quick_collections", "as_found")

READ = "aten::_local_scalar_dense"
SLOW_CASE = "tiny/ddim-s2-fp32"
SLOW_MODEL = """
[models.late]
kind = "ddpm"
source = "hub"
id = "somebody/late"

[[cases]]
model = "late"
scheduler = "ddpm"
steps = 2
images = 1
slow = true
"""
ACCEPT = ["golden", "--golden-update", "--golden-reason=why"]
USAGE_ERROR, NOTHING_RUN = pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.NO_TESTS_COLLECTED
NOTHING_TIMED = pytest.mark.filterwarnings("ignore:Not saving anything, no benchmarks have been run")


def alter_work(golden: Path, change: Callable[[dict[str, int]], dict[str, int]] | None) -> None:
    """Changes the host synchronisations of a golden, or removes all its counts."""
    beside = golden.with_suffix(".json")
    origin = json.loads(beside.read_text())
    if change:
        origin["work"]["host_syncs"] = change(origin["work"]["host_syncs"])
    else:
        origin["work"] = None
    beside.write_text(json.dumps(origin))


def more_than(syncs: dict[str, int]) -> dict[str, int]:
    """So few that a run of three steps has one more per step."""
    return syncs | {READ: syncs[READ] - 3}


def less_than(syncs: dict[str, int]) -> dict[str, int]:
    return syncs | {READ: syncs[READ] + 3}


def records(pytester: pytest.Pytester) -> list[Record]:
    return read_records(pytester.path / "results" / "latest" / RECORDS)


def notes_of(folder: Path) -> RunInfo:
    notes = read_run_info(folder)
    assert notes
    return notes


@pytest.mark.parametrize("folder", ["bench", "golden"])
def test_without_goldens_every_case_is_red_and_no_golden_appears(folder, start, pytester):
    result = start(folder)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([f"*{case}*missing*" for case in CASES])
    result.stdout.fnmatch_lines(["*no golden at *golden/tiny/ddpm-s2-fp32.png*--golden-update*"])
    assert [record.verdict for record in records(pytester)] == ["missing"] * 3
    assert not list((pytester.path / "golden").rglob("*.png"))


def test_accepting_goldens_is_red_and_the_next_run_is_green(start, pytester):
    writing = start("golden", "--golden-update")
    assert writing.ret == pytest.ExitCode.TESTS_FAILED
    writing.stdout.fnmatch_lines([f"wrote *golden/{case}.png (missing, new)" for case in CASES])
    written = sorted(
        path.relative_to(pytester.path / "golden").as_posix() for path in pytester.path.rglob("golden/*/*")
    )
    assert written == sorted(case + suffix for case in CASES for suffix in (".png", ".json"))
    checking = start("golden")
    assert checking.ret == pytest.ExitCode.OK
    checking.assert_outcomes(passed=4)
    assert [record.verdict for record in records(pytester)] == ["identical"] * 3
    assert len(run_folders(pytester)) == 2


@pytest.mark.usefixtures("goldens")
def test_a_green_benchmark_prints_and_writes_everything(start, pytester):
    result = start("bench")
    assert result.ret == pytest.ExitCode.OK
    result.assert_outcomes(passed=3)
    (folder,) = run_folders(pytester)
    result.stdout.fnmatch_lines(["device: cpu (*), 1 threads, environment ????????"])
    result.stdout.fnmatch_lines(
        ["suite: *suite.toml, 3 cases (left out: 1 slow (-m slow); 1 of hub models (--model NAME))"]
    )
    result.stdout.fnmatch_lines(
        [f"[[]{number}/3[]] {case} *ms/image  identical*" for number, case in enumerate(CASES, 1)]
    )
    result.stdout.fnmatch_lines(["*case *ms/image *ms/step *first call ms *memory *SSIM worst tile *verdict"])
    result.stdout.fnmatch_lines([f"*{case} *n/a *1.00000 *identical" for case in CASES])
    told = f"results/{folder.name}"
    result.stdout.fnmatch_lines(
        ["verdicts: 3 identical", "work: 3 same work", f"results: {told}", f"report: {told}/report.html (* MB)"],
        consecutive=True,
    )
    assert "All 3 cases look exactly like their goldens." in (folder / "report.html").read_text()
    assert "All 3 cases look exactly like their goldens." in (folder / "summary.md").read_text()
    assert (pytester.path / "results" / "latest").resolve() == folder
    assert [record.case for record in records(pytester)] == CASES
    assert all(len(record.samples_s) == 2 and record.first_call_s for record in records(pytester))
    assert {path.relative_to(folder / "grids").with_suffix("").as_posix() for path in folder.rglob("*.png")} == set(
        CASES
    )


@pytest.mark.usefixtures("goldens")
def test_the_benchmark_file_is_in_the_schema_of_pytest_benchmark(start, pytester):
    start("bench")
    (folder,) = run_folders(pytester)
    document = json.loads((folder / "benchmark.json").read_text())
    assert {"machine_info", "commit_info", "benchmarks", "datetime", "version"} <= document.keys()
    environment = document["machine_info"]["environment"]
    assert environment["libraries"]["torch"] == describe_environment(Cpu(), folder)["libraries"]["torch"]
    for entry, record in zip(document["benchmarks"], records(pytester), strict=True):
        assert entry["group"] == "tiny"
        assert entry["fullname"] == f"bench/test_cases.py::test_case[{record.case}]"
        assert tuple(entry["stats"]["data"]) == record.samples_s
        assert entry["stats"]["median"] == record.median_s
        assert entry["stats"]["rounds"] == 2
        assert (entry["extra_info"]["case"], entry["extra_info"]["verdict"]) == (record.case, "identical")
        assert entry["extra_info"]["pictures"]["ssim_worst_tile"] == 1


@pytest.mark.parametrize("folder", ["bench", "golden"])
def test_a_changed_picture_is_one_failed_test_that_names_the_case(folder, start, pytester, goldens, alter_golden):
    alter_golden(goldens / f"{CASES[1]}.png")
    result = start(folder, "--junitxml=junit.xml")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert result.parseoutcomes()["failed"] == 1
    result.stdout.fnmatch_lines([f"{CASES[1]}: changed: differs from *{CASES[1]}.png: SSIM *"])
    assert "Traceback" not in text_of(result)
    assert [record.verdict for record in records(pytester)] == ["identical", "changed", "identical"]
    (suite,) = ElementTree.parse(pytester.path / "junit.xml").getroot()
    assert (suite.get("failures"), suite.get("errors")) == ("1", "0")
    (failed,) = [test for test in suite if test.find("failure") is not None]
    assert failed.get("name") == f"{'test_case' if folder == 'bench' else 'test_picture'}[{CASES[1]}]"
    properties = {entry.get("name"): entry.get("value") for entry in failed.iter("property")}
    assert properties["verdict"] == "changed"
    assert float(properties["ssim_worst_tile"] or 1) < 0.9
    assert ("median_s" in properties) == (folder == "bench")


@pytest.mark.parametrize("folder", ["bench", "golden"])
def test_more_work_is_one_failed_test_that_says_what_is_more(folder, start, pytester, goldens):
    alter_work(goldens / f"{CASES[1]}.png", more_than)
    result = start(folder, "--junitxml=junit.xml")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert result.parseoutcomes()["failed"] == 1
    said = f"{CASES[1]}: more work: value reads * (* %, +1 per step): aten::_local_scalar_dense +3"
    result.stdout.fnmatch_lines([f"*{CASES[1]} *more work*"])
    result.stdout.fnmatch_lines([f"{said}. Pictures: *"])
    result.stdout.fnmatch_lines(["verdicts: 2 identical, 1 more work", "work: 2 same work, 1 more work", said])
    (run,) = run_folders(pytester)
    assert "1 of 3 cases failed: 1 more work." in (run / "report.html").read_text()
    assert "+1 per step" in (run / "summary.md").read_text()
    (suite,) = ElementTree.parse(pytester.path / "junit.xml").getroot()
    (failed,) = [test for test in suite if test.find("failure") is not None]
    properties = {str(entry.get("name")): str(entry.get("value")) for entry in failed.iter("property")}
    assert (properties["verdict"], properties["work"]) == ("more work", "more work")
    assert all(int(properties[name]) > 0 for name in ("operators", "host_syncs", "copied_bytes", "flops"))


def test_cases_that_fail_in_the_same_way_lead_with_one_sentence(start, pytester, goldens, alter_golden):
    for case in CASES[1:]:
        alter_golden(goldens / f"{case}.png")
    result = start("golden", "--junitxml=junit.xml")
    sentence = "2 of 3 cases give changed pictures"
    result.stdout.fnmatch_lines(["work: *", f"{sentence}.", f"{CASES[1]}: changed: *", "results: *"])
    (run,) = run_folders(pytester)
    assert "give changed pictures" in (run / "report.html").read_text()
    properties = ElementTree.parse(pytester.path / "junit.xml").iter("property")
    assert [entry.get("value") for entry in properties if entry.get("name") == "group"] == [sentence] * 2


def test_less_work_passes_and_is_reported(start, pytester, goldens):
    alter_work(goldens / f"{CASES[1]}.png", less_than)
    result = start("golden")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines([f"*{CASES[1]} *identical, less work*"])
    result.stdout.fnmatch_lines(
        [
            "verdicts: 3 identical",
            "work: 2 same work, 1 less work",
            f"{CASES[1]}: less work: value reads * (* %, -1 per step): aten::_local_scalar_dense -3",
        ]
    )
    (run,) = run_folders(pytester)
    told = "All 3 cases look exactly like their goldens; 1 with less work."
    assert told in (run / "report.html").read_text()
    assert told in (run / "summary.md").read_text()


def of_release(golden: Path, torch_version: str) -> None:
    """Lets a golden claim to be accepted with this release of torch."""
    beside = golden.with_suffix(".json")
    origin = json.loads(beside.read_text())
    origin["libraries"]["torch"] = torch_version
    beside.write_text(json.dumps(origin))


def test_accepting_a_known_difference_is_red_and_the_next_run_is_green(start, pytester, goldens, alter_golden):
    path = goldens / f"{CASES[1]}.png"
    alter_golden(path)
    of_release(path, "999")
    before = path.read_bytes()
    accept = ["golden", "--pictures-only", "--golden-update", "--golden-for=torch<999", "--golden-reason=fewer bits"]
    writing = start(*accept)
    assert writing.ret == pytest.ExitCode.TESTS_FAILED
    assert writing.parseoutcomes()["failed"] == 1
    writing.stdout.fnmatch_lines([f"wrote {path}, with torch<999 (changed, SSIM was *)"])
    writing.stdout.fnmatch_lines([f"{CASES[1]}: *accepted as known difference with torch<999 in {path} *"])
    assert path.read_bytes() == before
    checking = start("golden")
    assert checking.ret == pytest.ExitCode.OK
    checking.assert_outcomes(passed=4)
    assert start(*accept).ret == pytest.ExitCode.OK
    of_release(path, torch.__version__)
    accept[-2:] = ["--golden-for=torch<9999", "--golden-reason=fewer bits"]
    refused = start(*accept)
    assert refused.ret == pytest.ExitCode.TESTS_FAILED
    refused.stdout.fnmatch_lines([f"{CASES[1]}: {path}: not accepted, torch<9999 also applies to the golden *"])


@pytest.mark.parametrize("change", [None, more_than, less_than], ids=["none", "more", "less"])
def test_accepting_other_work_is_red_and_the_next_run_is_green(change, start, goldens):
    path = goldens / f"{CASES[1]}.png"
    alter_work(path, change)
    before = path.read_bytes()
    writing = start("golden", "--golden-update")
    assert writing.ret == pytest.ExitCode.TESTS_FAILED
    assert writing.parseoutcomes()["failed"] == 1
    writing.stdout.fnmatch_lines([f"wrote {path} (same pictures, work: *)"])
    writing.stdout.fnmatch_lines([f"{CASES[1]}: *accepted as {path} (same pictures, *--golden-update to check it*"])
    assert path.read_bytes() == before
    assert start("golden").ret == pytest.ExitCode.OK


def test_goldens_without_counts_are_red_and_say_what_to_do(start, goldens):
    for case in CASES:
        alter_work(goldens / f"{case}.png", None)
    result = start("golden")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["verdicts: 3 work missing", "work: 3 missing"])
    result.stdout.fnmatch_lines([f"{CASES[0]}: work missing: *{CASES[0]}.json has no counted work; *--golden-update*"])


@pytest.mark.parametrize("folder", ["bench", "golden"])
def test_pictures_only_counts_nothing_and_needs_no_counts(folder, start, pytester, goldens):
    alter_work(goldens / f"{CASES[0]}.png", None)
    alter_work(goldens / f"{CASES[1]}.png", more_than)
    result = start(folder, "--pictures-only")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["verdicts: 3 identical", "work: not counted"])
    assert [record.work for record in records(pytester)] == [None] * 3
    (run,) = run_folders(pytester)
    assert "--pictures-only" in notes_of(run).rerun_options


def test_processes_of_xdist_share_the_cores():
    torch.set_num_threads(4)
    share_cores(1)
    assert torch.get_num_threads() == 4
    share_cores(2)
    assert torch.get_num_threads() == 2
    share_cores(9)
    assert torch.get_num_threads() == 1


@pytest.mark.usefixtures("goldens")
def test_parallel_picture_checks_share_one_run_folder(start, pytester):
    result = start("golden", "-n2")
    assert result.ret == pytest.ExitCode.OK
    result.assert_outcomes(passed=4)
    assert len(run_folders(pytester)) == 1
    assert sorted(record.case for record in records(pytester)) == CASES
    result.stdout.fnmatch_lines(["verdicts: 3 identical", "results: results/*", "report: results/*"])
    (folder,) = run_folders(pytester)
    assert sorted(notes_of(folder).planned) == CASES
    assert notes_of(folder).ended
    assert "All 3 cases" in (folder / "summary.md").read_text()


@pytest.mark.usefixtures("goldens")
def test_a_benchmark_without_timing_still_checks_the_pictures(start, pytester):
    result = start("bench", "--benchmark-disable")
    result.assert_outcomes(passed=3)
    assert all(record.verdict == "identical" and not record.samples_s for record in records(pytester))


@pytest.mark.usefixtures("goldens")
def test_a_run_records_its_plan_and_its_command(start, pytester):
    start("bench", "-k", "s2", "--device", "cpu")
    (folder,) = run_folders(pytester)
    notes = notes_of(folder)
    assert notes.planned == tuple(case for case in CASES if "s2" in case)
    assert notes.command.endswith("bench -k s2 --device cpu")
    assert notes.left_out == {"slow (-m slow)": 1, "of hub models (--model NAME)": 1}
    assert "--device" in notes.rerun_options
    assert notes.ended


@pytest.mark.usefixtures("goldens")
@pytest.mark.parametrize(("after", "is_comparable"), [(0.0101, True), (0.0125, False)])
def test_a_machine_that_gets_slower_makes_times_incomparable(after, is_comparable, start, pytester, monkeypatch):
    seconds = iter([0.01, after])
    monkeypatch.setattr("bench.plugin.run_info.time_canary", lambda _device: next(seconds))
    result = start("bench", "-k", "s2")
    assert result.ret == pytest.ExitCode.OK
    (folder,) = run_folders(pytester)
    assert notes_of(folder).canary_s == (0.01, after)
    assert (notes_of(folder).not_comparable == ()) == is_comparable
    for text in (result.stdout.str(), (folder / "summary.md").read_text(), (folder / "report.html").read_text()):
        assert ("The times of this run are not comparable: the machine got slower" in text) != is_comparable


@pytest.mark.usefixtures("goldens")
def test_a_run_without_times_has_no_canary(start, pytester, monkeypatch):
    monkeypatch.setattr("bench.plugin.run_info.time_canary", lambda _device: 1 / 0)
    assert start("golden", "-k", "s2").ret == pytest.ExitCode.OK
    (folder,) = run_folders(pytester)
    assert notes_of(folder).canary_s == ()


def test_an_interrupted_run_is_incomplete(start, pytester, goldens):
    (pytester.path / "golden" / "test_interrupted.py").write_text(
        "import pytest\n"
        "def test_picture(case, pictured):\n"
        "    pictured(case)\n"
        "    if 's3' in case.id:\n"
        "        pytest.exit('enough')\n"
    )
    start("golden/test_interrupted.py")
    (folder,) = run_folders(pytester)
    assert notes_of(folder).ended is None
    assert "The run was cut short." in (folder / "summary.md").read_text()


def test_an_unused_golden_is_in_the_report(start, pytester, goldens):
    shutil.copy(next(goldens.rglob("*.png")), goldens / "old.png")
    result = start("golden")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    (folder,) = run_folders(pytester)
    (failure,) = notes_of(folder).other_failures
    assert "old.png" in failure
    assert "old.png" in (folder / "report.html").read_text()
    assert "3 cases passed, but the run is incomplete." in (folder / "summary.md").read_text()


@pytest.mark.usefixtures("goldens")
def test_an_unwritable_report_is_reported_and_keeps_the_verdict(start, pytester, monkeypatch):
    monkeypatch.setattr("bench.plugin.reporter.write_report", full_disk)
    result = start("golden")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["report: not written (No space left on device)."])


def full_disk(folder: Path) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def assert_refused(result: pytest.RunResult, sentence: str, pytester: pytest.Pytester) -> None:
    """Exit code 4 and one sentence; nothing else is printed, run or written."""
    assert result.ret == USAGE_ERROR
    told = [line for line in [*result.outlines, *result.errlines] if line.strip()]
    assert len(told) == 1, told
    assert re.fullmatch(f"ERROR: {sentence}", told[0]), told[0]
    assert not (pytester.path / "results").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["bench", "-n2"], r"benchmarks run one at a time: leave out -n, .*\."),
        (["bench", "--benchmark-cprofile=tottime"], r"--benchmark-cprofile: has no effect on calls .*\."),
        (["bench", "--benchmark-disable-gc"], r"--benchmark-disable-gc: has no effect on calls .*\."),
        (["golden", "--model=nobody"], r"--model nobody: not in \S+suite\.toml; known: far, tiny\."),
        (["golden", "--device=warp"], r"--device warp: torch knows no such device; .*\."),
        (["golden", "--golden-update", "--pictures-only"], r"--golden-update accepts pictures and work together: .*\."),
        (["golden", "--golden-errors"], r"--golden-errors accepts what cases raise: add --golden-update\."),
        (["golden", "--golden-for=torch>1", "--golden-reason=why"], r"--golden-for names .*: add --golden-update\."),
        (["golden", "--golden-update", "--golden-for=torch>1"], r'--golden-for needs --golden-reason "…": .*\.'),
        (["golden", "--golden-update", "--golden-for=torch>1", "--golden-reason= "], r"--golden-for needs .*\."),
        (["golden", "--golden-update", "--golden-reason=why"], r"--golden-reason .*: give --golden-for .*\."),
        ([*ACCEPT, "--golden-for=torch>1", "--golden-level=type"], r"--golden-for .*: leave out --golden-level\."),
        ([*ACCEPT, "--golden-for=torch"], r"--golden-for: 'torch' is not a library with a range of versions, .*\."),
        ([*ACCEPT, "--golden-for=torch<<1"], r"--golden-for: 'torch<<1' is not a requirement \(.*\)\."),
        ([*ACCEPT, "--golden-for=flask>1"], r"--golden-for flask>1: flask is not one of torch, .*\."),
        (
            [*ACCEPT, "--golden-for=torch>1", "--golden-for=torch<1"],
            r"--golden-for torch<1: torch \S+ is installed; accept in an environment with such a release\.",
        ),
        (["bench", "--rounds=1"], r"--rounds 1: at least 2 are needed .*\."),
        (["golden", "--suite=nowhere.toml"], r"\S+nowhere\.toml: cannot be read \(No such file or directory\); .*\."),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_runs(arguments, sentence, start, pytester):
    assert_refused(start(*arguments), sentence, pytester)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
@pytest.mark.parametrize("arguments", [["--device=cuda"], ["--require-device=cuda"]])
def test_a_missing_device_is_refused_and_not_replaced(arguments, start, pytester):
    assert_refused(start("golden", *arguments), rf"{arguments[0].replace('=', ' ')}: .*\.", pytester)


@pytest.mark.parametrize(
    ("mistake", "sentence"),
    [
        (("steps = [2, 3, 4]", "steps = 0"), r"\S+suite\.toml: \[\[cases\]\] number 1: steps: .* not 0\."),
        (
            ('scheduler = "ddim"', 'scheduler = "pndm"'),
            r"\S+suite\.toml: .*'pndm' does not work in a ddpm pipeline.*\.",
        ),
        (("slow = true", "slwo = true"), r"\S+suite\.toml: \[\[cases\]\] number 2: slwo: unknown key; allowed: .*\."),
        (("[[cases]]", "[[cases"), r"\S+suite\.toml: not valid TOML: .*\."),
    ],
)
def test_a_mistake_in_the_suite_file_is_one_sentence(mistake, sentence, start, pytester, suite_text):
    (pytester.path / "suite.toml").write_text(suite_text.replace(*mistake))
    assert_refused(start("golden"), sentence, pytester)


@NOTHING_TIMED
@pytest.mark.parametrize("folder", ["bench", "golden"])
def test_a_selection_of_nothing_is_not_green(folder, start, pytester):
    assert start(folder, "-k", "no-such-case").ret == NOTHING_RUN
    assert not (pytester.path / "results").exists()


@NOTHING_TIMED
def test_collecting_writes_nothing(start, pytester):
    result = start("bench", "golden", "--collect-only", "-q")
    assert result.ret == pytest.ExitCode.OK
    assert [line for line in result.outlines if line.startswith("bench/")] == [
        f"bench/test_cases.py::test_case[{case}]" for case in CASES
    ]
    assert not (pytester.path / "results").exists()


@pytest.mark.usefixtures("goldens")
def test_one_case_can_be_chosen_by_its_id(start, pytester):
    result = start("golden", "-k", "ddpm-s3")
    result.assert_outcomes(passed=1, deselected=3)
    assert [record.case for record in records(pytester)] == [CASES[1]]


def test_slow_cases_run_on_request_only(start, pytester):
    result = start("golden", "-m", "slow")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert [record.case for record in records(pytester)] == [SLOW_CASE]


def test_hub_models_run_only_if_named_and_then_alone(start, pytester, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(pytester.path / "hub"))
    result = start("golden", "--model=far")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert [record.case for record in records(pytester)] == ["far/ddpm-s2-fp32"]
    result.stdout.fnmatch_lines(["far/ddpm-s2-fp32: model 'far': somebody/far at revision main: * not in the cache *"])
    assert "Traceback" not in text_of(result)


@pytest.mark.usefixtures("goldens")
def test_a_case_that_raises_fails_alone(start, pytester, suite_text):
    broken = '[models.broken]\nkind = "ddpm"\nsource = "local"\npath = "nowhere"\n\n[[cases]]\nmodel = "broken"\n'
    case = 'scheduler = "ddpm"\nsteps = 2\nimages = 1\n'
    (pytester.path / "suite.toml").write_text(suite_text + broken + case)
    result = start("bench")
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(
        ["broken/ddpm-s2-fp32: model 'broken': *nowhere is not a pipeline (it has no model_index.json*"]
    )
    result.stdout.fnmatch_lines(["verdicts: 3 identical, 1 raises"])
    assert "Traceback" not in text_of(result)


def test_a_golden_that_no_case_uses_is_named_and_red(start, goldens):
    for suffix in (".png", ".json"):
        shutil.copy(goldens / f"{CASES[0]}{suffix}", goldens / "tiny" / f"lost{suffix}")
    result = start("golden")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(
        ["*no case of *suite.toml uses *golden/tiny/lost.json, *golden/tiny/lost.png: delete them*"]
    )


@pytest.mark.usefixtures("goldens")
def test_goldens_and_results_are_where_the_options_say(start, pytester):
    (pytester.path / "elsewhere").mkdir()
    shutil.move(pytester.path / "golden" / "tiny", pytester.path / "elsewhere")
    result = start("golden", "--golden-dir=elsewhere", "--results=other/results")
    assert result.ret == pytest.ExitCode.OK
    assert len(read_records(pytester.path / "other" / "results" / "latest" / RECORDS)) == 3
    assert not (pytester.path / "results").exists()


@pytest.mark.parametrize("processes", [(), ("-n", "2")])
@pytest.mark.usefixtures("goldens")
def test_a_results_folder_that_cannot_be_written_is_a_usage_error(start, pytester, processes):
    (pytester.path / "file").touch()
    result = start("golden", "--results=file/results", *processes)
    assert result.ret == USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *file/results: cannot create the run's folder here (*--results."])
    assert "INTERNALERROR" not in text_of(result)


@pytest.mark.usefixtures("goldens")
def test_other_tests_are_reported_as_usual(start, pytester):
    (pytester.path / "golden" / "test_other.py").write_text("def test_other():\n    assert 1 == 2\n")
    result = start("golden/test_other.py")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["golden/test_other.py F*", "E *assert 1 == 2"])
    assert "results:" not in text_of(result)


@pytest.mark.usefixtures("goldens")
def test_verbose_output_is_pytests_own(start):
    result = start("golden", "-v")
    result.stdout.fnmatch_lines([f"*test_picture[[]{case}[]] PASSED*" for case in CASES])


def test_only_picture_checks_are_deterministic(start):
    torch.use_deterministic_algorithms(False)
    start("bench", "-k", "ddpm-s2")
    assert not torch.are_deterministic_algorithms_enabled()
    start("golden", "-k", "ddpm-s2")
    assert torch.are_deterministic_algorithms_enabled()


@NOTHING_TIMED
@pytest.mark.parametrize("folder", ["bench", "golden"])
@pytest.mark.parametrize("more", [[], ["-m", "golden"], ["--golden-update"]], ids=["plain", "golden", "update"])
def test_a_model_with_slow_cases_alone_says_how_to_run_them(folder, more, start, pytester, suite_text):
    (pytester.path / "suite.toml").write_text(suite_text + SLOW_MODEL)
    result = start(folder, "--model=late", *more)
    assert result.ret == NOTHING_RUN
    how = '"golden and slow"' if "golden" in more else "slow"
    why = "the only case is left out as slow on this device"
    assert result.outlines.count(f"no case was selected, so nothing was checked: {why}; run with -m {how}.") == 1
    assert "INTERNALERROR" not in text_of(result)
    assert not (pytester.path / "results").exists()


def test_slow_cases_alone_are_not_calibrated(start, pytester, suite_text):
    (pytester.path / "suite.toml").write_text(suite_text + SLOW_MODEL)
    result = start("golden", "-m", "golden", "--golden-calibrate", "--model=late")
    assert result.ret == NOTHING_RUN
    result.stdout.fnmatch_lines(['no case was selected, so nothing was calibrated: *run with -m "golden and slow".'])


@pytest.mark.parametrize("more", [["--model=late"], ["-k", "not tiny"], ["-k", "no-such-case"]])
def test_an_upgrade_check_without_a_case_compares_no_import(more, start, pytester, suite_text):
    (pytester.path / "suite.toml").write_text(suite_text + SLOW_MODEL)
    shutil.copy(PROJECT / "bench" / "test_upgrade.py", pytester.path / "bench")
    result = start("bench/test_upgrade.py", "--candidate=current", *more)
    assert result.ret == NOTHING_RUN
    result.stdout.fnmatch_lines(["no case was selected, so nothing was compared: *."])


@NOTHING_TIMED
@pytest.mark.parametrize(
    "arguments",
    [
        ["golden", "-m", "golden", "-k", "not tiny"],
        ["golden", "-k", "no-such-case"],
        ["golden", "-m", "golden and slow", "-k", "s3"],
        ["bench", "-k", "not tiny"],
        ["bench", "-m", "golden"],
        ["bench", "-m", "not bench"],
    ],
    ids=" ".join,
)
def test_unused_goldens_are_not_looked_for_without_a_case(arguments, start, goldens):
    result = start(*arguments)
    assert result.ret == NOTHING_RUN
    result.stdout.fnmatch_lines(["no case was selected, so nothing was checked: correct -k, -m, --model or the path."])


@pytest.mark.usefixtures("goldens")
@pytest.mark.parametrize("how", [["-k", "every_golden"], ["::test_every_golden_is_used"]], ids=["expression", "path"])
def test_unused_goldens_are_looked_for_where_that_test_is_named(how, start):
    file = "golden/test_goldens.py"
    result = start(*([file, *how] if len(how) == 2 else [file + how[0]]))
    assert result.ret == pytest.ExitCode.OK
    assert result.parseoutcomes()["passed"] == 1


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ([], ["test_plain"]),
        (["-m", "slow"], ["test_slow"]),
        (["-m", "harness"], ["test_harness"]),
        (["-m", "slow or harness"], ["test_slow", "test_harness"]),
    ],
)
def test_slow_cases_and_the_harness_are_separate_requests(asked, names, start, pytester):
    marked = "".join(f"@pytest.mark.{mark}\ndef test_{mark}(): pass\n" for mark in ("slow", "harness"))
    (pytester.path / "golden" / "test_marked.py").write_text(f"import pytest\ndef test_plain(): pass\n{marked}")
    result = start("golden/test_marked.py", "--collect-only", "-q", *asked)
    assert [line.partition("::")[2] for line in result.outlines if "::" in line] == names


@pytest.mark.parametrize("name", ["test_overhead", "test_report"])
def test_benchmarks_of_the_harness_are_not_slow_cases(name):
    text = (PROJECT / "bench" / f"{name}.py").read_text()
    assert "@pytest.mark.harness" in text
    assert "mark.slow" not in text


@pytest.mark.usefixtures("start")
@pytest.mark.parametrize(
    ("path", "spellings"), [(["golden"], " = ="), (["-c", "tox.ini"], "= = ")], ids=["path", "settings"]
)
def test_a_folder_outside_is_the_value_of_an_option(path, spellings, pytester, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (outside / "conftest.py").write_text("raise RuntimeError('no conftest of this project')\n")
    shutil.copy(pytester.path / "suite.toml", outside)
    values = dict.fromkeys(("--results", "--golden-dir", "--environments"), outside)
    values["--suite"] = outside / "suite.toml"
    pairs = zip(values.items(), spellings, strict=True)
    options = " ".join(f"{name}{spelling}{value}" for (name, value), spelling in pairs).split()
    command = [Path(sys.executable).with_name("pytest"), *path, "-m", "golden", "--co", "-q", "--device=cpu", *options]
    ended = subprocess.run(command, cwd=pytester.path, capture_output=True, text=True, check=False)
    assert ended.returncode == pytest.ExitCode.OK, ended.stdout + ended.stderr
    for case in CASES:
        assert f"golden/test_goldens.py::test_picture[{case}]" in ended.stdout
