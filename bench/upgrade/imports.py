"""Does a side import what is installed in its environment, and do two sides import different files?"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from bench.errors import BenchError
from bench.installs.installed import Environment, changes
from bench.installs.sources import local_path
from bench.upgrade.worker import VERSIONED

_MODULES = {"pillow": "PIL"}
LIBRARIES = tuple(canonicalize_name({"PIL": "pillow"}.get(module, module)) for module in VERSIONED)
Imported = Mapping[str, Mapping[str, str]]


class WrongImport(BenchError):
    """A side imports something else than its environment has, so it would answer for another release."""


def check_imports(environments: Mapping[str, Environment], imported: Mapping[str, Imported]) -> None:
    """Checks both sides of an upgrade.

    Args:
        environments: of each side, by name.
        imported: what the worker of each side imported: version and file by module.

    Raises:
        WrongImport: a version or a file is not that of the environment, or a library that differs between the
            environments has the same file on both sides.
    """
    before, after = environments
    differing = changes(environments[before], environments[after])
    for side, environment in environments.items():
        check_side(side, environment, imported[side], (change.name for change in differing))
    for change in differing:
        files = [_import_of(change.name, imported[side]).get("file") for side in (before, after)]
        if files[0] and files[1] and os.path.realpath(files[0]) == os.path.realpath(files[1]):
            raise WrongImport(f"both sides import {change.name} from {files[0]}, but their environments have {change}.")


def check_side(side: str, environment: Environment, imported: Imported, libraries: Iterable[str] = ()) -> None:
    """Checks one side: the libraries that every side needs, and those named.

    Raises:
        WrongImport: a version or a file is not that of the environment.
    """
    for library in dict.fromkeys((*LIBRARIES, *libraries)):
        found = _import_of(library, imported)
        if "file" not in found:
            continue
        folder = _folder_on_path(found["file"])
        if environment.search_path and not _belongs_to(folder, library, environment):
            raise WrongImport(
                f"the {side} imports {library} from {found['file']}, which is outside its environment "
                f"({environment.python}); remove what adds {folder} to its import path."
            )
        planned = environment.libraries.get(library)
        is_installed = folder.name in ("site-packages", "dist-packages")  # in a source tree the metadata may be older
        if planned and is_installed and "version" in found and not _same_release(found["version"], planned):
            raise WrongImport(
                f"the {side} imports {library} {found['version']} from {found['file']}, but its environment has "
                f"{planned}; reinstall {library} there."
            )


def _import_of(library: str, imported: Imported) -> Mapping[str, str]:
    return imported.get(_MODULES.get(library, library.replace("-", "_")), {})


def _folder_on_path(file: str) -> Path:
    """The folder of the import path in which a top-level module is."""
    path = Path(file)
    folder = path.parent.parent if path.name.startswith("__init__.") else path.parent
    return Path(os.path.realpath(folder))


def _belongs_to(folder: Path, library: str, environment: Environment) -> bool:
    """Whether an environment looks for libraries in this folder, or has the library as an editable install there."""
    kind, _, source = environment.origins.get(library, "").partition(" ")
    checkout = local_path(source) if kind == "editable" else None
    if checkout and folder.is_relative_to(os.path.realpath(checkout)):
        return True
    return folder in {Path(os.path.realpath(path)) for path in environment.search_path}


def _same_release(one: str, other: str) -> bool:
    """Whether two versions are one release: often only one of them has the local part, as in 2.9.0+cu128."""
    try:
        versions = Version(one), Version(other)
    except InvalidVersion:
        return one == other
    locals_ = {version.local for version in versions} - {None}
    return versions[0].public == versions[1].public and len(locals_) < 2
