"""The tuning command on a tiny pipeline: from the first trial to the front, its code, its report and its goldens."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench import tuner
from bench.calls.device import Cpu
from bench.command import INTERRUPTED, NOTHING_RUN
from bench.record.environment import describe_environment
from bench.record.folder import RunFolder
from bench.run import GoldenPolicy, Run
from bench.suite.file import read_suite
from bench.tune import trial
from bench.tune.outcome import TUNE, read_found, write_found
from bench.tune.study import JOURNAL

pytestmark = pytest.mark.usefixtures("one_thread")

SUITE = """
[models.tiny]
kind = "stable-diffusion"
source = "local"
path = '{folder}'

[models.tiny.defaults]
images = 2
prompts = ["a red fox", "a cat"]
guidance = 5
scheduler = "ddim"

[[cases]]
model = "tiny"
steps = 2

[tune.tiny]
scheduler = ["ddim", "euler"]
steps = [2, 4, 8]
images = 2
seeds = [0, 5]
optimizations = [[], ["guidance-cutoff"]]
dtype = "float32"
start = {{ scheduler = "ddim", steps = 8 }}
reference = {{ scheduler = "ddim", steps = 12 }}
"""


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch) -> None:
    monkeypatch.setattr("bench.tune.finals.MOST_ROUNDS", 3)


@dataclass(frozen=True)
class Place:
    """A suite file, and where the study "one" of it is."""

    root: Path

    @property
    def suite(self) -> Path:
        return self.root / "suite.toml"

    @property
    def folder(self) -> Path:
        return self.root / "results" / "one"

    def tune(self, *words: str) -> tuple[int, str, str]:
        """The command: its exit code, its output and its last words."""
        named = [] if {"--resume", "--export"} & {word.partition("=")[0] for word in words} else ["--study=one"]
        common = [f"--suite={self.suite}", f"--results={self.root / 'results'}", "--device=cpu", "--min-quality=0"]
        with contextlib.redirect_stdout(io.StringIO()) as output, contextlib.redirect_stderr(io.StringIO()) as said:
            code = tuner.main([*common, "--seed=1", *named, *words])
        return code, output.getvalue(), said.getvalue()


def new_place(root: Path, pipeline: Path) -> Place:
    (root / "suite.toml").write_text(SUITE.format(folder=pipeline))
    return Place(root)


@pytest.fixture
def place(tmp_path, tiny_sd_folder) -> Place:
    return new_place(tmp_path, tiny_sd_folder)


@pytest.fixture
def tune(place):
    return place.tune


@pytest.fixture
def folder(place) -> Path:
    return place.folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_sd_folder) -> tuple[Place, str]:
    """A study that has tried every setting, and what it printed."""
    place = new_place(tmp_path_factory.mktemp("tuned"), tiny_sd_folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.tune.finals.MOST_ROUNDS", 3)
        code, output, said = place.tune("--exhaustive")
    assert code == 0, said
    return place, output


def test_it_ends_with_a_front_picks_code_and_a_report(finished):
    place, output = finished
    folder = place.folder
    found = read_found(folder / TUNE)
    assert found.settings == 12
    assert len(found.tried) == 12
    assert found.failed == {}
    assert [timed.seconds for timed in found.front] == sorted(timed.seconds for timed in found.front)
    qualities = [one.quality for one in found.front_tried]
    assert qualities == sorted(qualities)
    assert [pick.name for pick in found.picks] == ["as good as the reference", "balanced", "fastest acceptable"]
    assert "tiny on cpu" in output
    assert "[12] " in output
    assert "the front, fastest first" in output
    assert output.rstrip().endswith("tox run -e tune -- --export one")
    page = (folder / "report.html").read_text()
    assert "from_pretrained" in page
    assert page.count("<h2") >= 4
    assert (folder / "summary.md").exists()
    for name in ("as-good-as-the-reference", "balanced", "fastest-acceptable"):
        compile((folder / "picks" / f"{name}.py").read_text(), name, "exec")
    assert "[[cases]]" in (folder / "picks" / "cases.toml").read_text()


def test_a_study_continues_where_it_ended(tune, folder, monkeypatch):
    plain = trial.Studio.try_case
    tried: list[str] = []

    def interrupted(self, case, references):
        if len(tried) == 3:
            raise KeyboardInterrupt
        tried.append(case.id)
        return plain(self, case, references)

    monkeypatch.setattr(trial.Studio, "try_case", interrupted)
    code, _, said = tune("--exhaustive")
    assert code == INTERRUPTED
    assert said == "tune: interrupted; what was tried is kept; continue with --resume one\n"
    monkeypatch.setattr(trial.Studio, "try_case", plain)
    code, output, _ = tune("--resume=one", "--exhaustive")
    assert code == 0
    assert "continuing: 3 settings were tried before" in output
    assert "drawing" not in output
    cases = [one.case for one in read_found(folder / TUNE).tried]
    assert cases[:3] == tried
    assert len(cases) == len(set(cases)) == 12


def test_a_killed_worker_loses_one_trial(place, tune, folder):
    words = [
        sys.executable, "-m", "bench.tuner", f"--suite={place.suite}", f"--results={place.root / 'results'}",
        "--study=one", "--min-quality=0", "--exhaustive", "--device=cpu",
    ]  # fmt: skip
    process = subprocess.Popen(words, cwd=Path(tuner.__file__).parents[1], text=True, stdout=subprocess.PIPE)
    assert process.stdout
    while not process.stdout.readline().startswith("[2] "):
        assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    code, output, _ = tune("--resume=one", "--exhaustive")
    assert code == 0
    assert " were left by workers that died" in output
    cases = [one.case for one in read_found(folder / TUNE).tried]
    assert len(cases) == len(set(cases)) == 12


def test_a_setting_that_raises_is_left_out_and_said(tune, folder, monkeypatch):
    plain = trial.Studio.try_case

    def raising(self, case, references):
        if case.settings.scheduler == "euler":
            raise RuntimeError("no kernel for this\nmore")
        return plain(self, case, references)

    monkeypatch.setattr(trial.Studio, "try_case", raising)
    code, output, _ = tune("--exhaustive")
    assert code == 0
    found = read_found(folder / TUNE)
    assert set(found.failed.values()) == {"RuntimeError: no kernel for this"}
    assert len(found.failed) == len(found.tried) == 6
    assert "cannot be used: RuntimeError: no kernel for this" in output
    assert "Cannot be used" in (folder / "report.html").read_text()


def test_where_nothing_works_the_reason_is_the_answer(tune, monkeypatch):
    def raising(self, case, references):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(trial.Studio, "try_case", raising)
    code, _, said = tune("--exhaustive")
    assert code == NOTHING_RUN
    assert "no setting reached a quality of 0: 0 were tried, 12 cannot be used; RuntimeError: out of luck" in said


def test_a_full_disk_is_one_sentence_and_what_was_tried_is_kept(tune, folder, monkeypatch):
    def full(*_arguments: object, **_keywords: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("bench.tuner.write_found", full)
    code, _, said = tune("--exhaustive")
    assert code == NOTHING_RUN
    assert said.endswith(
        "cannot be written (No space left on device); what was tried is kept, continue with --resume one.\n"
    )
    assert said.count("\n") == 1
    assert (folder / JOURNAL).exists()


def test_the_front_becomes_a_suite_with_goldens(finished):
    place, _ = finished
    folder = place.folder
    code, output, _ = place.tune("--export=one")
    assert code == 0
    file = folder / "export" / "suite.toml"
    exported = {case.id for case in read_suite(file).cases}
    assert exported == {timed.case for timed in read_found(folder / TUNE).front}
    goldens = list((folder / "export" / "golden").rglob("*.png"))
    assert len(goldens) == len(exported)
    assert "tox run -e upgrade -- --candidate diffusers==X --suite=" in output
    run = Run(
        device=Cpu(),
        folder=RunFolder(folder, "checked"),
        goldens=GoldenPolicy(folder / "export" / "golden"),
        suite_folder=file.parent,
        environment=describe_environment(Cpu(), file.parent),
    )
    records = [run.picture(case) for case in read_suite(file).cases]
    assert {(record.verdict, record.work and record.work.verdict) for record in records} == {("identical", "same work")}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model=no"], "--model no: not in "),
        (["--resume=no"], "--resume no: no study in "),
        (["--export=no"], "--export no: no finished study in "),
        (["--suite=no.toml"], "no.toml: cannot be read"),
        (["--quality=no:f"], "--quality no:f: No module named 'no'"),
        (["--device=abacus"], "--device abacus: "),
        (["--device=sim"], "times on the simulated accelerator mean nothing"),
    ],
)
def test_a_mistake_is_one_sentence(tune, words, said):
    code, _, error = tune(*words)
    assert code == NOTHING_RUN
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("words", [["--budget=long"], ["--max-time=0"], ["--study=a", "--resume=b"]])
def test_a_mistake_in_an_option_is_said_before_anything_is_loaded(words, capsys):
    with pytest.raises(SystemExit) as ended:
        tuner.main(words)
    assert ended.value.code == NOTHING_RUN
    assert "error: " in capsys.readouterr().err


def test_the_file_reads_back_as_it_was_written(finished, tmp_path):
    folder = finished[0].folder
    found = read_found(folder / TUNE)
    write_found(tmp_path / "again.json", found)
    assert read_found(tmp_path / "again.json") == found
    assert json.loads((tmp_path / "again.json").read_text())["schema"] == 1
    assert (folder / JOURNAL).exists()
