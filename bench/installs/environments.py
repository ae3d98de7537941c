"""From a side to a ready Python environment, kept in a cache.

A change is made in a clone: the current environment's files are linked, not copied, into a virtual environment of its
own, and uv then installs there what was asked. So a clone needs no index for what stays, is the same to the byte even
where an index no longer has a release, and takes little disk.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from filelock import FileLock, Timeout
from packaging.utils import canonicalize_name

from bench.installs.sides import Side
from bench.installs.uv import EnvironmentFailed, run_uv, unmet_requirements

NOTES = "environment.json"
USES = "uses"
PART = ".part"
_KEY = re.compile(r"[0-9a-f]{16}")
_STEP = re.compile(r" (?P<sign>[-+~]) (?P<name>[\w.-]+)(==(?P<version>\S+))?( \(from (?P<from>.+)\)| @ (?P<at>.+))?")
_BUILT_THINGS = {"build", "dist", "__pycache__", "node_modules"}
_FULL = (errno.ENOSPC, errno.EDQUOT)

# Run by the Python that is looked at, whichever version it has. A library from an index is known by its version; one
# from elsewhere also by its commit or by what is installed of it (RECORD without what differs between two installs).
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
    "purelib": sysconfig.get_path("purelib"),
    "libraries": libraries,
    "origins": origins,
}))
"""


@dataclass(frozen=True)
class Environment:
    """A ready Python. One of the cache is in use, and not pruned, as long as this object is kept.

    Attributes:
        python: its interpreter.
        libraries: canonical names and versions of everything installed there.
        origins: commit or content of the libraries that come from no index.
        unmet: requirements that its libraries have and that are not met, one sentence each.
        folder: its place in the cache, ``None`` for one that was there before.
    """

    python: Path
    libraries: Mapping[str, str]
    origins: Mapping[str, str] = field(default_factory=dict)
    unmet: tuple[str, ...] = ()
    folder: Path | None = None
    _use: FileLock | None = field(default=None, repr=False, compare=False)

    def version(self, name: str) -> str | None:
        """The version of a library, with its origin where it comes from no index."""
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
class CachedEnvironment:
    """An environment in the cache.

    Attributes:
        asked: the side it was made for.
        changes: what differs from the environment it was cloned from.
        occupied_bytes: disk that it alone takes; files that it shares by links are not counted.
    """

    folder: Path
    asked: str
    changes: tuple[Change, ...]
    occupied_bytes: int
    last_used: datetime


@dataclass(frozen=True)
class _Place:
    """Where a Python keeps what is installed, and what makes two of them alike."""

    python: Path
    python_version: str
    platform: str
    interpreter: str
    scripts: Path
    own_scripts: bool
    packages: tuple[Path, ...]
    purelib: Path
    environment: Environment


@dataclass(frozen=True)
class _Step:
    """A library that would be removed (neither version nor source) or installed (one of them)."""

    name: str
    version: str | None
    source: str | None

    def __str__(self) -> str:
        return self.version or f"from {self.source}"


@dataclass(frozen=True)
class _Plan:
    arguments: tuple[str, ...]
    steps: tuple[_Step, ...]

    def describe(self, current: Environment) -> str:
        removed = {step.name for step in self.steps if not (step.version or step.source)}
        wanted = {step.name: str(step) for step in self.steps if step.version or step.source}
        names = sorted(removed | set(wanted))
        return ", ".join(str(Change(name, current.version(name), wanted.get(name))) for name in names)

    def versions(self, current: Environment) -> dict[str, str | None]:
        """What will be installed; no version where it is known only once the library is built."""
        gone = {step.name for step in self.steps}
        kept: dict[str, str | None] = {name: version for name, version in current.libraries.items() if name not in gone}
        return kept | {step.name: step.version for step in self.steps if step.version or step.source}


