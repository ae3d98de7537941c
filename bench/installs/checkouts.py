"""The files of a checkout that count: those that git knows, without what a build left there.

A checkout is built from a copy of these files. A build in its own folder would also install modules that were deleted
since the last build (setuptools keeps them in ``build/lib``), and would write there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bench.installs.git import GitFailed, git_output
from bench.installs.uv import EnvironmentFailed

_BUILT_THINGS = {"build", "dist", "__pycache__", "node_modules"}


@dataclass(frozen=True)
class Checkout:
    """A folder with a project.

    Attributes:
        folder: where its ``pyproject.toml`` or ``setup.py`` is.
        root: top of the git work tree that has it; the folder itself where git does not know it.
        commit: that is checked out; empty if there is no commit.
        files: relative to the root: all that git tracks, and what is new in the folder and not ignored.
    """

    folder: Path
    root: Path
    commit: str
    files: tuple[Path, ...]

    def copy_to(self, target: Path) -> Path:
        """Copies it into a folder that does not exist, and returns the copy of its own folder.

        Its commits and tags come along, by reference, since some builds take the version from them.

        Raises:
            EnvironmentFailed: git cannot clone its repository.
        """
        if self.commit:
            try:
                git_output(self.root, "clone", "--quiet", "--shared", "--no-checkout", str(self.root), str(target))
                index = os.fsdecode(git_output(self.root, "rev-parse", "--git-path", "index")).strip()
            except GitFailed as error:
                raise EnvironmentFailed(f"{self.folder} cannot be copied: git clone: {error}.") from None
            shutil.copyfile(self.root / index, target / ".git" / "index")
        for name in self.files:
            place = target / name
            place.parent.mkdir(parents=True, exist_ok=True)
            _copy(self.root / name, place, self.root)
        copy = target / self.folder.relative_to(self.root)
        copy.mkdir(parents=True, exist_ok=True)
        return copy

    def content(self, root: Path) -> str:
        """A hash over its commit, from which some builds take the version, and over its files as they are in ``root``.

        Args:
            root: of this checkout, or of a copy of it.
        """
        digest = hashlib.sha256(self.commit.encode())
        for name in self.files:
            digest.update(f"\0{name}\0".encode(errors="surrogateescape"))
            path = root / name
            if path.is_file():
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
            else:
                digest.update(os.fsencode(os.readlink(path)))
        return digest.hexdigest()


def read_checkout(folder: Path) -> Checkout:
    """What a checkout has now; nothing is written there."""
    folder = Path(os.path.realpath(folder))
    try:
        tracked = git_output(folder, "ls-files", "-z", "--cached")
        root = Path(os.path.realpath(os.fsdecode(git_output(folder, "rev-parse", "--show-toplevel")).strip()))
    except GitFailed:
        tracked = b""
    if not tracked:  # in no repository, or in one of something else
        found = (path.relative_to(folder) for path in folder.rglob("*"))
        return Checkout(folder, folder, "", _existing(folder, (name for name in found if not _is_built(name))))
    new = _names(git_output(folder, "ls-files", "-z", "--others", "--exclude-standard", "--full-name"))
    names = [*_tracked(root), *(name for name in new if not _is_built(name))]
    return Checkout(folder, root, _commit(folder), _existing(root, names))


def _tracked(root: Path) -> list[Path]:
    try:
        return _names(git_output(root, "ls-files", "-z", "--cached", "--recurse-submodules"))
    except GitFailed:  # of a submodule
        return _names(git_output(root, "ls-files", "-z", "--cached"))


def _commit(folder: Path) -> str:
    try:
        return git_output(folder, "rev-parse", "HEAD").decode().strip()
    except GitFailed:
        return ""


def _names(listed: bytes) -> list[Path]:
    return [Path(os.fsdecode(name)) for name in listed.split(b"\0") if name]


def _existing(root: Path, names: Iterable[Path]) -> tuple[Path, ...]:
    return tuple(sorted({name for name in names if (root / name).is_file() or (root / name).is_symlink()}))


def _is_built(name: Path) -> bool:
    return any(part in _BUILT_THINGS or part.endswith(".egg-info") or part.startswith(".") for part in name.parts)


def _copy(source: Path, place: Path, root: Path) -> None:
    if not source.is_symlink():
        shutil.copy2(source, place)
        return
    target = Path(os.path.realpath(source))
    place.symlink_to(os.readlink(source) if target.is_relative_to(root) else target)
