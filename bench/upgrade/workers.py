"""Handles of the worker processes: start, ask, and end them, whatever happens to them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.calls.processes import describe_exit, last_words
from bench.errors import BenchError
from bench.installs.variables import FOREIGN_PATHS, OWN_LIBRARIES
from bench.upgrade.protocol import Channel, Closed, TimedOut

ROOT = Path(__file__).parents[2]
SIDES = ("baseline", "candidate")
# The program of a worker; another one must answer the same requests.
WORKER = "bench.upgrade.worker"
# A side that has not answered by then hangs: even a long call on a slow processor is done.
TIMEOUT_S = 600.0

# Idle threads must not spin: the other side measures meanwhile.
QUIET_THREADS = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "KMP_BLOCKTIME": "0",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
# Where its memory happens to lie gives each process a speed of its own; huge pages and a heap that is not given back
# between operators take most of that away (glibc 2.35 and newer; others ignore the names).
STEADY_MEMORY = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
    "MALLOC_TOP_PAD_": str(2**26),
}
# Without its bytecode a library is compiled again in every process, which takes seconds.
UNWANTED = {"PYTHONDONTWRITEBYTECODE", *FOREIGN_PATHS}
# What a worker printed last must not be lost in a buffer when it dies.
AT_ONCE = {"PYTHONUNBUFFERED": "1"}
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


# How the message on a process that was lost starts; that on one that raised starts with the type of the exception.
ITS_PROCESS = "its process"


class WorkerBroken(BenchError):
    """A side could not do what was asked; one sentence with its last words.

    Attributes:
        alive: whether its process still answers: it raised, and was not killed.
        side: the name of its side.
    """

    def __init__(self, message: str, *, alive: bool, side: str) -> None:
        super().__init__(message)
        self.alive = alive
        self.side = side


def is_loss(error: str | None) -> bool:
    """Whether the message of a ``WorkerBroken`` says that its process was killed, ended or hung, not that it raised."""
    return error is not None and error.startswith(ITS_PROCESS)


@dataclass
class WorkerProcess:
    """The first process of a side, and the channel to it or to the child that it forked.

    Attributes:
        timeout_s: longest silence after a request.
        program: module that it runs.
        import_s: seconds that importing the libraries took.
        imported: the libraries that it imported; see ``check_imports``.
    """

    name: str
    python: Path
    process: subprocess.Popen[bytes]
    channel: Channel
    log: Path
    timeout_s: float
    forks: bool
    program: str = WORKER
    import_s: float = 0.0
    imported: dict[str, dict[str, str]] = field(default_factory=dict)

    def ask(self, do: str, **request: Any) -> tuple[dict[str, Any], tuple[bytes, ...]]:
        """Sends a request and waits for the reply.

        Raises:
            WorkerBroken: it raised, died, or was silent for longer than ``timeout_s``.
        """
        self.send(do=do, **request)
        return self.reply()

    def send(self, **header: Any) -> None:
        try:
            self.channel.send(header)
        except Closed:
            raise self._broken("ended") from None

    def reply(self) -> tuple[dict[str, Any], tuple[bytes, ...]]:
        try:
            header, blobs = self.channel.receive(self.timeout_s)
        except TimedOut:
            raise self._broken(f"gave no answer for {self.timeout_s:g} s and was stopped") from None
        except (Closed, ValueError) as error:
            raise self._broken(f"was stopped: {error}" if str(error) else "ended") from None
        if "error" in header:
            raise WorkerBroken(f"{header['error']}: {header['message']}", alive=True, side=self.name)
        if header.get("ended"):
            raise self._broken(describe_exit(header["ended"]))
        return header, blobs

    def _broken(self, what: str) -> WorkerBroken:
        status = self.process.poll()
        self.kill()
        if status is not None and what == "ended":
            what = describe_exit(status)
        words = last_words(self.log)
        last = f"; its last words: {words}" if words else ""
        return WorkerBroken(f"{ITS_PROCESS} {what}{last}", alive=False, side=self.name)

    def kill(self) -> None:
        """Ends the process, its children and the channel; nothing is left of them."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.channel.close()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()


