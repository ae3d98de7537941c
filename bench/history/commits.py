"""``git bisect run`` over the commits between two releases, in a worktree of its own that is removed at the end."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError

# What git sets for the commands that it runs; they would turn other git commands to the wrong repository.
_OF_GIT = re.compile(r"GIT_(DIR|WORK_TREE|INDEX_FILE|PREFIX|COMMON_DIR|OBJECT_DIRECTORY|NAMESPACE|CEILING_DIRECTORIES)")
_FIRST_BAD = re.compile(r"^# first bad commit: \[(?P<commit>[0-9a-f]+)\] (?P<subject>.*)$", re.MULTILINE)
_POSSIBLE = re.compile(r"^# possible first bad commit: \[(?P<commit>[0-9a-f]+)\] (?P<subject>.*)$", re.MULTILINE)
_LEFT = re.compile(r"^Bisecting: .*left to test.*")


class CommitsError(BenchError):
    """The commits cannot be searched; one sentence with the reason."""


@dataclass(frozen=True)
class Commit:
    name: str
    subject: str

    def __str__(self) -> str:
        return f"{self.name[:10]} ({self.subject})"


@dataclass(frozen=True)
class FoundCommit:
    """What ``git bisect`` found.

    Attributes:
        first_bad: ``None`` if it was not found.
        possible: commits that it may be, where some could not be tried.
        words: git's last ones if it found nothing.
    """

    first_bad: Commit | None
    possible: tuple[Commit, ...] = ()
    words: str = ""


def without_git_variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not _OF_GIT.fullmatch(name)}


def git(folder: Path, *arguments: str) -> str:
    """What a git command prints.

    Raises:
        CommitsError: git refused; the sentence has its last line.
    """
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=without_git_variables())
    except FileNotFoundError:
        raise CommitsError("git, which goes over the commits, is not installed.") from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()[-1]
        raise CommitsError(f"git {arguments[0]} in {folder}: {said}")
    return done.stdout.strip()


def tag_of(repo: Path, library: str, release: str) -> str:
    """The tag of a release: ``v0.42.1``, ``0.42.1``, or either after the library's name and a hyphen.

    Raises:
        CommitsError: this is no repository, or it has no such tag.
    """
    try:
        git(repo, "rev-parse", "--git-dir")
    except CommitsError as error:
        raise CommitsError(f"--repo {repo}: give a git checkout of {library} ({error}).") from None
    names = [f"v{release}", release, f"{library}-{release}", f"{library}-v{release}"]
    tags = set(git(repo, "tag", "--list", *names).splitlines())
    for name in names:
        if name in tags:
            return name
    raise CommitsError(f"--repo {repo}: has no tag {' or '.join(names[:2])}; fetch its tags (git fetch --tags).")


@contextlib.contextmanager
def worktree_at(repo: Path, commit: str) -> Iterator[Path]:
    """A temporary worktree of a repository; the user's own work tree, index and branch stay as they are."""
    with tempfile.TemporaryDirectory(prefix="bisect-") as folder:
        place = Path(folder) / "worktree"
        git(repo, "worktree", "add", "--detach", str(place), commit)
        try:
            yield place
        finally:
            with contextlib.suppress(CommitsError):
                git(repo, "worktree", "remove", "--force", "--force", str(place))
                git(repo, "worktree", "prune")


def find_commit(
    worktree: Path, good: str, bad: str, command: Sequence[str], tell: Callable[[str], None]
) -> FoundCommit:
    """``git bisect run``: the command exits 0 for good, 1 for bad, 125 where it cannot tell, 128 to stop.

    Args:
        worktree: whose commit is changed from step to step.
        tell: told what git and the command print, a line at a time.

    Raises:
        CommitsError: git cannot begin: a commit is not there, or the good one does not come before the bad one.
    """
    git(worktree, "bisect", "start", bad, good)
    lines = list(_run(worktree, command, tell))
    log = git(worktree, "bisect", "log")
    git(worktree, "bisect", "reset")
    if found := _FIRST_BAD.search(log):
        return FoundCommit(Commit(found["commit"], found["subject"]))
    possible = tuple(Commit(one["commit"], one["subject"]) for one in _POSSIBLE.finditer(log))
    return FoundCommit(None, possible, next((line for line in reversed(lines) if line.strip()), ""))


def _run(worktree: Path, command: Sequence[str], tell: Callable[[str], None]) -> Iterator[str]:
    started = ["git", "-C", str(worktree), "bisect", "run", *command]
    with subprocess.Popen(
        started,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        env=without_git_variables(),
    ) as process:
        assert process.stdout
        for line in process.stdout:
            text = line.rstrip()
            yield text
            if text.startswith("  ") or _LEFT.match(text):
                tell(text)


def as_shell_command(folder: Path, words: Sequence[str]) -> list[str]:
    """A command that runs in another folder than the one in which ``git bisect run`` starts it."""
    return ["sh", "-c", f"cd {shlex.quote(str(folder))} && exec {shlex.join(words)}"]
