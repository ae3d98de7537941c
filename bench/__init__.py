"""Benchmark and regression suite for Stable Diffusion and DDPM pipelines."""

import sys
from types import TracebackType


def _end_interrupted_start(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Ctrl-C ends a command with pytest's exit code, 2, and one line, also while its libraries are imported."""
    if not issubclass(kind, KeyboardInterrupt):
        return sys.__excepthook__(kind, error, traceback)
    print("interrupted", file=sys.stderr)
    raise SystemExit(2)


# Python names a command so until it has found the module, which is after this package is imported.
if sys.argv[:1] == ["-m"]:
    sys.excepthook = _end_interrupted_start