def environment_of(
    side: Side, cache: Path, announce: Callable[[str], None], base: Path = Path(sys.executable)
) -> Environment:
    """The environment that a side asks for, from the cache where it is there already.

    Args:
        cache: folder of the environments that are made.
        announce: told what is made and how far it is, a short line at a time.
        base: the Python of the current environment, which is only read.

    Raises:
        EnvironmentFailed: a release does not exist, requirements contradict each other, a build fails, no index can be
            reached, the disk is full.
    """
    if side.environment:
        return _look(_python_of(side.environment)).environment
    current = _look(base)
    if side.is_current:
        return current.environment
    plan = _plan(side, current.environment)
    if not plan.steps:
        announce(f"'{side.text}' changes nothing; the current environment is used")
        return current.environment
    try:
        return _cached_or_built(side, plan, current, cache, announce)
    except OSError as error:
        raise EnvironmentFailed(_why_not_written(side, cache, error)) from None


def changes(before: Environment, after: Environment) -> tuple[Change, ...]:
    """The libraries that differ, by name."""
    names = sorted({*before.libraries, *after.libraries})
    both = (Change(name, before.version(name), after.version(name)) for name in names)
    return tuple(change for change in both if change.before != change.after)


def list_environments(cache: Path) -> tuple[CachedEnvironment, ...]:
    """The environments in the cache, the one used last first."""
    found = (_described(folder) for folder in _folders(cache))
    return tuple(sorted(found, key=lambda one: one.last_used, reverse=True))


def prune_environments(cache: Path, announce: Callable[[str], None]) -> int:
    """Removes the environments that nobody uses or makes, and returns how many."""
    _clear_leftovers(cache)
    removed = 0
    for one in list_environments(cache):
        with _lock_at_once(cache, one.folder.name) as locked:
            if locked and not one.folder.exists():
                continue
            if not locked or _in_use(one.folder):
                announce(f"kept '{one.asked}': it is in use")
                continue
            _remove(one.folder)
        removed += 1
        announce(f"removed '{one.asked}' ({one.occupied_bytes / 1e6:,.1f} MB)")
    return removed


