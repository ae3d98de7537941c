"""``--resume`` of bench and golden runs: what has ended is not run again, and counts."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.record.folder import ENVIRONMENTS, RECORDS
from bench.record.record import read_records
from bench.record.run_info import FILE, read_run_info
from bench.run import Run
from tests.plugin.tiny_suite import CASES, run_folders, text_of
from tests.project import PROJECT

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.usefixtures("one_thread", "quick_collections", "as_found")


@pytest.fixture
def ran(monkeypatch):
    """The ids of the cases that were really run."""
    log = []
    for name in ("picture", "benchmark"):
        really = getattr(Run, name)

        def noting(run, case, *others, really=really):
            log.append(case.id)
            return really(run, case, *others)

        monkeypatch.setattr(Run, name, noting)
    return log


def info_of(folder):
    info = read_run_info(folder)
    assert info
    return info


def latest(pytester) -> Path:
    return (pytester.path / "results" / "latest").resolve()


def cut_short(folder, count):
    """Leaves a run as it is when its process is killed: some records, part of another, and no end."""
    lines = (folder / RECORDS).read_bytes().splitlines(keepends=True)
    (folder / RECORDS).write_bytes(b"".join(lines[:count]) + lines[count][:40])
    info = json.loads((folder / FILE).read_text())
    (folder / FILE).write_text(json.dumps(info | {"ended": None}))
    for name in ("report.html", "summary.md", "benchmark.json"):
        (folder / name).unlink(missing_ok=True)


@pytest.mark.usefixtures("goldens")
@pytest.mark.parametrize("checks", ["golden", "bench"])
def test_cases_that_have_ended_are_not_run_again_and_count(checks, start, pytester, ran):
    assert start(checks).ret == pytest.ExitCode.OK
    folder = latest(pytester)
    before = read_records(folder / RECORDS)
    cut_short(folder, 2)
    ran.clear()
    result = start(checks, "--resume", "--junitxml=junit.xml")
    assert result.ret == pytest.ExitCode.OK
    assert ran == CASES[2:]
    result.stdout.fnmatch_lines(
        [
            "continuing *: 2 cases are done",
            *(f"[[]{number}/3[]] {case} *identical*" for number, case in enumerate(CASES, 1)),
            "verdicts: 3 identical",
        ]
    )
    assert run_folders(pytester) == [folder]
    assert [record.case for record in read_records(folder / RECORDS)] == CASES
    assert read_records(folder / RECORDS)[:2] == before[:2]
    assert info_of(folder).ended
    assert "All 3 cases" in (folder / "summary.md").read_text()
    properties = [entry for entry in ElementTree.parse("junit.xml").iter("property") if entry.get("name") == "verdict"]
    assert len(properties) == 3
    if checks == "bench":
        document = json.loads((folder / "benchmark.json").read_text())
        medians = {entry["extra_info"]["case"]: entry["stats"]["median"] for entry in document["benchmarks"]}
        assert medians == {record.case: record.median_s for record in read_records(folder / RECORDS)}


def test_a_kept_failure_fails_the_resumed_run(start, pytester, goldens, alter_golden, ran):
    alter_golden(goldens / f"{CASES[0]}.png")
    assert start("golden").ret == pytest.ExitCode.TESTS_FAILED
    cut_short(latest(pytester), 1)
    ran.clear()
    result = start("golden", "--resume")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert ran == CASES[1:]
    result.stdout.fnmatch_lines([f"{CASES[0]}: changed: *", "verdicts: 2 identical, 1 changed"])


@pytest.mark.usefixtures("goldens")
def test_a_case_that_was_interrupted_runs_again(start, pytester, ran, monkeypatch):
    really = Run._check

    def interrupted(run, case, *others):
        if case.id == CASES[1]:
            pytest.exit("enough")
        return really(run, case, *others)

    with monkeypatch.context() as patched:
        patched.setattr(Run, "_check", interrupted)
        assert start("golden").ret == pytest.ExitCode.INTERRUPTED
    ran.clear()
    result = start("golden", "--resume")
    assert result.ret == pytest.ExitCode.OK
    assert ran == CASES[1:]
    result.stdout.fnmatch_lines(["verdicts: 3 identical"])


@pytest.mark.usefixtures("goldens")
def test_a_benchmark_that_raised_fails_again_without_being_run(start, pytester, suite_text, ran):
    broken = '[models.broken]\nkind = "ddpm"\nsource = "local"\npath = "nowhere"\n\n[[cases]]\nmodel = "broken"\n'
    (pytester.path / "suite.toml").write_text(suite_text + broken + 'scheduler = "ddpm"\nsteps = 2\nimages = 1\n')
    assert start("bench").ret == pytest.ExitCode.TESTS_FAILED
    ran.clear()
    result = start("bench", "--resume")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert ran == []
    result.stdout.fnmatch_lines(["broken/ddpm-s2-fp32: raises: PipelineError: *", "verdicts: 3 identical, 1 raises"])


@pytest.mark.usefixtures("goldens")
@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["bench"], "checks was golden and is bench"),
        (["golden", "--pictures-only"], "pictures only was False and is True"),
        (["golden", "-k", "s2"], f"the cases are now without {CASES[1]}, {CASES[2]}"),
        (["golden", "-n2", "-k", "s2"], f"the cases are now without {CASES[1]}, {CASES[2]}"),
        (["golden", "--shard=1/2"], "the shard was None and is 1/2"),
        (["golden", "--golden-update"], "golden update was None and is auto"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_another_run_is_refused_in_one_sentence(arguments, why, start, pytester):
    assert start("golden").ret == pytest.ExitCode.OK
    info_path = latest(pytester) / FILE
    info_path.write_text(json.dumps(json.loads(info_path.read_text()) | {"ended": "2000-01-01"}))
    before = {path: path.read_bytes() for path in latest(pytester).rglob("*") if path.is_file()}
    result = start(*arguments, "--resume")
    assert result.ret == pytest.ExitCode.USAGE_ERROR, text_of(result)
    refused = f"ERROR: --resume: *results/* is another run ({why}); give the same options, or leave out --resume."
    result.stderr.fnmatch_lines([refused])
    assert "Traceback" not in text_of(result)
    assert {path: path.read_bytes() for path in latest(pytester).rglob("*") if path.is_file()} == before


@pytest.mark.usefixtures("goldens")
def test_another_suite_or_environment_is_refused(start, pytester, suite_text):
    start("golden")
    (pytester.path / "suite.toml").write_text(suite_text.replace("steps = [2, 3, 4]", "steps = [2, 3, 4]\nseed = 1"))
    start("golden", "--resume").stderr.fnmatch_lines(["ERROR: --resume: * is another run (the suite was * and is *"])
    (pytester.path / "suite.toml").write_text(suite_text)
    path = latest(pytester) / ENVIRONMENTS
    known = json.loads(path.read_text())
    for environment in known.values():
        environment["libraries"]["torch"] = "1.0"
        environment["platform"] = "another kernel"
    path.write_text(json.dumps(known))
    result = start("golden", "--resume")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: --resume: * is another run (torch was 1.0 and is *); give the same options, *"]
    )


@pytest.mark.usefixtures("goldens")
def test_another_kernel_of_the_same_kind_of_machine_is_accepted(start, pytester):
    start("golden")
    path = latest(pytester) / ENVIRONMENTS
    path.write_text(path.read_text().replace('"platform": "', '"platform": "older '))
    assert start("golden", "--resume").ret == pytest.ExitCode.OK


@pytest.mark.usefixtures("goldens")
def test_a_shard_continues_as_the_same_shard_alone(start, pytester, ran):
    start("golden", "--shard=1/2")
    cut_short(latest(pytester), 1)
    refused = start("golden", "--shard=2/2", "--resume")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(["* is another run (the shard was 1/2 and is 2/2); *"])
    ran.clear()
    assert start("golden", "--shard=1/2", "--resume").ret == pytest.ExitCode.OK
    assert ran == CASES[1:2]


def test_an_upgrade_check_continues_as_the_same_shard_alone(start, pytester):
    shutil.copy(PROJECT / "bench" / "test_upgrade.py", pytester.path / "bench")
    check = ["bench/test_upgrade.py", "--candidate=current"]
    assert start(*check, "--shard=4/4").ret == pytest.ExitCode.OK
    result = start(*check, "--resume")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["* is another run (the shard was 4/4 and is None); *"])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "--resume: *nowhere/run.json is missing; give the folder of a run, or leave out --resume."),
        ("{", "--resume: *nowhere/run.json is damaged (*); start the run again."),
    ],
)
def test_without_a_run_to_continue_nothing_is_run(content, sentence, start, pytester):
    if content:
        (pytester.path / "nowhere").mkdir()
        (pytester.path / "nowhere" / FILE).write_text(content)
    result = start("golden", "--resume=nowhere")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {sentence}"])


@pytest.mark.usefixtures("goldens")
def test_bench_and_golden_together_are_not_continued(start, pytester):
    start("bench", "golden")
    result = start("bench", "golden", "--resume")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --resume: several tests run tiny/ddpm-s2-fp32; *"])


@pytest.mark.usefixtures("goldens")
def test_parallel_picture_checks_continue(start, pytester):
    assert start("golden", "-n2").ret == pytest.ExitCode.OK
    cut_short(latest(pytester), 1)
    done = [record.case for record in read_records(latest(pytester) / RECORDS)]
    result = start("golden", "-n2", "--resume")
    assert result.ret == pytest.ExitCode.OK, text_of(result)
    result.stdout.fnmatch_lines(["verdicts: 3 identical"])
    records = read_records(latest(pytester) / RECORDS)
    assert records[0].case == done[0]
    assert sorted(record.case for record in records) == CASES


KILLED = """
import os, signal
import bench.run

