"""Runs a function in a separate process, and says in one sentence how a process ended too early.

The process has an empty folder for temporary files and compile caches, which is removed when it ends. Processes that
it started end with it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from bench.errors import BenchError

Result = TypeVar("Result")
Method = Literal["spawn", "fork"]

LAST_WORDS = 3
# A process that has closed its pipe ends immediately, unless something delays it.
ENDING_S = 10.0
NOTHING: Mapping[str, str] = MappingProxyType({})


class ProcessDied(BenchError):
    """A process ended before its function did."""


class Child(Iterator[Result]):
    """A process and the results of its function, one by one as they come.

    Attributes:
        receiver: ready when a result has come or the process has ended; for ``multiprocessing.connection.wait``.
    """

    def __init__(self, process: Any, receiver: Connection, log: Path) -> None:
        self.receiver = receiver
        self._process = process
        self._log = log

    def __next__(self) -> Result:
        """Raises:
        ProcessDied: the process ended, or its function raised, before it gave another result.
        """
        try:
            done, result = self.receiver.recv()
        except (EOFError, OSError):  # at the start of a message, or within one
            raise ProcessDied(f"its process {self._ending()}") from None
        if done:
            raise StopIteration
        return result

    def kill(self) -> None:
        """Ends the process and all that it started; does nothing if it has ended."""
        if self.receiver.closed:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()  # it may not lead a group yet
        self._process.join()
        self.receiver.close()

    def _ending(self) -> str:
        ended = wait([self._process.sentinel], ENDING_S)
        self.kill()
        words = last_words(self._log)
        how = describe_exit(self._process.exitcode) if ended else "closed its output"
        return f"{how}; its last words: {words}" if words else how

    def printed(self) -> str:
        """What the process has printed so far."""
        return self._log.read_text(errors="replace")


@contextlib.contextmanager
def started(
    function: Callable[..., Iterable[Result]],
    *arguments: Any,
    environment: Mapping[str, str] = NOTHING,
    method: Method = "spawn",
) -> Iterator[Child[Result]]:
    """A process that yields the results of ``function(*arguments)``; it ends with the block.

    Args:
        function: defined in a module, so that a fresh process can import it.
        environment: variables that are set before that module is imported.
        method: ``spawn`` for a fresh process; ``fork`` for a copy of this one, which must have started no threads.
    """
    context: Any = multiprocessing.get_context(method)
    with tempfile.TemporaryDirectory(prefix="process-", ignore_cleanup_errors=True) as folder:
        receiver, sender = context.Pipe(duplex=False)
        call: Any = (function, arguments)
        if method == "spawn":
            call = pickle.dumps(call)
        process = context.Process(target=_run, args=(call, dict(environment), sender, folder), daemon=True)
        process.start()
        sender.close()
        child: Child[Result] = Child(process, receiver, _log(folder))
        try:
            yield child
        finally:
            child.kill()


def call(
    function: Callable[..., Result], *arguments: Any, environment: Mapping[str, str] = NOTHING, shows: bool = False
) -> Result:
    """What ``function(*arguments)`` returns in a fresh process.

    Args:
        environment: as in ``started``.
        shows: whether its output is printed to stderr when it has ended.

    Raises:
        ProcessDied: the process ended without a result.
        Exception: what the function raised, with the traceback of its process as a note.
    """
    with started(_outcome, function, arguments, environment=environment) as child:
        try:
            result, error = next(child)
        finally:
            if shows:
                sys.stderr.write(child.printed())
    if error:
        raise error
    return result


def _outcome(function: Callable[..., Result], arguments: tuple[Any, ...]) -> Iterator[tuple[Any, Exception | None]]:
    """The result of a function, or what it raised."""
    try:
        yield function(*arguments), None
    except Exception as error:
        error.add_note(f"In its process:\n{traceback.format_exc()}")
        yield None, _portable(error)


def _portable(error: Exception) -> Exception:
    """The exception itself if it can be pickled, else one with its type and text."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _run(call: Any, environment: dict[str, str], sender: Connection, folder: str) -> None:
    """Runs in the process. A fresh one imports the function here, when its environment and its log are set."""
    os.setsid()
    log = os.open(_log(folder), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    sys.stdout = sys.stderr = os.fdopen(log, "w", buffering=1, errors="backslashreplace")
    tempfile.tempdir = folder
    os.environ |= environment | {"TMPDIR": folder, "TORCHINDUCTOR_CACHE_DIR": str(Path(folder) / "inductor")}
    if environment and "torch" in sys.modules:
        raise SystemExit(f"torch was imported before {', '.join(environment)} could be set")
    function, arguments = pickle.loads(call) if isinstance(call, bytes) else call
    for result in function(*arguments):
        sender.send((False, result))
    sender.send((True, None))


def _log(folder: str) -> Path:
    return Path(folder) / "log"


def describe_exit(status: int | None) -> str:
    """How a process ended, from its exit code: that of a signal is negative, as in ``subprocess``."""
    if status is None:
        return "ended"
    if status >= 0:
        return f"ended with exit code {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


def last_words(log: Path) -> str:
    """The last lines of what a process printed, in one line."""
    try:
        lines = log.read_bytes().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return " | ".join(line.strip() for line in lines[-LAST_WORDS:] if line.strip())
