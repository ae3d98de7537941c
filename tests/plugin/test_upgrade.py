"""The upgrade check in pytest: exit codes, files, lines and sentences, on tiny pipelines."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from bench.upgrade.outcome import read_upgrade
from tests.project import make_project
from tests.upgrade.altered import BRIGHTER

pytest_plugins = ["pytester"]

SUITE = """
[models.tiny]
kind = "ddpm"
source = "local"
path = '{folder}'

[models.tiny.defaults]
images = 2

[[cases]]
model = "tiny"
scheduler = "ddpm"
steps = [2, 3]
"""


@pytest.fixture
def start(pytester, tiny_ddpm_folder):
    """``start(…)`` runs pytest on the upgrade file in a project with this one's conftest and settings."""
    make_project(pytester, SUITE.format(folder=tiny_ddpm_folder), "bench/test_upgrade.py", "bench/test_cases.py")

    def run(*arguments: str) -> pytest.RunResult:
        return pytester.runpytest_inprocess("--suite=suite.toml", "--device=cpu", *arguments)

    return run


def test_the_whole_check_of_an_install_with_itself_is_green_and_leaves_its_files(start, pytester):
    result = start("bench", "--candidate=current", "--budget=1s", "--junitxml=junit.xml", "-k", "ddpm")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        [
            "*any difference is a false alarm",
            "*[[]2/4] tiny/ddpm-s3-fp32*identical*",
            "measuring 2 cases, for up to 1 s",
            "start 1: 0 of 2 speeds decided*",
            "*[[]4/4] tiny/ddpm-s3-fp32*speed cannot tell*",
            "components: 3 cannot tell",
            "pictures: 2 identical",
        ]
    )
    folder = pytester.path / "results" / "latest"
    found = read_upgrade(folder / "upgrade.json")
    assert [case.case for case in found.cases] == ["tiny/ddpm-s2-fp32", "tiny/ddpm-s3-fp32"]
    assert "Nothing is measurably worse" in (folder / "summary.md").read_text()
    properties = {
        one.attrib["name"]: one.attrib["value"]
        for one in ElementTree.parse(pytester.path / "junit.xml").iter("property")
    }
    assert properties["pictures"] == "identical"
    assert float(properties["speed ratio"]) > 0


def test_an_interrupted_check_continues_in_its_folder(start, pytester):
    arguments = ("bench", "--candidate=current", "-k", "ddpm-s2", "--budget=1s")
    assert start(*arguments).ret == pytest.ExitCode.OK
    (before,) = read_upgrade(pytester.path / "results" / "latest" / "upgrade.json").cases
    result = start(*arguments, "--resume")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["continuing *: 1 cases, 1 starts are done"])
    assert len([path for path in (pytester.path / "results").iterdir() if not path.is_symlink()]) == 1
    (after,) = read_upgrade(pytester.path / "results" / "latest" / "upgrade.json").cases
    assert after.pictures == before.pictures
    assert after.seconds == before.seconds


def test_without_a_check_to_continue_nothing_is_run(start):
    result = start("bench", "--candidate=current", "--resume=nowhere")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --resume: *nowhere/upgrade.jsonl cannot be read (No such file or directory)."])


def test_a_changed_picture_is_a_failed_test_with_one_sentence(start, altered_python, pytester, monkeypatch):
    monkeypatch.setattr("bench.plugin.upgrade.bisect_command", lambda found, options: f"search {found.cases[0].case}")
    folder = altered_python(BRIGHTER).parents[1]
    result = start("bench/test_upgrade.py", f"--candidate={folder}", "--pictures-only", "--junitxml=junit.xml")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    group = "both cases give changed pictures"
    result.stdout.fnmatch_lines(
        [
            "tiny/ddpm-s2-fp32: changed: SSIM*Pictures: *",
            f"{group}.",
            "  the change starts in the conversion to pictures: the latents of all 3 steps are the same (tiny/*)",
            "tiny/ddpm-s?-fp32: changed: SSIM*",
            "report: *",
            "which release did it: search tiny/ddpm-s2-fp32",
        ]
    )
    assert [one.sentence for one in read_upgrade(pytester.path / "results" / "latest" / "upgrade.json").groups] == [
        group
    ]
    tests = ElementTree.parse(pytester.path / "junit.xml").iter("property")
    assert [one.attrib["value"] for one in tests if one.attrib["name"] == "group"] == [group] * 2
    assert "Traceback" not in result.stdout.str()
    assert "Worse in 2 of 2 cases" in (pytester.path / "results" / "latest" / "summary.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "give --baseline or --candidate"),
        (["--candidate="], "allowed are 'current'"),
        (["--candidate=no/such/folder"], "no/such/folder"),
        (["--candidate=current", "--budget=long"], "--budget long: give a time, such as 90s, 5m or 2h."),
        (["--candidate=current", "--min-change=0%"], "--min-change 0%: give percent, such as 3%."),
        (["--candidate=current", "-n2"], "benchmarks run one at a time"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_4(start, arguments, sentence):
    result = start("bench/test_upgrade.py", *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert sentence in result.stderr.str() + result.stdout.str()
    assert "Traceback" not in result.stderr.str() + result.stdout.str()


def test_a_release_that_does_not_exist_is_told_with_the_resolvers_reason(start, monkeypatch, tmp_path):
    (tmp_path / "no-wheels").mkdir()
    monkeypatch.setenv("UV_DEFAULT_INDEX", (tmp_path / "no-wheels").as_uri())
    result = start("bench/test_upgrade.py", "--candidate=diffusers==99.0", "--pictures-only")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "diffusers==99.0" in result.stderr.str()
    assert "Traceback" not in result.stderr.str()


def test_a_side_that_cannot_be_imported_ends_the_run_with_its_reason(start, altered_python):
    folder = altered_python("raise ImportError('cannot import name FLAX_WEIGHTS_NAME')").parents[1]
    result = start("bench/test_upgrade.py", f"--candidate={folder}", "--pictures-only")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "cannot import name FLAX_WEIGHTS_NAME" in result.stderr.str()


def test_without_sides_the_upgrade_is_left_out_of_the_benchmarks(start):
    result = start("bench", "--collect-only", "-q")
    assert "test_cases.py" in result.stdout.str()
    assert "test_upgrade.py" not in result.stdout.str()


def test_cached_environments_are_listed_and_pruned(start, pytester):
    result = start("--environments-list")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["0 environments in *.environments"])
    start("--environments-prune").stdout.fnmatch_lines(["0 environments removed from *.environments"])
