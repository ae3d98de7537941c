"""Processes that are forked from one which has imported the libraries, since importing them takes seconds."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import pytest

from bench.calls import processes
from bench.upgrade import workers
from tests.upgrade.altered import ROOT, code_of

CURRENT = Path(sys.executable)


def work(program: str, code: str, requests: Connection, replies: Connection, log: str) -> None:
    """What a worker does from its start on: the code that alters its libraries, then its program."""
    os.setsid()
    os.dup2(requests.fileno(), 0)
    os.dup2(replies.fileno(), 1)
    os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND), 2)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    exec(code, {})
    runpy.run_path(str(ROOT.joinpath(*program.split(".")).with_suffix(".py")), run_name="__main__")


class ForkedWorker:
    """What the suite uses of ``subprocess.Popen``."""

    def __init__(self, program: str, code: str, log: str) -> None:
        context = multiprocessing.get_context("forkserver")
        requests, self.stdin = context.Pipe(duplex=False)
        self.stdout, replies = context.Pipe(duplex=False)
        self._process = context.Process(target=work, args=(program, code, requests, replies, log))
        self._process.start()
        self.pid = self._process.pid
        requests.close()
        replies.close()

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> int | None:
        self._process.join(0.5)
        self._process.kill()  # it may not have had the time to become the leader of its group
        self._process.join()
        return self.poll()


def start(
    words: Sequence[str], *, env: Mapping[str, str], stderr: BinaryIO, **more: Any
) -> ForkedWorker | subprocess.Popen[bytes]:
    """Starts a worker as ``subprocess.Popen`` does; one with the libraries of this environment is forked."""
    python, program = Path(words[0]), words[2]
    code = "" if python == CURRENT else code_of(python)
    if code is None:
        return subprocess.Popen(words, env=env, stderr=stderr, **more)
    return ForkedWorker(program, code, stderr.name)


class Context:
    """What ``bench.calls.processes`` uses of a context of ``multiprocessing``; only ``spawn`` is replaced."""

    def __init__(self, method: str) -> None:
        self._plain: Any = multiprocessing.get_context(method)
        self._forking: Any = multiprocessing.get_context("forkserver" if method == "spawn" else method)
        self.Pipe = self._plain.Pipe

    def Process(self, *, target: Any, args: tuple[Any, ...], daemon: bool) -> Any:
        """A forked process, unless variables are to be set before the libraries are imported."""
        environment = args[1]
        return (self._plain if environment else self._forking).Process(target=target, args=args, daemon=daemon)


@contextlib.contextmanager
def forked_processes() -> Iterator[None]:
    """In the block, workers and other processes with the libraries of this environment are forked."""
    forkserver.set_forkserver_preload(["tests.imported_libraries"])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (workers.STEADY_MEMORY | workers.QUIET_THREADS | workers.AT_ONCE | workers.OFFLINE).items():
            patch.setenv(name, value)
        forkserver.ensure_running()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "subprocess", SimpleNamespace(Popen=start, PIPE=subprocess.PIPE))
        patch.setattr(processes, "multiprocessing", SimpleNamespace(get_context=Context))
        yield
