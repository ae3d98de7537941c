"""Functions in separate processes: results one by one, a sentence for a process that dies, nothing left behind."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.calls.processes import Method, ProcessDied, call, describe_exit, started

pytestmark = pytest.mark.usefixtures("spawned_processes")
METHODS = pytest.mark.parametrize("method", ["spawn", "fork"])


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where processes have their folders."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def count_up(go: Path, last: int) -> Iterator[int]:
    """One number immediately, the others when a file exists."""
    yield 0
    while not go.exists():
        time.sleep(0.01)
    yield from range(1, last + 1)


@METHODS
def test_results_come_one_by_one(method: Method, tmp_path: Path) -> None:
    with started(count_up, tmp_path / "go", 3, method=method) as child:
        assert next(child) == 0
        (tmp_path / "go").touch()
        assert list(child) == [1, 2, 3]


def double(number: int) -> int:
    print("doubling")
    return 2 * number


def test_a_call_returns_the_result_and_shows_the_output_on_request(capsys: Any) -> None:
    assert call(double, 4) == 8
    assert capsys.readouterr() == ("", "")
    assert call(double, 5, shows=True) == 10
    assert capsys.readouterr() == ("", "doubling\n")


class Picky(Exception):
    """Cannot be rebuilt from its text alone."""

    def __init__(self, text: str, *, why: str) -> None:
        super().__init__(text)


def refuse(kind: str) -> None:
    raise Picky("never", why="so") if kind == "picky" else LookupError("nothing there")


def test_what_the_function_raises_comes_with_its_traceback() -> None:
    with pytest.raises(LookupError, match="nothing there") as caught:
        call(refuse, "plain")
    (note,) = caught.value.__notes__
    assert note.startswith("In its process:\nTraceback")
    assert "in refuse" in note


def test_an_exception_that_cannot_be_pickled_keeps_its_text() -> None:
    with pytest.raises(RuntimeError, match=r"^Picky: never$"):
        call(refuse, "picky")


NOTICING = """
import os
NOTICED = os.environ.get("NOTICED_ON_IMPORT")
def noticed():
    return NOTICED
"""


@pytest.fixture
def noticing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that returns the environment that its module saw when it was imported."""
    (tmp_path / "noticing.py").write_text(NOTICING)
    monkeypatch.syspath_prepend(tmp_path)
    import noticing  # type: ignore[import-not-found]

    yield noticing.noticed
    del sys.modules["noticing"]


def test_the_environment_is_set_before_the_module_is_imported(noticing: Any) -> None:
    assert call(noticing, environment={"NOTICED_ON_IMPORT": "yes"}) == "yes"
    assert call(noticing) is None
    assert "NOTICED_ON_IMPORT" not in os.environ


TOO_LATE = """
import sys, types
sys.modules["torch"] = types.ModuleType("torch")  # as if this program imported it
from bench.calls.processes import call
if __name__ == "__main__":
    print(call(len, "four"))
    call(len, "four", environment={"OMP_NUM_THREADS": "1"})
"""


def test_an_environment_that_would_come_too_late_is_refused(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(TOO_LATE)
    done = subprocess.run(
        [sys.executable, tmp_path / "program.py"],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "4\n"
    assert done.returncode == 1
    assert "its last words: torch was imported before OMP_NUM_THREADS could be set" in done.stderr


def die(how: str) -> Iterator[bytes]:
    yield b"whole"
    print("first\nsecond")
    print("out of luck", file=sys.stderr)
    if how == "exit":
        os._exit(7)
    if how == "raise":
        raise ValueError("no")
    if how == "message":  # the pipe holds less, so it stays unfinished
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        yield bytes(2**22)
    os.kill(os.getpid(), signal.SIGKILL)


@METHODS
@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("exit", r"its process ended with exit code 7; its last words: first \| second \| out of luck"),
        ("kill", r"its process was killed by SIGKILL \(out of memory\?\); its last words: first \| .* \| out of luck"),
        ("raise", r"its process ended with exit code 1; its last words: .* \| ValueError: no"),
    ],
)
def test_a_process_that_dies_is_one_sentence_with_its_last_words(
    method: Method, how: str, sentence: str, scratch: Path
) -> None:
    with started(die, how, method=method) as child:
        assert next(child) == b"whole"
        with pytest.raises(ProcessDied, match=f"^{sentence}$"):
            next(child)
    assert list(scratch.iterdir()) == []


def test_a_process_that_dies_within_a_message_is_one_sentence() -> None:
    with started(die, "message") as child:
        assert next(child) == b"whole"
        time.sleep(0.5)
        with pytest.raises(ProcessDied, match=r"^its process was killed by SIGALRM; its last words: .*out of luck$"):
            next(child)


def test_a_function_that_cannot_be_imported_leaves_last_words(noticing: Any, tmp_path: Path) -> None:
    (tmp_path / "noticing.py").write_text("raise ImportError('no such library')")
    with pytest.raises(ProcessDied, match=r"^its process ended with exit code 1; .* \| ImportError: no such library$"):
        call(noticing)


def leave_things() -> Iterator[int]:
    Path(tempfile.mkstemp()[1]).write_text("left")
    Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]).mkdir()
    yield subprocess.Popen(["sleep", "600"]).pid
    time.sleep(600)


@METHODS
def test_nothing_is_left_of_a_process_that_is_no_longer_wanted(method: Method, scratch: Path) -> None:
    before = set(multiprocessing.active_children())  # of other tests
    with started(leave_things, method=method) as child:
        grandchild = next(child)
        (folder,) = scratch.iterdir()
        assert len(list(folder.iterdir())) == 3
    assert list(scratch.iterdir()) == []
    assert set(multiprocessing.active_children()) <= before
    deadline = time.monotonic() + 10
    while is_running(grandchild) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_running(grandchild)


def is_running(pid: int) -> bool:
    """Whether it still runs: a process without a parent stays listed until another one reaps it."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def test_a_signal_without_a_name_is_reported_by_number() -> None:
    assert describe_exit(-99) == "was killed by signal 99"
