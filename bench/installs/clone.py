"""A clone of the current environment: its files are linked, not copied, into a virtual environment of its own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from bench.installs.installed import PythonPlace, look, python_of
from bench.installs.uv import FULL_DISK, run_uv


def make_clone(current: PythonPlace, part: Path, folder: Path, asked: str) -> None:
    """A virtual environment with all that the current one has, which will be moved to ``folder``."""
    run_uv(
        ["venv", "--relocatable", "--no-project", "--python", str(current.python), str(part)], asked, lambda line: None
    )
    clone = look(python_of(part))
    for packages in current.packages:
        if packages.is_dir():
            _link_all(packages, clone.purelib)
    if current.own_scripts:
        _link_scripts(current.scripts, clone.scripts, folder / clone.scripts.relative_to(part))


def _link_all(source: Path, target: Path) -> None:
    """Links a folder's files into another folder; what is there already stays.

    Compiled files are left out: Python would take one of the old release for one of the new that has its size and time.
    """
    target.mkdir(exist_ok=True)
    with os.scandir(source) as entries:
        for entry in entries:
            place = target / entry.name
            if entry.is_dir(follow_symlinks=False):
                if entry.name != "__pycache__":
                    _link_all(Path(entry.path), place)
            elif not os.path.lexists(place):
                _link(Path(entry.path), place)


def _link(source: Path, place: Path) -> None:
    if source.is_symlink():
        place.symlink_to(os.readlink(source))
        return
    try:
        os.link(source, place)
    except OSError as error:
        if error.errno in FULL_DISK:
            raise
        shutil.copy2(source, place)  # another file system, or one without links


def _link_scripts(source: Path, target: Path, final: Path) -> None:
    """The commands, with the new Python in the first line of those that name the old one."""
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
