"""How every command line of the suite ends: with an exit code, and with one line instead of a traceback."""

from __future__ import annotations

import argparse
import os
import select
import sys
from collections.abc import Callable
from typing import NoReturn, ParamSpec

from bench.errors import BenchError

# As in pytest, where it has the code; a shell reports 141 for a program that wrote into a closed pipe.
FAILED, INTERRUPTED, NOTHING_RUN, BROKEN_PIPE = 1, 2, 4, 141

Arguments = ParamSpec("Arguments")


class CommandParser(argparse.ArgumentParser):
    """A parser that ends with pytest's exit code for a mistake in an option."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(NOTHING_RUN, f"{self.prog}: error: {message}\n")


def run_command(
    prog: str, run: Callable[Arguments, int], *arguments: Arguments.args, **keywords: Arguments.kwargs
) -> int:
    """Calls ``run`` with the arguments and returns the exit code of the command.

    Args:
        prog: name of the command, which starts its last line.
        run: returns the exit code. It may raise ``KeyboardInterrupt`` with a text that says what is kept.

    Returns:
        What ``run`` returns; ``NOTHING_RUN`` after a ``BenchError``, ``INTERRUPTED`` after Ctrl-C, or, silently,
        ``BROKEN_PIPE`` if the reader of the output is gone.
    """
    try:
        try:
            code = run(*arguments, **keywords)
        except BenchError as error:
            code = _end(NOTHING_RUN, f"{prog}: {error}")
        except KeyboardInterrupt as stopped:
            code = _end(INTERRUPTED, "; ".join(filter(None, (f"{prog}: interrupted", str(stopped)))))
        sys.stdout.flush()
    except BrokenPipeError:
        if not _output_is_closed():
            raise
        return BROKEN_PIPE
    return code


def _end(code: int, sentence: str) -> int:
    print(" ".join(sentence.splitlines()), file=sys.stderr)
    return code


def _output_is_closed() -> bool:
    """Whether the reader of stdout or stderr is gone; the rest of that output is then discarded."""
    closed = False
    for stream in (sys.stdout, sys.stderr):
        if _is_closed(stream.fileno()):
            closed = True
            # Python flushes again at exit, which would print an error.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return closed


def _is_closed(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, 0)  # errors are always reported
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
