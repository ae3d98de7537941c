"""Which files of several packages folders may be linked into one.

Python imports a library from the first folder on its search path that has it. If a second release were linked into the
same folder, its files would mix with those of the first.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution
from pathlib import Path

from packaging.utils import canonicalize_name

from bench.installs.uv import EnvironmentFailed

METADATA = (".dist-info", ".egg-info")


@dataclass(frozen=True)
class PackagesFolder:
    """A packages folder, as ``site-packages``.

    Attributes:
        hidden: paths of libraries that an earlier folder has too.
    """

    path: Path
    hidden: frozenset[Path] = frozenset()


def visible_packages(folders: Sequence[Path]) -> Iterator[PackagesFolder]:
    """The folders that exist, each without the libraries that one before it has.

    Args:
        folders: in the order of the search path.

    Raises:
        EnvironmentFailed: a folder has two releases of one library, or the files of a hidden release are unknown.
    """
    found_in: dict[str, Path] = {}
    seen: set[str] = set()
    for folder in folders:
        place = os.path.realpath(folder)
        if place in seen or not folder.is_dir():
            continue
        seen.add(place)
        libraries = _libraries_in(folder)
        hidden: set[Path] = set()
        for name, library in libraries.items():
            if name in found_in:
                hidden |= _files_of(name, library, folder, found_in[name])
            else:
                found_in[name] = folder
        yield PackagesFolder(folder, frozenset(hidden))


def has_libraries(folder: Path) -> bool:
    return folder.is_dir() and any(path.suffix in METADATA for path in folder.iterdir())


def _libraries_in(folder: Path) -> dict[str, Path]:
    """The metadata folder, or file, of each library."""
    found: dict[str, Path] = {}
    versions: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix not in METADATA:
            continue
        metadata = Distribution.at(path).metadata
        name, version = metadata["Name"], metadata["Version"]
        if not name or not version:
            continue
        name = canonicalize_name(name)
        if versions.setdefault(name, version) != version:
            raise EnvironmentFailed(
                f"{name} is installed twice in {folder} ({versions[name]} and {version}); reinstall it there."
            )
        found[name] = path
    return found


def _files_of(name: str, metadata: Path, folder: Path, first: Path) -> set[Path]:
    """The paths of a library in its folder.

    Raises:
        EnvironmentFailed: they are not known.
    """
    library = Distribution.at(metadata)
    listed = library.files
    if listed is not None:
        return {metadata, *(folder / path for path in listed)}
    tops = (library.read_text("top_level.txt") or name.replace("-", "_")).split()
    modules = {path for path in folder.iterdir() if path.name.partition(".")[0] in tops and path.suffix not in METADATA}
    if not modules:
        raise EnvironmentFailed(
            f"{name} is installed in {first} and in {folder}, where it has no list of its files; uninstall one of them."
        )
    return {metadata, *modules}
