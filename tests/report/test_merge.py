"""Shards become one run, or a failure that says why they are not one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bench.record.folder import ENVIRONMENTS, RECORDS, picture_path
from bench.record.record import read_records
from bench.record.run_info import FILE, Shard, read_run_info, write_run_info
from bench.report import __main__ as command
from bench.upgrade.outcome import UPGRADE, read_upgrade, write_upgrade
from tests.report.made_up_run import make_run
from tests.upgrade import made_up

CASES = 6


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """A run whose cases all pass."""
    return make_run(tmp_path_factory.mktemp("runs") / "complete", CASES, changed_every=0)


def info_of(folder):
    info = read_run_info(folder)
    assert info
    return info


def shard_of(folder):
    shard = info_of(folder).shard
    assert shard
    return shard


def records_of(folder):
    return read_records(folder / RECORDS)


def change(folder, **update):
    info = info_of(folder)
    write_run_info(folder, info.model_copy(update=update))


def change_shard(folder, **update):
    change(folder, shard=shard_of(folder).model_copy(update=update))


@pytest.fixture
def shards(complete, tmp_path, monkeypatch):
    """Three shards of that run, the last one without a case."""
    monkeypatch.chdir(tmp_path)
    lines = (complete / RECORDS).read_text().splitlines(keepends=True)
    chosen = tuple(record.case for record in records_of(complete))
    folders = []
    for index, part in enumerate((slice(0, 4), slice(4, 6), slice(6, 6)), start=1):
        folder = Path(shutil.copytree(complete, tmp_path / f"shard-{index}"))
        (folder / RECORDS).write_text("".join(lines[part]))
        for case in set(chosen) - set(chosen[part]):
            picture_path(folder, case).unlink()
        environments = json.loads((folder / ENVIRONMENTS).read_text())
        environments["sample"]["platform"] = f"kernel {index}"
        (folder / ENVIRONMENTS).write_text(json.dumps(environments))
        change(
            folder,
            planned=chosen[part],
            environment="sample",
            suite="5117e",
            options={"checks": "golden"},
            left_out={"slow": 1},
            shard=Shard(index=index, count=3, chosen=chosen, basis="settings 12ab"),
        )
        folders.append(folder)
    return folders


@pytest.fixture
def merge(capsys, tmp_path):
    """``merge(*folders)`` is the exit code, what was printed, and the folder of the merged run."""

    def merge(*folders, more=()):
        code = command.main([*map(str, folders), *more])
        latest = tmp_path / "results" / "latest"
        return code, capsys.readouterr(), latest.resolve() if latest.exists() else None

    return merge


def test_merged_shards_are_the_complete_run(shards, merge, complete):
    code, said, folder = merge(*reversed(shards))
    assert code == 0
    assert records_of(folder) == records_of(complete)
    assert sorted(path.name for path in folder.rglob("*.png")) == sorted(path.name for path in complete.rglob("*.png"))
    info = info_of(folder)
    assert (info.planned, info.shard, info.other_failures) == (info_of(complete).planned, None, ())
    assert (info.ended, info.left_out, info.suite) == ("2000-01-02", {"slow": 1}, "5117e")
    assert said.out.splitlines() == [
        "shard 1/3 (shard-1): 4 of 6 cases",
        "shard 2/3 (shard-2): 2 of 6 cases",
        "shard 3/3 (shard-3): 0 of 6 cases",
        "All 6 cases look exactly like their goldens.",
        f"results: {Path('results') / folder.name}",
        f"report: {Path('results') / folder.name / 'report.html'} (0.3 MB)",
    ]
    assert "All 6 cases" in (folder / "summary.md").read_text()
    assert (folder / "report.html").is_file()


def test_the_summary_of_a_ci_job_gets_the_merged_run(shards, merge, tmp_path, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "step.md"))
    merge(*shards)
    assert "All 6 cases" in (tmp_path / "step.md").read_text()


def test_the_page_and_the_run_are_where_the_options_say(shards, merge, tmp_path):
    code, said, _ = merge(*shards, more=["-o", "page.html", "--results", "merged"])
    assert code == 0
    assert (tmp_path / "page.html").is_file()
    assert len(records_of((tmp_path / "merged" / "latest").resolve())) == 6
    assert said.out.splitlines()[-1].startswith("report: page.html (")


def test_benchmarks_are_merged(shards, merge):
    for number, folder in enumerate(shards[:2]):
        (folder / "benchmark.json").write_text(json.dumps({"version": "5", "benchmarks": [{"name": number}]}))
    _, _, folder = merge(*shards)
    assert json.loads((folder / "benchmark.json").read_text())["benchmarks"] == [{"name": 0}, {"name": 1}]


def swap_index(shards):
    change_shard(shards[2], index=2)


def lose_a_case(shards):
    lines = (shards[0] / RECORDS).read_text().splitlines(keepends=True)
    (shards[0] / RECORDS).write_text("".join(lines[1:]))


def repeat_a_case(shards):
    first = (shards[0] / RECORDS).read_text().splitlines(keepends=True)[0]
    with (shards[1] / RECORDS).open("a") as file:
        file.write(first)


def add_a_strange_case(shards):
    line = (shards[0] / RECORDS).read_text().splitlines()[0].replace('"case":"emoji-sd/', '"case":"emoji-sd/x-', 1)
    with (shards[1] / RECORDS).open("a") as file:
        file.write(line + "\n")


def other_library(shards):
    path = shards[2] / ENVIRONMENTS
    path.write_text(path.read_text().replace('"diffusers": "0.0"', '"diffusers": "0.1"'))


def other_choice(shards):
    change_shard(shards[1], chosen=shard_of(shards[1]).chosen[1:])


def other_weights(shards):
    for folder, weights in zip(shards, "ab", strict=False):
        lines = [record.model_copy(update={"weights": weights * 64}).to_line() for record in records_of(folder)]
        (folder / RECORDS).write_text("".join(lines))


def failed_golden_check(shards):
    change(shards[0], other_failures=("test_goldens.py::test_every_golden_is_used: old.png",))


BREAKS = {
    "a shard twice": (swap_index, ["Missing: shard 3/3.", "Shard 2/3 was given 2 times: shard-2, shard-3."]),
    "a case too few": (lose_a_case, ["1 of 6 selected cases did not run: emoji-sd/pndm-s5-g7.5-float32."]),
    "a case twice": (
        repeat_a_case,
        [
            "1 of 6 cases ran in several shards: emoji-sd/pndm-s5-g7.5-float32 (in shard 1/3 (shard-1) and shard 2/3 "
            "(shard-2))."
        ],
    ),
    "a strange case": (add_a_strange_case, ["1 cases ran without being chosen: emoji-sd/x-pndm-s5-g7.5-float32."]),
    "environment": (other_library, ["shard 3/3 (shard-3) is of another run: diffusers was 0.0 and is 0.1."]),
    "suite": (
        lambda shards: change(shards[1], suite="0ther"),
        ["shard 2/3 (shard-2) is of another run: the suite was 5117e and is 0ther."],
    ),
    "options": (
        lambda shards: change(shards[1], options={"checks": "bench"}),
        ["shard 2/3 (shard-2) is of another run: checks was golden and is bench."],
    ),
    "selection": (
        other_choice,
        [
            "shard 2/3 (shard-2) is of another run: other cases were chosen for it (emoji-sd/pndm-s5-g7.5-float32).",
        ],
    ),
    "split": (
        lambda shards: change_shard(shards[1], basis="durations 34cd"),
        ["shard 2/3 (shard-2) is of another run: the split was by settings 12ab and is by durations 34cd."],
    ),
    "count": (
        lambda shards: change_shard(shards[1], count=4),
        [
            "shard 2/4 (shard-2) is of another run: it is one of 4 shards, shard 1/3 (shard-1) is one of 3.",
            "Missing: shard 4/4.",
        ],
    ),
    "weights": (
        other_weights,
        ["The weights of emoji-sd differ: aaaaaaaaaaaa in shard 1/3 (shard-1), bbbbbbbbbbbb in shard 2/3 (shard-2)."],
    ),
    "cut short": (lambda shards: change(shards[1], ended=None), ["shard 2/3 (shard-2) was cut short."]),
    "another check": (
        failed_golden_check,
        ["shard 1/3 (shard-1): test_goldens.py::test_every_golden_is_used: old.png"],
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_what_is_wrong_fails_the_merged_run_and_is_named(name, shards, merge):
    break_, sentences = BREAKS[name]
    break_(shards)
    code, said, folder = merge(*shards)
    assert code == 1
    assert [line for line in said.out.splitlines() if line in sentences] == sentences
    assert "incomplete" in (folder / "summary.md").read_text() or name == "a strange case"
    for sentence in sentences:
        assert sentence in said.out.splitlines()
    assert info_of(folder).problems(record.case for record in records_of(folder))


def test_a_missing_shard_fails_and_its_cases_are_named(shards, merge):
    code, said, _ = merge(shards[0], shards[2])
    assert code == 1
    assert "Missing: shard 2/3." in said.out
    assert "2 of 6 selected cases did not run: emoji-sd/unipc-s5-g7.5-float32, " in said.out


def test_a_case_that_failed_in_its_shard_fails_the_merged_run(shards, merge):
    records = records_of(shards[0])
    broken = records[0].model_copy(update={"verdict": "changed"})
    (shards[0] / RECORDS).write_text("".join(one.to_line() for one in (broken, *records[1:])))
    code, said, _ = merge(*shards)
    assert code == 1
    assert "1 of 6 cases failed: 1 changed." in said.out


def test_a_record_and_its_repetition_in_a_continued_shard_are_one_case(shards, merge):
    lines = (shards[0] / RECORDS).read_text()
    (shards[0] / RECORDS).write_text(lines.splitlines(keepends=True)[0] + lines)
    code, _, folder = merge(*shards)
    assert code == 0
    assert len(records_of(folder)) == 6


@pytest.mark.parametrize(
    ("others", "sentence"),
    [
        (["complete"], "shard-1 is a shard and complete is not: give the shards of one run, or complete runs."),
        (["nowhere"], "nowhere: no such folder; give the folders of runs or shards."),
    ],
)
@pytest.mark.usefixtures("shards")
def test_shards_and_other_folders_do_not_mix(others, sentence, merge, complete, tmp_path):
    shutil.copytree(complete, tmp_path / "complete")
    code, said, folder = merge("shard-1", *others)
    assert (code, folder) == (4, None)
    assert said.err == f"python -m bench.report: {sentence}\n"


def test_several_runs_without_shards_still_need_a_path(merge, complete):
    code, said, _ = merge(complete, complete)
    assert code == 4
    assert said.err == "python -m bench.report: several runs need a path for their page: -o report.html\n"


# Upgrade checks


@pytest.fixture
def checks(shards):
    """Shards of an upgrade check; the last one has no case."""
    chosen = ("m/ddim-s5", "m/ddim-s6", "m/pndm-s7")
    found = [
        made_up.check([made_up.case(chosen[0]), made_up.case(chosen[1], "changed", "changed: SSIM 0.5")]),
        made_up.check([made_up.case(chosen[2], "changed", "changed: SSIM 0.6")]),
    ]
    for folder in shards:
        (folder / RECORDS).unlink()
        shutil.rmtree(folder / "grids")
        change_shard(folder, chosen=chosen)
        change(folder, planned=(), options={"checks": "upgrade"})
    for folder, one in zip(shards, found, strict=False):
        change(folder, planned=tuple(case.case for case in one.cases))
        write_upgrade(folder / UPGRADE, one)
    return shards


def test_upgrade_checks_are_merged_and_grouped_together(checks, merge):
    code, said, folder = merge(*checks)
    assert code == 1
    found = read_upgrade(folder / UPGRADE)
    assert [case.case for case in found.cases] == ["m/ddim-s5", "m/ddim-s6", "m/pndm-s7"]
    assert [group.cases for group in found.groups] == [("m/ddim-s6", "m/pndm-s7")]
    assert "Worse in 2 of 3 cases: 2 changed." in said.out
    assert "shard 3/3 (shard-3): 0 of 3 cases" in said.out


def test_upgrade_checks_without_a_change_pass(checks, merge):
    for folder in checks[:2]:
        found = read_upgrade(folder / UPGRADE)
        same = tuple(made_up.case(case.case) for case in found.cases)
        write_upgrade(folder / UPGRADE, found.model_copy(update={"cases": same, "groups": ()}))
    code, said, _ = merge(*checks)
    assert code == 0
    assert "Nothing is worse in 3 cases." in said.out


def test_a_speed_that_had_to_be_decided_fails_the_merged_check(checks, merge):
    for folder in checks:
        change(folder, options={"checks": "upgrade", "must_decide": True})
    undecided = made_up.case("m/pndm-s7", speed=made_up.figure("cannot tell"))
    same = [made_up.case("m/ddim-s5"), made_up.case("m/ddim-s6")]
    write_upgrade(checks[0] / UPGRADE, made_up.check(same))
    write_upgrade(checks[1] / UPGRADE, made_up.check([undecided]))
    code, said, _ = merge(*checks)
    assert code == 1
    assert "m/pndm-s7: speed: cannot tell within --budget (--must-decide)." in said.out


def test_checks_of_other_sides_are_not_merged_silently(checks, merge):
    path = checks[1] / UPGRADE
    other = read_upgrade(path).baseline.model_copy(update={"libraries": {"torch": "2.9"}})
    write_upgrade(path, read_upgrade(path).model_copy(update={"baseline": other}))
    code, said, _ = merge(*checks)
    assert code == 1
    assert "shard 2/3 (shard-2) is of another run: torch of the baseline was None and is 2.9." in said.out


def test_a_case_that_an_upgrade_shard_did_not_compare_is_missing(checks, merge):
    (checks[1] / UPGRADE).unlink()
    code, said, _ = merge(*checks)
    assert code == 1
    assert "1 of 3 selected cases did not run: m/pndm-s7." in said.out


def test_the_files_of_shards_stay_as_they_are(shards, merge):
    before = {path: path.read_bytes() for folder in shards for path in folder.rglob("*") if path.is_file()}
    merge(*shards)
    assert before == {path: path.read_bytes() for folder in shards for path in folder.rglob("*") if path.is_file()}
    assert (shards[0] / FILE).is_file()
