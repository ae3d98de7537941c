"""``--shard``: parts of a run, whose cases are those of the complete run."""

from __future__ import annotations

import shutil

import pytest

from bench.plugin.options import parse_shard
from bench.record.folder import RECORDS
from bench.record.record import read_records
from bench.record.run_info import read_run_info
from bench.report import __main__ as report
from tests.plugin.tiny_suite import CASES, run_folders, text_of
from tests.project import PROJECT

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.usefixtures("one_thread", "quick_collections", "as_found")

NOTHING_TIMED = pytest.mark.filterwarnings("ignore:Not saving anything, no benchmarks have been run")


def collected(result, name="test_picture"):
    return [line.partition(f"{name}[")[2].rstrip("]") for line in result.outlines if f"{name}[" in line]


def records_of(folder):
    return read_records(folder / RECORDS)


def info_of(folder):
    info = read_run_info(folder)
    assert info
    return info


@pytest.mark.parametrize("shard", [["--shard=1/2"], ["--shard", "1/2"]])
def test_both_spellings_give_the_same_shard(shard, start):
    assert collected(start("golden", "--co", "-q", *shard)) == CASES[:2]


@pytest.mark.usefixtures("goldens")
def test_shards_run_each_case_once_and_say_what_they_are(start, pytester):
    for index in (1, 2):
        result = start("golden", f"--shard={index}/2")
        assert result.ret == pytest.ExitCode.OK
        result.stdout.fnmatch_lines([f"shard {index}/2: {3 - index} of 3 cases, split by settings ????????"])
    first, second = (info_of(folder) for folder in sorted(run_folders(pytester), key=lambda one: info_of(one).command))
    assert (first.planned, second.planned) == (tuple(CASES[:2]), tuple(CASES[2:]))
    assert first.shard.chosen == second.shard.chosen == tuple(CASES)
    assert (first.shard.index, second.shard.index, first.shard.count) == (1, 2, 2)
    assert first.shard.basis == second.shard.basis
    assert (first.suite, first.environment, first.options) == (second.suite, second.environment, second.options)


@pytest.mark.usefixtures("goldens")
def test_merged_shards_are_the_complete_run(start, pytester, monkeypatch, capsys):
    monkeypatch.chdir(pytester.path)
    start("golden")
    complete = records_of(pytester.path / "results" / "latest")
    for index in (1, 2, 4):
        start("golden", f"--shard={index}/4", f"--results=shard-{index}")
    shards = [str((pytester.path / f"shard-{index}" / "latest").resolve()) for index in (1, 2, 4)]
    capsys.readouterr()
    assert report.main(shards) == 1
    said = capsys.readouterr().out
    assert "Missing: shard 3/4." in said
    assert f"1 of 3 selected cases did not run: {CASES[2]}." in said
    start("golden", "--shard=3/4", "--results=shard-3")
    assert report.main([*shards, str((pytester.path / "shard-3" / "latest").resolve())]) == 0
    merged = records_of(pytester.path / "results" / "latest")
    assert [(one.case, one.verdict, one.pixels) for one in merged] == [
        (one.case, one.verdict, one.pixels) for one in complete
    ]


def test_checks_of_no_case_belong_to_the_first_shard(start):
    collected_in = ["test_every_golden" in text_of(start("golden", "--co", "-q", f"--shard={i}/2")) for i in (1, 2)]
    assert collected_in == [True, False]


@NOTHING_TIMED
@pytest.mark.usefixtures("goldens")
@pytest.mark.parametrize("arguments", [["golden"], ["bench"], ["golden", "-n", "2"]], ids=" ".join)
def test_a_shard_without_a_case_is_green_and_says_so(arguments, start, pytester):
    result = start(*arguments, "--shard=4/4")
    assert result.ret == pytest.ExitCode.OK, text_of(result)
    result.stdout.fnmatch_lines(["shard 4/4: none of 3 cases, split by settings ????????: nothing to do here"])
    assert "no case was selected" not in text_of(result)
    (folder,) = run_folders(pytester)
    info = info_of(folder)
    assert (info.planned, info.shard.chosen) == ((), tuple(CASES))
    assert info.ended
    assert "Shard 4/4 has none of the 3 cases" in (folder / "summary.md").read_text()


