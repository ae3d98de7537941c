"""The upgrade check, from two interpreters to verdicts, files and exit codes, on tiny pipelines."""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image

from bench.pictures.limits import STRICT, default_limits
from bench.record.folder import RunFolder
from bench.suite.schedulers import DDPM
from bench.upgrade import outcome
from bench.upgrade.check import UpgradeCheck
from bench.upgrade.decision import Decision
from bench.upgrade.lockstep import places_for
from bench.upgrade.outcome import CaseFound, Figure, PicturesFound, SideFound, UpgradeFound, read_upgrade
from bench.upgrade.pairs import Plan
from bench.upgrade.pictures import compare_pictures
from bench.upgrade.side_results import PictureProcesses, SideResult
from bench.upgrade.tables import remarks
from bench.upgrade.workers import Sides
from bench.verdicts import Verdict

pytest_plugins = ["pytester"]
PROJECT = Path(__file__).parents[2]
LIMITS = default_limits("float32", STRICT)


def picture(level: int = 100, size: int = 16) -> Image.Image:
    return Image.effect_noise((size, size), 60).convert("RGB").point(lambda value: min(value, 155) + level - 100)


TILE = picture()


def side(*images: Image.Image, error: str | None = None) -> SideResult:
    return SideResult(images=images, unet_calls=4, error=error)


def shifted(image: Image.Image, levels: int) -> Image.Image:
    return image.point(lambda value: value + levels)


@pytest.mark.parametrize(
    ("baseline", "candidate", "verdict"),
    [
        (side(TILE), side(TILE), "identical"),
        (side(TILE, TILE), side(TILE, shifted(TILE, 50)), "changed"),
        (side(TILE), side(TILE, TILE), "broken"),
        (side(TILE), side(TILE.resize((8, 8))), "broken"),
        (side(TILE), side(error="TypeError: no"), "raises now"),
        (side(TILE), side(error="BrokenPicture: 1 of 2 images hold NaN"), "broken"),
        (side(TILE), side(error="its process was killed by SIGKILL"), "broken"),
        (side(error="TypeError: no"), side(TILE), "works now"),
        (side(error="TypeError: no"), side(error="TypeError: no"), "raises as before"),
        (side(error="TypeError: no"), side(error="TypeError: other"), "raises something else"),
    ],
)
def test_each_pair_of_results_has_its_verdict(baseline, candidate, verdict):
    assert compare_pictures(baseline, candidate, LIMITS).verdict == verdict


def test_one_level_of_one_value_is_within_limits():
    altered = TILE.copy()
    red, green, blue = TILE.getpixel((3, 3))
    altered.putpixel((3, 3), (red + 1, green, blue))
    found = compare_pictures(side(TILE), side(altered), LIMITS)
    assert (found.verdict, found.max_diff) == ("within limits", 1)


def figure(verdict: str, ratio: float = 1.0, **more) -> Figure:
    decision = Decision(Verdict(verdict), ratio, ratio - 0.01, ratio + 0.01, 6, more.pop("more_pairs", None))
    return Figure.of(decision, 0.03)


def case_found(verdict: str = "identical", **figures: Any) -> CaseFound:
    pictures = PicturesFound(verdict=verdict, message=f"{verdict}: <b>why</b> | so", ssim_worst_tile=0.9)
    notices = figures.pop("new_notices", ())
    return CaseFound(
        case="m/c", settings={}, pictures=pictures, unet_calls=(4, 4), new_notices=notices, seconds=1, **figures
    )


def upgrade_found(*cases: CaseFound) -> UpgradeFound:
    one = SideFound(asked="diffusers==1", libraries={"diffusers": "1"})
    return UpgradeFound(
        baseline=one, candidate=one, changes=(), device="cpu", device_name="<cpu>", mode="duet", budget_s=60,
        min_change=0.03, cases=cases,
    )  # fmt: skip


@pytest.mark.parametrize("verdict", ["changed", "broken", "raises now", "raises something else", "not repeatable"])
def test_worse_pictures_are_a_problem(verdict):
    assert len(case_found(verdict).problems) == 1


@pytest.mark.parametrize("verdict", ["identical", "within limits", "works now", "raises as before"])
def test_sound_pictures_are_none(verdict):
    assert case_found(verdict).problems == ()


