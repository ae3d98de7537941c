"""The releases of a library on the package index, from uv.

uv has no command that lists releases, but it can resolve the newest one below a bound, then the newest one below that.
So the index, find-links, credentials and limits are those with which environments are made, and the same rules leave
out yanked releases and those that need another Python. uv caches the answers of the index, so that each step takes a
fraction of a second.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from bench.errors import BenchError
from bench.installs.uv import EnvironmentFailed, run_uv

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_RELEASE = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>\S+)", re.MULTILINE)
_UNKNOWN = re.compile(r"was not found in the (package registry|provided package locations)")
_NO_SUCH = "unsatisfiable"
_FINAL_WHEELS = ("--no-deps", "--prerelease=disallow", "--only-binary=:all:")


class ReleasesError(BenchError):
    """The releases cannot be listed; one sentence with the reason and what to do."""


def parse_range(text: str) -> tuple[Version, Version]:
    """The first and the last version of ``0.34.0..0.42.1``.

    Raises:
        ReleasesError: it is not a range, or does not go from older to newer.
    """
    first, dots, last = text.partition("..")
    try:
        found = Version(first), Version(last)
    except InvalidVersion:
        raise ReleasesError(f"'{text}' is not a range of releases; write it as 0.34.0..0.42.1.") from None
    if not dots or found[0] >= found[1]:
        raise ReleasesError(f"'{text}' does not go from an older release to a newer one; write it as 0.34.0..0.42.1.")
    return found


def releases_between(name: str, first: Version, last: Version, every: bool = False) -> tuple[Version, ...]:
    """The final releases from ``first`` to ``last``, both included, that have a wheel for this Python, oldest first.

    Args:
        name: of the library on the package index.
        every: all releases; otherwise the newest of each minor version, and the oldest of all.

    Raises:
        ReleasesError: the index does not know the library, has no release of it in the range, or cannot be asked.
    """
    if not _NAME.fullmatch(name):
        raise ReleasesError(f"'{name}' is not the name of a library; give one such as diffusers.")
    span = f">={first.public},<={last.public}"
    try:
        newest = _resolve(f"{name}{span}")
        oldest = _resolve(f"{name}{span}", "--resolution=lowest")
        found = [newest]
        while _bound(found[-1], every) > oldest:
            found.append(_resolve(f"{name}>={oldest.public},<{_bound(found[-1], every).public}"))
    except EnvironmentFailed as error:
        raise ReleasesError(_reason(name, first, last, str(error))) from None
    return tuple(sorted({oldest, *found}))


def _bound(release: Version, every: bool) -> Version:
    """The next older release is below this version."""
    if every:
        return Version(release.public)
    return Version(f"{release.epoch}!{release.major}.{release.minor}")


def _resolve(requirement: str, *arguments: str) -> Version:
    """The release that uv would install for a requirement."""
    with tempfile.TemporaryDirectory(prefix="releases-") as folder:
        wanted = Path(folder) / "wanted.in"
        wanted.write_text(f"{requirement}\n")
        command = ["pip", "compile", str(wanted), "--no-header", "--no-annotate", "--python", sys.executable]
        output = run_uv([*command, *_FINAL_WHEELS, *arguments], requirement, lambda line: None)
    name = canonicalize_name(re.split("[<>=]", requirement)[0])
    for line in _RELEASE.finditer(output):
        if canonicalize_name(line["name"]) == name:
            return Version(line["version"])
    raise EnvironmentFailed(f"'{requirement}': uv names no release.")


def _reason(name: str, first: Version, last: Version, said: str) -> str:
    if _UNKNOWN.search(said):
        return f"the package index has no library '{name}'; correct the name, or the index that uv or pip is set to."
    if _NO_SUCH in said:
        return (
            f"{name} has no final release from {first} to {last} with a wheel for this Python; give another range "
            f"(uv said: {said})"
        )
    return f"the releases of {name} cannot be listed: {said}"