@NOTHING_TIMED
@pytest.mark.parametrize("folder", ["bench", "golden"])
def test_a_shard_of_no_case_at_all_is_not_green(folder, start, pytester):
    result = start(folder, "-k", "no-such-case", "--shard=2/2")
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    result.stdout.fnmatch_lines(["no case was selected, so nothing was checked: *"])
    assert not (pytester.path / "results").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--shard=0/5"], "--shard 0/5: shards count from 1/5 to 5/5."),
        (["--shard", "6/5"], "--shard 6/5: shards count from 1/5 to 5/5."),
        (["--shard=0/0"], "--shard 0/0: there is at least one shard, 1/1."),
        (["--shard=a/b"], "--shard a/b: give the number of this shard and how many there are, such as 2/5."),
        (["--shard=-1/5"], "--shard -1/5: give the number of this shard *"),
        (["--shard-durations=run"], "--shard-durations says how long cases take: give --shard too, such as 1/5."),
        (["--shard=1/2", "--shard-durations=run"], "--shard-durations: *run/records.jsonl cannot be read (No such *)."),
        (["--shard=1/2", "--golden-calibrate", "-mgolden"], "--golden-calibrate only measures limits: *--shard."),
        (["--shard=1/2", "bench"], "--shard: several tests run tiny/ddpm-s2-fp32; run bench and golden *"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_4(arguments, sentence, start, pytester):
    result = start("golden", *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {sentence}"])
    assert "Traceback" not in text_of(result)
    assert not (pytester.path / "results").exists()


def test_only_a_whole_number_of_shards_is_a_shard():
    assert parse_shard("2/5") == (2, 5)
    for text in ("2", "2/", "/5", "2/5/7", " 2/5", "2.0/5", ""):
        with pytest.raises(ValueError, match="such as 2/5"):
            parse_shard(text)


@pytest.mark.usefixtures("goldens")
def test_durations_are_those_of_a_given_run_and_no_other(start, pytester):
    assert start("golden").ret == pytest.ExitCode.OK
    records = read_records(pytester.path / "results" / "latest" / RECORDS)
    assert all(record.seconds and 0 < record.seconds < 60 for record in records)
    lines = [
        record.model_copy(update={"seconds": 9.0 if record.case == CASES[0] else 0.5}).to_line() for record in records
    ]
    (pytester.path / "results" / "latest" / RECORDS).write_text("".join(lines))
    assert collected(start("golden", "--co", "-q", "--shard=1/2")) == CASES[:2]
    given = start("golden", "--co", "-q", "--shard=1/2", "--shard-durations", "results/latest")
    assert collected(given) == CASES[:1]
    start("golden", "--shard=2/2", "--shard-durations=results/latest")
    assert info_of((pytester.path / "results" / "latest").resolve()).shard.basis.startswith("durations ")


def test_durations_of_other_cases_are_refused(start, pytester):
    (pytester.path / "other").mkdir()
    (pytester.path / "other" / RECORDS).write_text("")
    result = start("golden", "--shard=1/2", "--shard-durations=other")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --shard-durations: *other has a duration of none of the 3 chosen cases; *"])


def test_shards_of_an_upgrade_check_keep_the_tests_of_a_case_together(start, pytester):
    shutil.copy(PROJECT / "bench" / "test_upgrade.py", pytester.path / "bench")
    check = ["bench/test_upgrade.py", "--candidate=current", "--co", "-q"]
    first, second, empty = (start(*check, f"--shard={index}") for index in ("1/2", "2/2", "4/4"))
    for name in ("test_upgrade", "test_speed"):
        assert (collected(first, name), collected(second, name)) == (CASES[:2], CASES[2:])
    assert all("test_components" in text_of(one) and "test_import" in text_of(one) for one in (first, second))
    assert "test_import" not in text_of(empty)
    ended = start(*check[:2], "--shard=4/4")
    assert ended.ret == pytest.ExitCode.OK
    ended.stdout.fnmatch_lines(["shard 4/4: none of 3 cases, *: nothing to do here", "results: *", "report: *"])


def test_the_suite_is_the_same_wherever_its_checkpoints_are(start, pytester, suite_text, tiny_ddpm_folder):
    hashes = []
    for number, text in enumerate(
        [
            suite_text,
            suite_text.replace(str(tiny_ddpm_folder), "nowhere"),
            suite_text.replace("images = 2", "images = 3"),
        ]
    ):
        (pytester.path / "suite.toml").write_text(text)
        start("golden", "--shard=4/4", f"--results=results{number}")
        hashes.append(info_of((pytester.path / f"results{number}" / "latest").resolve()).suite)
    assert hashes[0] == hashes[1] != hashes[2]
