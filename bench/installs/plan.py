"""What uv would change in the current environment to make a side of it."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name

from bench.installs.installed import Change, Environment, Place
from bench.installs.sides import Side
from bench.installs.sources import content_of, local_path
from bench.installs.uv import run_uv

_STEP = re.compile(r" (?P<sign>[-+~]) (?P<name>[\w.-]+)(==(?P<version>\S+))?( \(from (?P<from>.+)\)| @ (?P<at>.+))?")


@dataclass(frozen=True)
class Step:
    """A library that would be removed (neither version nor source) or installed (one of them)."""

    name: str
    version: str | None
    source: str | None

    def __str__(self) -> str:
        return self.version or f"from {self.source}"


@dataclass(frozen=True)
class Plan:
    """The changes that a side asks for.

    Attributes:
        arguments: with which uv makes them.
        steps: by name, one for each library that is changed.
    """

    arguments: tuple[str, ...]
    steps: tuple[Step, ...]

    @property
    def checkouts(self) -> list[Path]:
        paths = (local_path(step.source) for step in self.steps if step.source)
        return [path for path in paths if path and path.is_dir()]

    def describe(self, current: Environment) -> str:
        removed = {step.name for step in self.steps if not (step.version or step.source)}
        wanted = {step.name: str(step) for step in self.steps if step.version or step.source}
        names = sorted(removed | set(wanted))
        return ", ".join(str(Change(name, current.version(name), wanted.get(name))) for name in names)

    def versions(self, current: Environment) -> dict[str, str | None]:
        """What will be installed; no version where it is known only once the library is built."""
        kept: dict[str, str | None] = {
            name: version for name, version in current.libraries.items() if name not in self._names
        }
        return kept | {step.name: step.version for step in self.steps if step.version or step.source}

    def is_carried_out(self, found: Environment, current: Environment) -> bool:
        """Whether what was found is what the current environment was to become."""
        wanted = self.versions(current)
        same = set(found.libraries) == set(wanted)
        return same and all(version in (None, found.libraries[name]) for name, version in wanted.items())

    def key(self, current: Place) -> str:
        """The same for all plans that lead to the same environment: 16 hexadecimal digits."""
        kept = current.environment
        identity = {
            "python": [current.python_version, current.platform, current.interpreter],
            "libraries": self.versions(kept),
            "origins": {name: origin for name, origin in kept.origins.items() if name not in self._names},
            "sources": {step.name: content_of(step.source) for step in self.steps if step.source},
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def _names(self) -> set[str]:
        return {step.name for step in self.steps}


def plan_of(side: Side, current: Environment) -> Plan:
    """What uv would change in the current environment, asked without changing it.

    Raises:
        EnvironmentFailed: uv refuses.
    """
    arguments = [
        *(f"--upgrade-package={name}" for name in side.newest),
        *(f"--requirements={path}" for path in side.files),
        *side.requirements,
    ]
    dry = ["pip", "install", "--dry-run", "--break-system-packages", "--python", str(current.python), *arguments]
    output = run_uv(dry, side.text, lambda line: None)
    return Plan(tuple(arguments), _steps(output))


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
                # uv gives the version of a source only if it built it before: one plan must not differ by that
                steps[name] = Step(name, None if source else match["version"], source)
    return tuple(steps[name] for name in sorted(steps))