really = bench.run.Run._check

def killed(run, case, *others):
    if case.id == "{case}" and not os.path.exists("killed"):
        open("killed", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return really(run, case, *others)

bench.run.Run._check = killed
"""


@pytest.mark.usefixtures("goldens")
@pytest.mark.parametrize("checks", ["golden", "bench"])
def test_a_killed_run_continues(checks, start, pytester):
    """``start`` has filled the folder; these runs are processes that are really killed."""
    assert start
    pytester.makepyfile(killer=KILLED.format(case=CASES[1]))
    pytest_ = Path(sys.executable).with_name("pytest")
    command = [pytest_, checks, "-p", "killer", "--suite=suite.toml", "--device=cpu", "--rounds=2"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(pytester.path), str(PROJECT)])}

    def run(*more):
        words = [*command, *more]
        return subprocess.run(words, cwd=pytester.path, env=environment, capture_output=True, text=True, check=False)

    assert run().returncode == -signal.SIGKILL
    folder = latest(pytester)
    assert [record.case for record in read_records(folder / RECORDS)] == CASES[:1]
    (first,) = read_records(folder / RECORDS)
    assert info_of(folder).ended is None
    ended = run("--resume")
    assert ended.returncode == pytest.ExitCode.OK, ended.stdout + ended.stderr
    assert f"continuing {folder}: 1 cases are done" in ended.stdout
    assert "verdicts: 3 identical" in ended.stdout
    assert read_records(folder / RECORDS)[0] == first
    assert [record.case for record in read_records(folder / RECORDS)] == CASES
    assert info_of(folder).ended
