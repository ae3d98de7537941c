"""A clone of the current environment: a new virtual environment with links to its files."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.installs.installed import PythonPlace, look, python_of
from bench.installs.packages import METADATA, has_libraries, visible_packages
from bench.installs.uv import FULL_DISK, run_uv


def make_clone(current: PythonPlace, part: Path, folder: Path, asked: str) -> None:
    """A virtual environment in ``part`` with everything that the current one has; ``folder`` is where it will be moved.

    Raises:
        EnvironmentFailed: uv fails, or the packages folders cannot be merged.
    """
    clone = _make_venv(current, part, asked)
    for packages in visible_packages(current.packages):
        _link_all(packages.path, clone.purelib, packages.hidden)
    if current.own_scripts:
        _link_scripts(current.scripts, clone.scripts, folder / clone.scripts.relative_to(part))


@contextlib.contextmanager
def python_for_uv(current: PythonPlace, asked: str) -> Iterator[Path]:
    """A Python for which uv sees everything that is installed: uv looks at only one packages folder of a Python.

    It is the current one where that folder has everything. Else, as in a virtual environment with the system's
    packages, it is that of a temporary clone with nothing but the metadata.

    Raises:
        EnvironmentFailed: the packages folders cannot be merged.
    """
    own = os.path.realpath(current.purelib)
    if not any(os.path.realpath(folder) != own and has_libraries(folder) for folder in current.packages):
        yield current.python
        return
    with tempfile.TemporaryDirectory(prefix="plan-") as folder:
        clone = _make_venv(current, Path(folder) / "clone", asked)
        for packages in visible_packages(current.packages):
            for path in packages.path.iterdir():
                place = clone.purelib / path.name
                if path.suffix not in METADATA or path in packages.hidden or os.path.lexists(place):
                    continue
                if path.is_dir():
                    _link_all(path, place)
                else:
                    _link(path, place)
        yield clone.python


def _make_venv(current: PythonPlace, folder: Path, asked: str) -> PythonPlace:
    venv = ["venv", "--relocatable", "--no-project", "--python", str(current.python), str(folder)]
    run_uv(venv, asked, lambda line: None)
    return look(python_of(folder))


def _link_all(source: Path, target: Path, hidden: frozenset[Path] = frozenset()) -> None:
    """Links a folder's files into another folder; files that exist there stay.

    Bytecode is left out: Python would use that of the old release for a new file with the same size and time.
    """
    target.mkdir(exist_ok=True)
    with os.scandir(source) as entries:
        for entry in entries:
            path, place = Path(entry.path), target / entry.name
            if path in hidden:
                continue
            if entry.is_dir(follow_symlinks=False):
                if entry.name != "__pycache__":
                    _link_all(path, place, hidden)
            elif not os.path.lexists(place):
                _link(path, place)


def _link(source: Path, place: Path) -> None:
    if source.is_symlink():
        place.symlink_to(os.readlink(source))
        return
    try:
        os.link(source, place)
    except OSError as error:
        if error.errno in FULL_DISK:
            raise
        shutil.copy2(source, place)  # on another file system, or one without links


def _link_scripts(source: Path, target: Path, final: Path) -> None:
    """Links the commands; those whose first line names the old Python are copied and name the new one."""
    for path in source.iterdir():
        place = target / path.name
        if os.path.lexists(place) or path.is_symlink() or not path.is_file():
            continue
        content = path.read_bytes() if path.stat().st_size < 100_000 else b""
        if content.startswith(b"#!") and os.fsencode(source) in content:
            place.write_bytes(content.replace(os.fsencode(source), os.fsencode(final)))
            place.chmod(0o755)
        else:
            _link(path, place)
