"""What uv would change in the current environment to make a side of it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name

from bench.installs.copies import Copies
from bench.installs.installed import Change, Environment, PythonPlace
from bench.installs.uv import run_uv

_STEP = re.compile(r" (?P<sign>[-+~]) (?P<name>[\w.-]+)(==(?P<version>\S+))?( \(from (?P<from>.+)\)| @ (?P<at>.+))?")


@dataclass(frozen=True)
class Step:
    """A library that would be installed, from a version or a source, or removed if it has neither."""

    name: str
    version: str | None
    source: str | None

    def __str__(self) -> str:
        return self.version or f"from {self.source}"


@dataclass(frozen=True)
class InstallPlan:
    """The changes that a side asks for.

    Attributes:
        python: whose environment uv planned for.
        arguments: of uv, to make these changes.
        steps: one for each library that changes, sorted by name.
        contents: of the sources from which libraries are installed, by the name of the library.
    """

    python: Path
    arguments: tuple[str, ...]
    steps: tuple[Step, ...]
    contents: Mapping[str, str]

    def describe(self, current: Environment) -> str:
        removed = {step.name for step in self.steps if not (step.version or step.source)}
        wanted = {step.name: str(step) for step in self.steps if step.version or step.source}
        names = sorted(removed | set(wanted))
        return ", ".join(str(Change(name, current.version(name), wanted.get(name))) for name in names)

    def versions(self, current: Environment) -> dict[str, str | None]:
        """What will be installed; ``None`` for a version that is known only after the library is built."""
        kept: dict[str, str | None] = {
            name: version for name, version in current.libraries.items() if name not in self._names
        }
        return kept | {step.name: step.version for step in self.steps if step.version or step.source}

    def is_carried_out(self, found: Environment, current: Environment) -> bool:
        """Whether an environment is what this plan makes of the current one."""
        wanted = self.versions(current)
        same = set(found.libraries) == set(wanted)
        return same and all(version in (None, found.libraries[name]) for name, version in wanted.items())

    def key(self, current: PythonPlace) -> str:
        """16 hexadecimal digits, the same for all plans that lead to the same environment."""
        kept = current.environment
        identity = {
            "python": [current.python_version, current.platform, current.interpreter],
            "libraries": self.versions(kept),
            "origins": {name: origin for name, origin in kept.origins.items() if name not in self._names},
            "sources": dict(self.contents),
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def _names(self) -> set[str]:
        return {step.name for step in self.steps}


def plan_of(copies: Copies, python: Path) -> InstallPlan:
    """What uv would change in the environment of this Python, asked without changing it.

    Raises:
        EnvironmentFailed: uv fails.
    """
    side = copies.side
    arguments = [
        *(f"--upgrade-package={name}" for name in side.newest),
        *(f"--requirements={path}" for path in side.files),
        *side.requirements,
    ]
    dry = ["pip", "install", "--dry-run", "--break-system-packages", "--python", str(python), *arguments]
    output = run_uv(dry, side.text, lambda line: None)
    steps = _steps(copies.original(output))
    contents = {step.name: copies.content_of(step.source) for step in steps if step.source}
    return InstallPlan(python, tuple(arguments), steps, contents)


def _steps(output: str) -> tuple[Step, ...]:
    """The changes that uv lists, one for each library."""
    steps: dict[str, Step] = {}
    for line in output.splitlines():
        if match := _STEP.fullmatch(line):
            name = canonicalize_name(match["name"])
            if match["sign"] == "-":
                steps.setdefault(name, Step(name, None, None))
            else:
                source = match["from"] or match["at"]
                # uv knows the version of a source only if it built it before, so the key must not depend on it
                steps[name] = Step(name, None if source else match["version"], source)
    return tuple(steps[name] for name in sorted(steps))