@contextlib.contextmanager
def started_worker(
    name: str, python: Path, timeout_s: float, *, forks: bool = True, program: str = WORKER
) -> Iterator[WorkerProcess]:
    """A worker of this interpreter that has imported the libraries; it ends with the block.

    Args:
        forks: whether fresh processes are its forked children; see ``fresh``.
        program: module that it runs.

    Raises:
        WorkerBroken: the libraries cannot be imported.
    """
    with tempfile.TemporaryDirectory(prefix="worker-") as folder:
        worker = _start(name, python, timeout_s, Path(folder) / "log", forks=forks, program=program)
        try:
            reply, _ = worker.ask("import")
            worker.import_s, worker.imported = reply["import_s"], reply["imported"]
            yield worker
        finally:
            worker.kill()


def _start(name: str, python: Path, timeout_s: float, log: Path, *, forks: bool, program: str) -> WorkerProcess:
    environment = {key: value for key, value in os.environ.items() if key not in UNWANTED}
    with log.open("wb") as words:
        process = subprocess.Popen(
            [str(python), "-m", program],
            cwd=ROOT,
            env=STEADY_MEMORY | environment | QUIET_THREADS | AT_ONCE | OFFLINE | OWN_LIBRARIES,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=words,
            start_new_session=True,
        )
    assert process.stdin
    assert process.stdout
    channel = Channel(process.stdout.fileno(), process.stdin.fileno())
    return WorkerProcess(name, python, process, channel, log, timeout_s, forks, program)


@contextlib.contextmanager
def fresh(worker: WorkerProcess) -> Iterator[WorkerProcess]:
    """A new process of this side, with the libraries imported and nothing loaded; it ends with the block.

    A forked child where the device allows that, which saves the seconds of importing; else a new interpreter.

    Raises:
        WorkerBroken: the process did not come up, or did not end as asked.
    """
    if not worker.forks:
        started = started_worker(worker.name, worker.python, worker.timeout_s, forks=False, program=worker.program)
        with started as process:
            yield process
        return
    worker.ask("fork")
    try:
        yield worker
    except BaseException:
        worker.kill()
        raise
    worker.send(do="end")
    worker.reply()


@contextlib.contextmanager
def fresh_pair(workers: Sequence[WorkerProcess]) -> Iterator[list[WorkerProcess]]:
    """``fresh`` of each side, all started at the same moment.

    Raises:
        WorkerBroken: as ``fresh``.
    """
    contexts = [fresh(worker) for worker in workers]
    with contextlib.ExitStack() as stack:
        with ThreadPoolExecutor() as pool:
            entered = [pool.submit(context.__enter__) for context in contexts]
        for context, one in zip(contexts, entered, strict=True):
            if not one.exception():
                stack.push(context)
        yield [one.result() for one in entered]


class Sides:
    """The first processes of all sides; one that is gone is started again when it is needed.

    Args:
        pythons: interpreter of each side, by name.
        forks, program: as in ``started_worker``.
    """

    def __init__(
        self, pythons: Mapping[str, Path], timeout_s: float, *, forks: bool = True, program: str = WORKER
    ) -> None:
        self.pythons = pythons
        self._timeout_s = timeout_s
        self.forks = forks
        self._program = program
        self._stacks: dict[str, contextlib.ExitStack] = {}
        self._workers: dict[str, WorkerProcess] = {}

    def __enter__(self) -> Sides:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop(*self.pythons)

    def _stop(self, *names: str) -> None:
        for name in names:
            self._workers.pop(name, None)
            self._stacks.pop(name, contextlib.ExitStack()).close()

    def take(self) -> list[WorkerProcess]:
        """The first processes of all sides; those that are not there are started together.

        Raises:
            WorkerBroken: the libraries of a side cannot be imported; says which.
        """
        gone = [name for name in self.pythons if not self._is_there(name)]
        self._stop(*gone)
        with ThreadPoolExecutor() as pool:
            for start in [pool.submit(self._start, name) for name in gone]:
                start.result()
        return [self._workers[name] for name in self.pythons]

    def process(self, name: str) -> WorkerProcess:
        """The first process of one side.

        Raises:
            WorkerBroken: its libraries cannot be imported.
        """
        if not self._is_there(name):
            self._stop(name)
            self._start(name)
        return self._workers[name]

    def renewed(self) -> list[WorkerProcess]:
        """New first processes of all sides.

        Raises:
            WorkerBroken: the libraries of a side cannot be imported; says which.
        """
        self._stop(*self.pythons)
        return self.take()

    def _is_there(self, name: str) -> bool:
        return name in self._workers and self._workers[name].process.poll() is None

    def _start(self, name: str) -> None:
        started = started_worker(name, self.pythons[name], self._timeout_s, forks=self.forks, program=self._program)
        stack = self._stacks[name] = contextlib.ExitStack()
        self._workers[name] = stack.enter_context(started)
