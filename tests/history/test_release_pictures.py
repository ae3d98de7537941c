"""The cases of one release: which of them share a worker, and which a process."""

import contextlib
from pathlib import Path

import pytest

from bench.history import (
    release_pictures,
)
from bench.history.release_pictures import Bench
from bench.installs.installed import Environment
from bench.upgrade import side_results
from bench.upgrade.imports import WrongImport
from bench.upgrade.workers import WorkerBroken
from tests.history.helpers import pictures

ENVIRONMENT = Environment(Path("python"), {"diffusers": "1.0"}, search_path=(Path("/env"),))
IMPORTED = {"diffusers": {"file": "/env/diffusers/__init__.py", "version": "1.0"}}


class Worker:
    """Stands for a worker whose process ends with a case that is told so."""

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


def run_cases(monkeypatch, cases, *, ends_with=(), starts=9):
    """Which cases have pictures, the cases of each fresh process by worker, and how many were told to be done.

    Cases in capitals are sentinels; the last worker that may start cannot.
    """
    workers: list[Worker] = []

    @contextlib.contextmanager
    def started(name, python, timeout_s, *, forks):
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
        if case in worker.ends_with:
            worker.ended = -9
            raise WorkerBroken("its process was killed by SIGKILL", alive=False, side="paint")
        return pictures()

    monkeypatch.setattr(release_pictures, "started_worker", started)
    monkeypatch.setattr(side_results, "fresh", fresh)
    monkeypatch.setattr(side_results, "picture_in", picture_in)
    told: list[int] = []
    requests = {case: {"case": case, "settings": {"sentinel": case.isupper()}} for case in cases}
    bench = Bench(Path("unused"), True, print)
    results = bench._cases(ENVIRONMENT, "paint==1.0", requests, told.append)
    return {case: bool(result.images) for case, result in results.items()}, [one.processes for one in workers], told


def test_one_worker_does_all_cases_of_a_release(monkeypatch):
    assert run_cases(monkeypatch, "abc") == ({"a": True, "b": True, "c": True}, [["a", "b", "c"]], [1, 2, 3])


def test_sentinels_share_a_process_and_timed_cases_do_not(monkeypatch):
    found, processes, told = run_cases(monkeypatch, "aSTbcU")
    assert processes == [["a", "ST", "b", "c", "U"]]
    assert (set(found.values()), told) == ({True}, [1, 2, 3, 4, 5, 6])


def test_sentinels_after_one_that_dies_get_another_process(monkeypatch):
    found, processes, _ = run_cases(monkeypatch, "STUb", ends_with="T")
    assert found == {"S": True, "T": False, "U": True, "b": True}
    assert processes == [["ST"], ["U", "b"]]


def test_a_case_that_takes_its_worker_along_costs_only_itself(monkeypatch):
    found, processes, _ = run_cases(monkeypatch, "abc", ends_with="a")
    assert (found, processes) == ({"a": False, "b": True, "c": True}, [["a"], ["b", "c"]])


def test_libraries_that_cannot_be_imported_again_end_the_release(monkeypatch):
    found, _, _ = run_cases(monkeypatch, "abc", ends_with="a", starts=1)
    assert found == {"a": False, "b": False, "c": False}
    with pytest.raises(WorkerBroken, match="no brush"):
        run_cases(monkeypatch, "abc", starts=0)


def test_a_release_that_imports_another_one_is_refused(monkeypatch):
    monkeypatch.setitem(IMPORTED, "diffusers", {"file": "/elsewhere/diffusers/__init__.py", "version": "1.0"})
    with pytest.raises(WrongImport, match=r"worker of 'paint==1\.0' imports diffusers from /elsewhere"):
        run_cases(monkeypatch, "abc")
