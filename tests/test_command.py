"""How the command lines end: with an exit code, and with one line instead of a traceback."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import bench
from bench.command import BROKEN_PIPE, INTERRUPTED, NOTHING_RUN, CommandParser, run_command
from bench.errors import BenchError, UsageError

FOLDER = Path(bench.__file__).parent
# What each command calls first, which the tests replace, and arguments for it.
COMMANDS = {
    "bench.accept": ("bench.accept.read_recorded", ["latest"]),
    "bench.calibration.__main__": ("bench.calibration.__main__.read_suite", ["detects"]),
    "bench.faults.__main__": ("bench.faults.__main__.read_outcomes", ["report"]),
    "bench.history.bisect": ("bench.history.bisect.read_choice", ["paint", "1.0..2.0", "--case", "ddim"]),
    "bench.prefetch": ("bench.prefetch.read_suite", ["--model", "emoji-sd"]),
    "bench.proofs.closed_form.__main__": ("bench.proofs.closed_form.__main__.read_goldens", ["check"]),
    "bench.proofs.power": ("bench.proofs.power.read_trials", ["report"]),
    "bench.proofs.processors": ("bench.proofs.processors.why_without_effect", []),
    "bench.proofs.waits": ("bench.proofs.waits.read_suite", []),
    "bench.report.__main__": ("bench.report.__main__.read_story", ["latest"]),
    "bench.timeline": ("bench.timeline.read_choice", ["paint", "1.0..2.0"]),
    "bench.tune.comparison": ("bench.tune.comparison.read_found", ["tune.json"]),
    "bench.tuner": ("bench.tuner.choose_device", []),
    "bench.training.__main__": ("bench.training.stages.run", ["ddpm"]),
}


def raising(error: BaseException) -> Callable[..., int]:
    def run(*_arguments: object, **_keywords: object) -> int:
        raise error

    return run


def test_a_run_that_ends_by_itself_decides_its_exit_code(capsys):
    def run(first: int, *, second: int) -> int:
        return first + second

    assert run_command("paint", run, 1, second=2) == 3
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (BenchError("no brush."), NOTHING_RUN, "paint: no brush.\n"),
        (UsageError("no\nbrush."), NOTHING_RUN, "paint: no brush.\n"),
        (KeyboardInterrupt(), INTERRUPTED, "paint: interrupted\n"),
        (KeyboardInterrupt("half is kept"), INTERRUPTED, "paint: interrupted; half is kept\n"),
    ],
)
def test_an_error_is_one_line(capsys, error, code, said):
    assert run_command("paint", raising(error)) == code
    assert capsys.readouterr() == ("", said)


def test_a_mistake_of_the_suite_keeps_its_traceback():
    with pytest.raises(KeyError):
        run_command("paint", raising(KeyError("brush")))


def test_a_mistake_in_an_option_has_pytest_s_exit_code(capsys):
    with pytest.raises(SystemExit) as ended:
        CommandParser(prog="paint").parse_args(["--brush"])
    assert ended.value.code == NOTHING_RUN == pytest.ExitCode.USAGE_ERROR
    assert capsys.readouterr().err.endswith("paint: error: unrecognized arguments: --brush\n")
    assert pytest.ExitCode.INTERRUPTED == INTERRUPTED


SCRIPT = """
import signal, sys, time
from bench.command import run_command

def run():
    {body}
    return 0

