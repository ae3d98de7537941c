"""What is installed in an environment, and what differs between two of them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock
from packaging.utils import canonicalize_name

from bench.installs.uv import EnvironmentFailed
from bench.installs.variables import own_libraries

# Run by the Python of the environment, whatever its version. A library from an index is identified by its version; one
# from elsewhere also by its commit or its installed files (RECORD without the lines that differ between two installs).
_LOOK = """
import hashlib, importlib.metadata, json, os, platform, sys, sysconfig

def origin(found):
    direct = json.loads(found.read_text("direct_url.json") or "{}")
    if "vcs_info" in direct:
        return "git " + direct["vcs_info"]["commit_id"]
    if not direct:
        return ""
    if direct.get("dir_info", {}).get("editable"):
        return "editable " + direct["url"]
    lines = (found.read_text("RECORD") or "").splitlines()
    kept = sorted(line for line in lines if ".dist-info/" not in line and not line.startswith(".."))
    kind = "folder " if "dir_info" in direct else "file "
    return kind + hashlib.sha256("\\n".join(kept).encode()).hexdigest()

libraries, origins = {}, {}
for found in importlib.metadata.distributions():
    name, version = found.metadata["Name"], found.version
    if name and version and name not in libraries:
        libraries[name], origins[name] = version, origin(found)
print(json.dumps({
    "python_version": platform.python_implementation() + " " + platform.python_version(),
    "platform": sysconfig.get_platform(),
    "interpreter": os.path.realpath(sys.base_prefix),
    "scripts": sysconfig.get_path("scripts"),
    "own_scripts": sys.prefix != sys.base_prefix,
    "packages": [path for path in sys.path if os.path.basename(path) in ("site-packages", "dist-packages")],
    "search_path": sys.path,
    "purelib": sysconfig.get_path("purelib"),
    "libraries": libraries,
    "origins": origins,
}))
"""


@dataclass(frozen=True)
class Environment:
    """An environment that is ready to use. One from the cache is not pruned as long as this object exists.

    Attributes:
        python: its interpreter.
        libraries: canonical name and version of everything that is installed.
        origins: commit or content of the libraries that do not come from an index.
        search_path: folders in which it looks for libraries.
        unmet: requirements of its libraries that are not met, one sentence each.
        folder: in the cache; ``None`` for one that was not made by this suite.
    """

    python: Path
    libraries: Mapping[str, str]
    origins: Mapping[str, str] = field(default_factory=dict)
    search_path: tuple[Path, ...] = ()
    unmet: tuple[str, ...] = ()
    folder: Path | None = None
    _use: FileLock | None = field(default=None, repr=False, compare=False)

    def version(self, name: str) -> str | None:
        """The version of a library, with its origin if it does not come from an index."""
        if name not in self.libraries:
            return None
        kind, _, content = self.origins.get(name, "").partition(" ")
        short = content if kind == "editable" else content[:9]
        return f"{self.libraries[name]} ({kind} {short})" if kind else self.libraries[name]


@dataclass(frozen=True)
class Change:
    """A library that differs between two environments; ``None`` where it is not installed."""

    name: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        if self.before is None:
            return f"{self.name} (new) {self.after}"
        return f"{self.name} {self.before} → {self.after or '(removed)'}"


@dataclass(frozen=True)
class PythonPlace:
    """A Python, the folders that it uses, and what identifies it."""

    python: Path
    python_version: str
    platform: str
    interpreter: str
    scripts: Path
    own_scripts: bool
    packages: tuple[Path, ...]
    purelib: Path
    environment: Environment


def changes(before: Environment, after: Environment) -> tuple[Change, ...]:
    """The libraries that differ, by name."""
    names = sorted({*before.libraries, *after.libraries})
    both = (Change(name, before.version(name), after.version(name)) for name in names)
    return tuple(change for change in both if change.before != change.after)


def look(python: Path) -> PythonPlace:
    """What is installed for a Python.

    Raises:
        EnvironmentFailed: it is not a working Python.
    """
    command = [str(python), "-I", "-c", _LOOK]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True, env=own_libraries(os.environ))
        found = json.loads(done.stdout)
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        raise EnvironmentFailed(f"{python} is not a Python that works ({said[-1] if said else error}).") from None
    libraries = {canonicalize_name(name): version for name, version in found["libraries"].items()}
    origins = {canonicalize_name(name): origin for name, origin in found["origins"].items() if origin}
    return PythonPlace(
        python=python,
        python_version=found["python_version"],
        platform=found["platform"],
        interpreter=found["interpreter"],
        scripts=Path(found["scripts"]),
        own_scripts=found["own_scripts"],
        packages=tuple(Path(path) for path in found["packages"]),
        purelib=Path(found["purelib"]),
        environment=Environment(
            python, dict(sorted(libraries.items())), origins, tuple(Path(path) for path in found["search_path"])
        ),
    )


def python_of(folder: Path) -> Path:
    return folder / "Scripts" / "python.exe" if os.name == "nt" else folder / "bin" / "python"