def _look(python: Path) -> _Place:
    """What is installed for a Python."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [str(python), "-I", "-c", _LOOK]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True, env=variables)
        found = json.loads(done.stdout)
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        raise EnvironmentFailed(f"{python} is not a Python that works ({said[-1] if said else error}).") from None
    libraries = {canonicalize_name(name): version for name, version in found["libraries"].items()}
    origins = {canonicalize_name(name): origin for name, origin in found["origins"].items() if origin}
    return _Place(
        python=python,
        python_version=found["python_version"],
        platform=found["platform"],
        interpreter=found["interpreter"],
        scripts=Path(found["scripts"]),
        own_scripts=found["own_scripts"],
        packages=tuple(Path(path) for path in found["packages"]),
        purelib=Path(found["purelib"]),
        environment=Environment(python, dict(sorted(libraries.items())), origins),
    )


def _python_of(folder: Path) -> Path:
    return folder / "Scripts" / "python.exe" if os.name == "nt" else folder / "bin" / "python"


def _plan(side: Side, current: Environment) -> _Plan:
    """What uv would change in the current environment, asked without changing it."""
    arguments = [
        *(f"--upgrade-package={name}" for name in side.newest),
        *(f"--requirements={path}" for path in side.files),
        *side.requirements,
    ]
    dry = ["pip", "install", "--dry-run", "--break-system-packages", "--python", str(current.python), *arguments]
    output = run_uv(dry, side.text, lambda line: None)
    return _Plan(tuple(arguments), _steps(output))


def _steps(output: str) -> tuple[_Step, ...]:
    """The changes that uv lists, one for each library."""
    steps: dict[str, _Step] = {}
    for line in output.splitlines():
        if match := _STEP.fullmatch(line):
            name = canonicalize_name(match["name"])
            if match["sign"] == "-":
                steps.setdefault(name, _Step(name, None, None))
            else:
                source = match["from"] or match["at"]
                # uv tells the version of a source only if it built it before: one plan must not differ by that
                steps[name] = _Step(name, None if source else match["version"], source)
    return tuple(steps[name] for name in sorted(steps))


def _key(plan: _Plan, current: _Place) -> str:
    kept = current.environment
    identity = {
        "python": [current.python_version, current.platform, current.interpreter],
        "libraries": plan.versions(kept),
        "origins": {name: origin for name, origin in kept.origins.items() if name not in _names(plan)},
        "sources": {step.name: _content(step.source) for step in plan.steps if step.source},
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def _names(plan: _Plan) -> set[str]:
    return {step.name for step in plan.steps}


def _local_path(source: str) -> Path | None:
    parts = urlsplit(source)
    return Path(url2pathname(unquote(parts.path))) if parts.scheme == "file" else None


def _content(source: str) -> str:
    """What a source is now: a git address has its commit, a file and a checkout are read."""
    path = _local_path(source)
    if path is None:
        return source
    if path.is_file():
        with path.open("rb") as file:
            return f"{source} {hashlib.file_digest(file, 'sha256').hexdigest()}"
    return f"{source} {_hash_of_checkout(path)}"


def _hash_of_checkout(folder: Path) -> str:
    """Over its commit, from which some builds take the version, and over every file that is not itself built."""
    head = subprocess.run(["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    digest = hashlib.sha256(head.stdout.encode() if head.returncode == 0 else b"")
    for path in sorted(_source_files(folder)):
        digest.update(f"\0{path.relative_to(folder)}\0".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _source_files(folder: Path) -> Iterator[Path]:
    listing = ["git", "-C", str(folder), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, capture_output=True, check=False)
    if listed.returncode == 0:
        names = {os.fsdecode(name) for name in listed.stdout.split(b"\0") if name}
        found = (folder / name for name in names)
    else:
        found = (path for path in folder.rglob("*"))
    for path in found:
        parts = path.relative_to(folder).parts
        built = any(part in _BUILT_THINGS or part.endswith(".egg-info") or part.startswith(".") for part in parts)
        if not built and path.is_file():
            yield path


def _cached_or_built(
    side: Side, plan: _Plan, current: _Place, cache: Path, announce: Callable[[str], None]
) -> Environment:
    cache.mkdir(parents=True, exist_ok=True)
    _clear_leftovers(cache)
    key = _key(plan, current)
    folder = cache / key
    with _lock(cache, key, side, announce):
        environment = _cached(folder, plan, current.environment)
        if environment:
            announce(f"'{side.text}' is in the cache: {plan.describe(current.environment)}")
        else:
            if folder.exists():
                _remove(folder)
            environment = _build(side, plan, current, folder, announce)
        for sentence in environment.unmet:
            announce(f"note: {sentence}")
        return environment


def _cached(folder: Path, plan: _Plan, current: Environment) -> Environment | None:
    """The environment in this folder if it is whole and nobody changed what is installed there."""
    notes = _notes(folder)
    if not notes:
        return None
    try:
        found = _look(_python_of(folder)).environment
    except EnvironmentFailed:
        return None
    if not _as_planned(found, plan, current):
        return None
    with contextlib.suppress(OSError):  # the time of the last use is not worth a failure on a full disk
        _write_notes(folder, notes | {"last_used": _now()})
    return _used(folder, found, tuple(notes["unmet"]))


def _as_planned(found: Environment, plan: _Plan, current: Environment) -> bool:
    wanted = plan.versions(current)
    same = set(found.libraries) == set(wanted)
    return same and all(version in (None, found.libraries[name]) for name, version in wanted.items())


def _build(side: Side, plan: _Plan, current: _Place, folder: Path, announce: Callable[[str], None]) -> Environment:
    """Makes an environment beside its place and moves it there when it is whole."""
    announce(f"making an environment for '{side.text}': {plan.describe(current.environment)}")
    start = time.monotonic()
    part = folder.with_name(folder.name + PART)
    try:
        _clone(current, part, folder, side.text)
        clone = _python_of(part)
        named = [str(path) for path in _checkouts(plan)]  # uv always builds these; others it may have built long ago
        run_uv(["pip", "install", "--python", str(clone), *plan.arguments, *named], side.text, announce)
        found = _look(clone).environment
        if not _as_planned(found, plan, current.environment):
            raise EnvironmentFailed(f"'{side.text}': the index changed while the environment was made; run again.")
        known = unmet_requirements(current.python)
        unmet = tuple(sentence for sentence in unmet_requirements(clone) if sentence not in known)
        made = [asdict(change) for change in changes(current.environment, found)]
        _write_notes(part, {"asked": side.text, "changes": made, "unmet": unmet, "last_used": _now()})
        os.replace(part, folder)
    finally:
        _delete(part)
    seconds = time.monotonic() - start
    announce(f"made in {seconds:.1f} s; it takes {_occupied_bytes(folder) / 1e6:,.1f} MB of disk")
    return _used(folder, Environment(_python_of(folder), found.libraries, found.origins), unmet)


def _checkouts(plan: _Plan) -> list[Path]:
    paths = (_local_path(step.source) for step in plan.steps if step.source)
    return [path for path in paths if path and path.is_dir()]


def _clone(current: _Place, part: Path, folder: Path, asked: str) -> None:
    """A virtual environment with all that the current one has, which will be moved to ``folder``."""
    run_uv(
        ["venv", "--relocatable", "--no-project", "--python", str(current.python), str(part)], asked, lambda line: None
    )
    clone = _look(_python_of(part))
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
        if error.errno in _FULL:
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


def _used(folder: Path, found: Environment, unmet: tuple[str, ...]) -> Environment:
    """The environment with a lock of this use, which the system releases even if the process dies."""
    uses = folder / USES
    uses.mkdir(exist_ok=True)
    use = FileLock(uses / f"{os.getpid()}-{uuid.uuid4().hex[:8]}.lock", thread_local=False)
    use.acquire(timeout=0)
    return Environment(found.python, found.libraries, found.origins, unmet, folder, use)


def _in_use(folder: Path) -> bool:
    return not all(_is_free(path) for path in (folder / USES).glob("*.lock"))


def _is_free(path: Path) -> bool:
    try:
        with FileLock(path, timeout=0):
            return True
    except Timeout:
        return False


@contextlib.contextmanager
def _lock(cache: Path, key: str, side: Side, announce: Callable[[str], None]) -> Iterator[None]:
    lock = FileLock(cache / f"{key}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        announce(f"waiting: another process makes the environment for '{side.text}'")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _lock_at_once(cache: Path, key: str) -> Iterator[bool]:
    """Whether the lock could be had without waiting; held meanwhile."""
    lock = FileLock(cache / f"{key}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _clear_leftovers(cache: Path) -> None:
    """Deletes what builds left that were killed; one that goes on holds its lock."""
    for part in cache.glob(f"*{PART}"):
        with _lock_at_once(cache, part.name.removesuffix(PART)) as locked:
            if locked:
                _delete(part)


def _remove(folder: Path) -> None:
    part = folder.with_name(folder.name + PART)
    _delete(part)
    os.replace(folder, part)  # at once, so that a removal cut short leaves no broken environment
    _delete(part)


def _delete(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _folders(cache: Path) -> list[Path]:
    return [path for path in cache.glob("*") if _KEY.fullmatch(path.name) and path.is_dir()]


def _described(folder: Path) -> CachedEnvironment:
    notes = _notes(folder) or {"asked": "unknown", "changes": [], "last_used": "1970-01-01T00:00:00+00:00"}
    return CachedEnvironment(
        folder=folder,
        asked=notes["asked"],
        changes=tuple(Change(**change) for change in notes["changes"]),
        occupied_bytes=_occupied_bytes(folder),
        last_used=datetime.fromisoformat(notes["last_used"]),
    )


def _occupied_bytes(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # another process prunes
                status = os.lstat(Path(root) / name)
                total += status.st_size if status.st_nlink == 1 else 0
    return total


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _notes(folder: Path) -> dict[str, Any] | None:
    try:
        notes = json.loads((folder / NOTES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return notes if isinstance(notes, dict) and {"asked", "changes", "unmet", "last_used"} <= set(notes) else None


def _write_notes(folder: Path, notes: dict[str, Any]) -> None:
    new = folder / f"{NOTES}.new"
    new.write_text(json.dumps(notes, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(new, folder / NOTES)


def _why_not_written(side: Side, cache: Path, error: OSError) -> str:
    if error.errno in _FULL:
        return f"'{side.text}': the disk of {cache} (or of uv's own cache) is full; nothing half made was left there."
    return f"'{side.text}': {cache} cannot be written ({error.strerror or error})."