@pytest.mark.parametrize(
    ("question", "verdict", "worse"),
    [
        ("speed", "slower", True),
        ("speed", "faster", False),
        ("speed", "same", False),
        ("speed", "cannot tell", False),
        ("load", "slower", True),
        ("first_call", "slower", True),
        ("memory", "more", True),
        ("memory", "less", False),
    ],
)
def test_only_what_is_worse_is_a_problem(question, verdict, worse):
    assert bool(case_found("identical", **{question: figure(verdict, 1.05)}).problems) is worse


def test_what_cannot_be_told_is_counted_and_says_what_it_would_take():
    found = upgrade_found(case_found(speed=figure("cannot tell", 1.02, more_pairs=7)))
    assert found.counts()["speed"]["cannot tell"] == 1
    assert any("about 7 more process pairs" in line for line in remarks(found))
    lines = remarks(upgrade_found(*found.cases * 9))
    assert lines == [
        *["m/c: speed cannot be told; it would take about 7 more process pairs (--budget)"] * 4,
        "and 5 more cases: undecided",
    ]


def test_new_warnings_are_told_once():
    found = upgrade_found(*[case_found(new_notices=("FutureWarning: gone soon",))] * 2)
    assert sum("FutureWarning: gone soon" in line for line in remarks(found)) == 1


def test_the_schema_beside_the_code_is_the_models():
    assert outcome.SCHEMA_FILE.read_text() == outcome.schema()


def test_the_file_reads_back_as_it_was_written(tmp_path):
    found = upgrade_found(case_found(speed=figure("slower", 1.1)), case_found("changed"))
    outcome.write_upgrade(tmp_path / "upgrade.json", found)
    assert read_upgrade(tmp_path / "upgrade.json") == found
    assert json.loads((tmp_path / "upgrade.json").read_text())["schema"] == 1


BRIGHTER = """
import diffusers
original = diffusers.DDPMPipeline.__call__
def brighter(self, *args, **kwargs):
    output = original(self, *args, **kwargs)
    output.images = output.images * 0.9 + 0.1
    return output
diffusers.DDPMPipeline.__call__ = brighter
"""
RAISING = """
import diffusers
def call(self, *args, **kwargs):
    raise TypeError("unexpected keyword argument 'generator'")
diffusers.DDPMPipeline.__call__ = call
"""
RESTLESS = """
import diffusers, random
original = diffusers.DDPMPipeline.__call__
def restless(self, *args, **kwargs):
    output = original(self, *args, **kwargs)
    output.images = output.images + 1e-4 * random.random()
    return output
diffusers.DDPMPipeline.__call__ = restless
"""
WARNING = """
import warnings
import diffusers
original = diffusers.DDPMPipeline.__call__
def warned(self, *args, **kwargs):
    warnings.warn("`steps` is deprecated", FutureWarning)
    return original(self, *args, **kwargs)
diffusers.DDPMPipeline.__call__ = warned
"""


WAITING = """
import diffusers
original = diffusers.DDPMScheduler.step
def waiting(self, *args, **kwargs):
    output = original(self, *args, **kwargs)
    output.prev_sample.mean().item()
    return output
diffusers.DDPMScheduler.step = waiting
"""
UNCOUNTED = """
import bench.calls.work
def counted_call(loaded, case):
    raise RuntimeError("no such dispatch mode")
bench.calls.work.counted_call = counted_call
"""


@pytest.fixture
def check(tmp_path, tiny_case):
    """``check(candidate)`` checks a tiny case on the current interpreter and the candidate's."""

    def run(candidate: Path, **plan) -> tuple[CaseFound, RunFolder]:
        folder = RunFolder(tmp_path / "results", "run")
        pythons = {"baseline": Path(sys.executable), "candidate": candidate}
        chosen = Plan(places_for("cpu"), **({"budget_s": 0.1, "pair_s": 0.05, "speed": False} | plan))
        with Sides(pythons, 120) as sides, PictureProcesses(sides.take) as processes:
            made = UpgradeCheck(sides, processes, chosen, folder, tmp_path, rng=random.Random(0))
            return made.check(tiny_case(DDPM)), folder

    return run


def kept(folder: RunFolder) -> set[str]:
    return {path.name.split(".")[-2] for path in folder.path.rglob("*.png")}