sys.exit(run_command("paint", run))
"""


def script(body: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """A process with a command that does this."""
    words = [sys.executable, "-c", SCRIPT.format(body=body)]
    return subprocess.Popen(words, cwd=FOLDER.parent, text=True, stdout=stdout, stderr=subprocess.PIPE)


@pytest.mark.parametrize("body", ["print('brush', flush=True)", "print('brush')", "print('brush\\n' * 10**6)"])
def test_a_closed_output_is_silent(body):
    read, write = os.pipe()
    os.close(read)
    process = script(body, stdout=write)
    os.close(write)
    assert process.communicate()[1] == ""
    assert process.returncode == BROKEN_PIPE


def test_another_broken_pipe_is_a_mistake_of_the_suite():
    process = script("raise BrokenPipeError('of a worker')")
    assert "BrokenPipeError: of a worker" in process.communicate()[1]
    assert process.returncode == 1


def test_ctrl_c_is_one_line():
    # A shell makes background processes ignore the signal.
    process = script("signal.signal(2, signal.default_int_handler); print('ready', flush=True); time.sleep(60)")
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate()[1] == "paint: interrupted\n"
    assert process.returncode == INTERRUPTED


@pytest.mark.parametrize("module", ["bench.timeline", "bench.report", "bench.history.bisect"])
def test_ctrl_c_while_a_command_starts_is_one_line(module, tmp_path):
    (tmp_path / "pydantic.py").write_text("raise KeyboardInterrupt")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    words = [sys.executable, "-m", module]
    ended = subprocess.run(words, check=False, cwd=FOLDER.parent, env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (INTERRUPTED, "interrupted\n")


def modules_that(call: str) -> set[str]:
    """The modules of ``bench/`` that call a function of this name, except the one that defines it."""
    return {
        ".".join(path.relative_to(FOLDER.parent).with_suffix("").parts)
        for path in FOLDER.rglob("*.py")
        if path != FOLDER / "command.py" and f"{call}(" in path.read_text(encoding="utf-8")
    }


def test_every_command_line_ends_in_the_same_way():
    assert modules_that("CommandParser") == modules_that("run_command") == set(COMMANDS)
    assert modules_that("ArgumentParser") == set()


@pytest.fixture
def ended(monkeypatch, capsys, tmp_path):
    """Runs a command in an empty folder: its exit code, and its last words."""
    monkeypatch.chdir(tmp_path)

    def ended(name, arguments):
        return importlib.import_module(name).main(arguments), capsys.readouterr().err

    return ended


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("error", [BenchError("no brush."), KeyboardInterrupt()])
def test_no_command_shows_a_traceback(name, error, ended, monkeypatch):
    called, arguments = COMMANDS[name]
    monkeypatch.setattr(called, raising(error))
    code, said = ended(name, arguments)
    assert code == (INTERRUPTED if isinstance(error, KeyboardInterrupt) else NOTHING_RUN)
    assert said.count("\n") == 1
    assert ": interrupted" in said or ": no brush." in said


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("bench.calibration.__main__", ["detects", "--case", "gremlins"], "--case gremlins: none of the"),
        ("bench.faults.__main__", ["run", "--case", "ddim and"], "joined by and, or, not"),
        ("bench.faults.__main__", ["run", "--suite", "nowhere.toml"], "nowhere.toml: cannot be read"),
        ("bench.proofs.power", ["run", "--case", "lcm"], "--case lcm: none of the 12 cases"),
        ("bench.proofs.power", ["report"], "no such file; measure first, with 'run'"),
        ("bench.proofs.power", ["report", "--file", "damaged"], "line 1: not a trial; delete the line"),
        ("bench.report.__main__", ["nowhere"], "nowhere: no such folder"),
        ("bench.training.__main__", ["ddpm-finish"], "train `ddpm` first"),
    ],
)
def test_a_users_mistake_is_one_sentence(name, arguments, said, ended, tmp_path):
    (tmp_path / "damaged").write_text("no\n")
    code, last = ended(name, arguments)
    assert code == NOTHING_RUN
    assert last.count("\n") == 1
    assert said in last
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged"]


def test_training_imports_torch_where_ctrl_c_is_one_line():
    code = "import sys, bench.training.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=FOLDER.parent, check=False).returncode == 0


def test_grids_of_other_cases_are_a_mistake(ended, monkeypatch):
    monkeypatch.setattr("bench.calibration.__main__.keep", lambda *_arguments: 0)
    code, said = ended("bench.calibration.__main__", ["keep", "grids", "mine", "My processor"])
    assert (code, said.count("\n")) == (NOTHING_RUN, 1)
    assert "grids: contains no grid of a case with a golden" in said
