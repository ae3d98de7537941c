"""Runs git on the repository of a folder, whatever repository git's own variables name."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from bench.errors import BenchError

# Set by git for the commands that it runs; they would point other git commands to the wrong repository.
_OF_GIT = re.compile(r"GIT_(DIR|WORK_TREE|INDEX_FILE|PREFIX|COMMON_DIR|OBJECT_DIRECTORY|NAMESPACE|CEILING_DIRECTORIES)")


class GitFailed(BenchError):
    """git refused, or is not installed; the last line that it printed."""


def git_output(folder: Path, *arguments: str) -> bytes:
    """What a git command prints.

    Raises:
        GitFailed: it did not work.
    """
    variables = {name: value for name, value in os.environ.items() if not _OF_GIT.fullmatch(name)}
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, check=False, env=variables)
    except FileNotFoundError:
        raise GitFailed("git is not installed") from None
    if done.returncode:
        lines = os.fsdecode(done.stderr.strip() or done.stdout.strip() or b"no reason given").splitlines()
        raise GitFailed(lines[-1])
    return done.stdout