def test_an_install_is_identical_to_itself_and_one_pair_decides_nothing(check):
    found, folder = check(Path(sys.executable), speed=True)
    assert found.pictures.verdict == "identical"
    assert found.unet_calls == (4, 4)
    assert {name: one.verdict for name, one in found.figures.items()} == dict.fromkeys(found.figures, "cannot tell")
    assert set(found.figures) == {"speed", "load", "first call", "memory"}
    assert found.speed.pairs == 1
    assert not found.problems
    assert kept(folder) == {"ddpm-s4-fp32"}


def test_changed_pictures_are_seen_and_kept(check, altered_python):
    found, folder = check(altered_python(BRIGHTER))
    assert found.pictures.verdict == "changed"
    assert kept(folder) == {"baseline", "candidate", "difference"}


def test_a_candidate_that_raises_is_told_with_its_own_words(check, altered_python):
    found, folder = check(altered_python(RAISING), speed=True)
    assert found.pictures.verdict == "raises now"
    assert "TypeError: unexpected keyword argument 'generator'" in found.problems[0]
    assert found.speed is None
    assert kept(folder) == {"baseline"}


def test_a_candidate_that_does_not_repeat_itself_is_worse(check, altered_python):
    found, _ = check(altered_python(RESTLESS), speed=True, pair_s=0.5)
    assert found.pictures.verdict == "not repeatable"


def test_what_only_the_candidate_warns_of_is_told(check, altered_python):
    found, _ = check(altered_python(WARNING))
    assert [text for text in found.new_notices if "`steps` is deprecated" in text] == [
        "FutureWarning: `steps` is deprecated"
    ]


def test_an_install_does_the_same_work_as_itself(check):
    found, _ = check(Path(sys.executable))
    assert (found.work.verdict, found.work.message) == ("same work", "same work")
    assert found.work.baseline == found.work.candidate
    assert found.work.baseline["unet_calls"] == 4


def test_a_candidate_that_waits_for_a_value_in_each_step_is_worse_with_the_same_pictures(check, altered_python):
    found, _ = check(altered_python(WAITING))
    assert found.pictures.verdict == "identical"
    assert found.work.verdict == "more work"
    (problem,) = found.problems
    assert "+1 per step): aten::_local_scalar_dense +4" in problem


def test_work_that_cannot_be_counted_is_told_and_no_verdict(check, altered_python):
    found, _ = check(altered_python(UNCOUNTED))
    assert found.work is None
    assert found.work_reason == "it could not be counted: RuntimeError: no such dispatch mode"
    assert not found.problems


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
    pytester.makeconftest((PROJECT / "conftest.py").read_text())
    settings = (PROJECT / "tox.ini").read_text()
    pytester.makefile(".ini", tox=settings.replace("\npythonpath = .\n", f"\npythonpath = {PROJECT}\n"))
    (pytester.path / "bench").mkdir()
    for name in ("test_upgrade.py", "test_cases.py"):
        shutil.copy(PROJECT / "bench" / name, pytester.path / "bench" / name)
    (pytester.path / "suite.toml").write_text(SUITE.format(folder=tiny_ddpm_folder))

    def run(*arguments: str) -> pytest.RunResult:
        return pytester.runpytest_inprocess("--suite=suite.toml", "--device=cpu", *arguments)

    return run


def test_the_whole_check_of_an_install_with_itself_is_green_and_leaves_its_files(start, pytester):
    result = start("bench", "--candidate=current", "--budget=1s", "--junitxml=junit.xml", "-k", "ddpm")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        ["*any difference is a false alarm", "*[[]2/2] tiny/ddpm-s3-fp32*identical*", "pictures: 2 identical"]
    )
    folder = pytester.path / "results" / "latest"
    found = read_upgrade(folder / "upgrade.json")
    assert [case.case for case in found.cases] == ["tiny/ddpm-s2-fp32", "tiny/ddpm-s3-fp32"]
    assert "Nothing is worse" in (folder / "summary.md").read_text()
    properties = {
        one.attrib["name"]: one.attrib["value"]
        for one in ElementTree.parse(pytester.path / "junit.xml").iter("property")
    }
    assert properties["pictures"] == "identical"
    assert float(properties["speed ratio"]) > 0


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
        (["--candidate=current", "--budget=long"], "--budget long: give seconds, such as 60s."),
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


def test_no_process_is_left_after_a_check(check, altered_python):
    check(altered_python(RAISING), speed=True)
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    if not children.exists():
        pytest.skip("this system does not list the children of a process")
    commands = [Path(f"/proc/{child}/cmdline").read_text() for child in children.read_text().split()]
    assert not [command for command in commands if "worker" in command]
