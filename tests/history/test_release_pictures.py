"""The cases of one release: which of them share a worker, and which a process."""

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.history.release_pictures import Bench, Unusable, loss
from bench.installs.installed import Environment
from bench.upgrade import side_results
from bench.upgrade import workers as workers_module
from bench.upgrade.imports import WrongImport
from bench.upgrade.side_results import SideResult
from bench.upgrade.workers import WorkerBroken, started_worker
from tests.history.helpers import pictures

ENVIRONMENT = Environment(Path("python"), {"diffusers": "1.0"}, search_path=(Path("/env"),))
IMPORTED = {"diffusers": {"file": "/env/diffusers/__init__.py", "version": "1.0"}}


class Worker:
    """Stands for a worker whose process ends with some cases."""

    def __init__(self, ends_with):
        self.ends_with = ends_with
        self.processes = []
        self.process = self
        self.ended = None
        self.imported = IMPORTED

    def poll(self):
        return self.ended

    def kill(self):
        self.ended = self.ended or -9


def run_cases(monkeypatch, cases, *, ends_with=(), ends_once_with=(), starts=9):
    """Which cases have pictures, the cases of each fresh process by worker, and the progress.

    Cases in capitals are sentinels; the last worker that may start cannot.
    """
    workers: list[Worker] = []
    once = set(ends_once_with)

    @contextlib.contextmanager
    def started(name, python, timeout_s, *, forks, program):
        if len(workers) == starts:
            raise WorkerBroken("ImportError: no brush", alive=True, side="paint")
        workers.append(Worker(ends_with))
        yield workers[-1]

    @contextlib.contextmanager
    def fresh(worker):
        worker.processes.append("")
        yield worker

    def picture_in(worker, request):
        case = request["case"]
        assert worker.poll() is None
        worker.processes[-1] += case
        if case in worker.ends_with or case in once:
            once.discard(case)
            worker.ended = -9
            raise WorkerBroken("its process was killed by SIGKILL", alive=False, side="paint")
        return pictures()

    monkeypatch.setattr(workers_module, "started_worker", started)
    monkeypatch.setattr(side_results, "fresh", fresh)
    monkeypatch.setattr(side_results, "picture_in", picture_in)
    done: list[int] = []
    requests = {case: {"case": case, "settings": {"sentinel": case.isupper()}} for case in cases}
    bench = Bench(Path("unused"), True, print)
    results = bench._cases(ENVIRONMENT, "paint==1.0", requests, done.append)
    return {case: bool(result.images) for case, result in results.items()}, [one.processes for one in workers], done


def test_one_worker_does_all_cases_of_a_release(monkeypatch):
    assert run_cases(monkeypatch, "abc") == ({"a": True, "b": True, "c": True}, [["a", "b", "c"]], [1, 2, 3])


def test_sentinels_share_a_process_and_timed_cases_do_not(monkeypatch):
    found, processes, done = run_cases(monkeypatch, "aSTbcU")
    assert processes == [["a", "ST", "b", "c", "U"]]
    assert (set(found.values()), done) == ({True}, [1, 2, 3, 4, 5, 6])


def test_sentinels_after_one_that_dies_get_another_process(monkeypatch):
    found, processes, _ = run_cases(monkeypatch, "STUb", ends_with="T")
    assert found == {"S": True, "T": False, "U": True, "b": True}
    assert processes == [["ST"], ["T"], ["U", "b"]]


def test_a_case_that_takes_its_worker_along_costs_only_itself(monkeypatch):
    found, processes, _ = run_cases(monkeypatch, "abc", ends_with="a")
    assert (found, processes) == ({"a": False, "b": True, "c": True}, [["a"], ["a"], ["b", "c"]])


def test_libraries_that_cannot_be_imported_again_end_the_release(monkeypatch):
    found, _, _ = run_cases(monkeypatch, "abc", ends_with="a", starts=1)
    assert found == {"a": False, "b": False, "c": False}
    with pytest.raises(WorkerBroken, match="no brush"):
        run_cases(monkeypatch, "abc", starts=0)


def test_a_release_that_imports_another_one_is_refused(monkeypatch):
    monkeypatch.setitem(IMPORTED, "diffusers", {"file": "/elsewhere/diffusers/__init__.py", "version": "1.0"})
    with pytest.raises(WrongImport, match=r"worker of 'paint==1\.0' imports diffusers from /elsewhere"):
        run_cases(monkeypatch, "abc")


@pytest.mark.parametrize(("cases", "processes"), [("abc", [["a"], ["a", "b", "c"]]), ("aST", [["a"], ["a", "ST"]])])
def test_a_case_whose_process_is_lost_once_is_tried_again(monkeypatch, cases, processes):
    found, tried, _ = run_cases(monkeypatch, cases, ends_once_with="a")
    assert (found, tried) == (dict.fromkeys(cases, True), processes)


def lost_results(errors):
    """The result of a case whose tries end with these errors, and how many were made."""
    left = [SideResult(error=error) for error in errors]
    processes: Any = SimpleNamespace(result=lambda side, request: left.pop(0))
    result = Bench(Path("unused"), True, print)._result(processes, "paint==1.0", {})
    return result.error, len(errors) - len(left)


KILLED, RAISED = "its process was killed by SIGKILL (out of memory?)", "ValueError: its process is no picture"


def test_a_lost_process_is_said_to_be_lost_twice():
    assert lost_results([KILLED, KILLED, KILLED]) == (f"{KILLED} (tried twice)", 2)
    assert lost_results([KILLED, RAISED, RAISED]) == (RAISED, 2)
    assert lost_results([KILLED, None]) == (None, 2)
    assert lost_results([RAISED, RAISED]) == (RAISED, 1)


def test_a_loss_is_no_exception():
    assert loss(SideResult(error=KILLED)) == loss(Unusable("not imported", KILLED)) == KILLED
    assert [loss(SideResult(error=RAISED)), loss(Unusable("not imported", RAISED)), loss(pictures())] == [None] * 3


@pytest.mark.parametrize("ending", ["kill -9 $$", "sleep 60"])
def test_the_message_on_a_real_process_that_is_lost_says_so(tmp_path, ending):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{ending}\n")
    python.chmod(0o755)
    with pytest.raises(WorkerBroken) as caught, started_worker("paint", python, 0.3):
        pass
    assert loss(Unusable("not imported", str(caught.value)))


@pytest.mark.parametrize(("times", "works"), [(1, True), (2, False)])
def test_an_import_that_is_killed_is_tried_again(monkeypatch, times, works):
    tries = []

    @contextlib.contextmanager
    def started(name, python, timeout_s, *, forks, program):
        tries.append(name)
        if len(tries) <= times:
            raise WorkerBroken(KILLED, alive=False, side=name)
        yield Worker("")

    monkeypatch.setattr(workers_module, "started_worker", started)
    monkeypatch.setattr(Bench, "environment", lambda self, side: ENVIRONMENT)
    bench = Bench(Path("unused"), True, print)
    if works:
        assert bench.pictures("paint==1.0", {}) == (ENVIRONMENT, {})
    else:
        with pytest.raises(Unusable, match=r"its process was killed by SIGKILL .* \(tried twice\)$"):
            bench.pictures("paint==1.0", {})
    assert len(tries) == 2
