"""The commits between two releases, and a temporary worktree to check them out in."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError
from bench.installs.git import GitFailed, git_output


class CommitsError(BenchError):
    """The commits cannot be searched; one sentence with the reason."""


@dataclass(frozen=True)
class Commit:
    name: str
    subject: str

    def __str__(self) -> str:
        return f"{self.name[:10]} ({self.subject})"


def git(folder: Path, *arguments: str) -> str:
    """What a git command prints.

    Raises:
        CommitsError: git failed; the sentence has its last line.
    """
    try:
        return os.fsdecode(git_output(folder, *arguments)).strip()
    except GitFailed as error:
        raise CommitsError(f"git {arguments[0]} in {folder}: {error}") from None


def tag_of(repo: Path, library: str, release: str) -> str:
    """The tag of a release: ``v0.42.1``, ``0.42.1``, or either after the library's name and a hyphen.

    Raises:
        CommitsError: this is not a repository, or it has no such tag.
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
    """A temporary worktree of a repository; the user's work tree, index and branch stay as they are."""
    with tempfile.TemporaryDirectory(prefix="bisect-") as folder:
        place = Path(folder) / "worktree"
        git(repo, "worktree", "add", "--detach", str(place), commit)
        try:
            yield place
        finally:
            with contextlib.suppress(CommitsError):
                git(repo, "worktree", "remove", "--force", "--force", str(place))
                git(repo, "worktree", "prune")


def check_out(worktree: Path, commit: Commit) -> None:
    """Checks out a commit in a worktree and removes all other files.

    Raises:
        CommitsError: git failed.
    """
    git(worktree, "checkout", "--quiet", "--force", "--detach", commit.name)
    git(worktree, "clean", "-ffdxq")


def commit_at(repo: Path, name: str) -> Commit:
    """The commit of a tag or another name.

    Raises:
        CommitsError: it does not exist.
    """
    found, _, subject = git(repo, "show", "--no-patch", "--format=%H %s", f"{name}^{{commit}}").partition(" ")
    return Commit(found, subject)


def commits_between(repo: Path, old: Commit, new: Commit) -> tuple[Commit, ...]:
    """The commits after ``old`` up to and including ``new``, along first parents, oldest first.

    Raises:
        CommitsError: git failed.
    """
    listed = git(repo, "rev-list", "--first-parent", "--reverse", "--format=%H %s", f"{old.name}..{new.name}")
    lines = (line.partition(" ") for line in listed.splitlines())
    return tuple(Commit(name, subject) for name, _, subject in lines if name != "commit")


def branching_point(repo: Path, one: Commit, other: Commit) -> Commit:
    """The newest common ancestor.

    Raises:
        CommitsError: they have none, as in a shallow clone.
    """
    try:
        return commit_at(repo, git(repo, "merge-base", one.name, other.name))
    except CommitsError:
        raise CommitsError(
            f"{one} and {other} have no commit in common; fetch the history (git fetch --unshallow)."
        ) from None


def merged_commits(repo: Path, merge: Commit) -> tuple[Commit, ...]:
    """The commits that a merge brought in, oldest first; empty if it is not a merge of two branches.

    Raises:
        CommitsError: git failed.
    """
    parents = git(repo, "show", "--no-patch", "--format=%P", merge.name).split()
    return commits_between(repo, *(Commit(name, "") for name in parents)) if len(parents) == 2 else ()
