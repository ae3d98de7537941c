"""Known differences: what a case shows with certain releases of its libraries instead of its golden."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from pydantic import Field, field_validator

from bench.calls.raised import RaisedError
from bench.frozen import Frozen

_OPERATORS = {"<": "below", "<=": "to", ">": "above", ">=": "from", "==": "at", "===": "at", "!=": "not", "~=": "like"}


def read_requirement(text: str) -> Requirement:
    """A library with a range of versions, such as ``diffusers>=0.28,<0.31``.

    Raises:
        ValueError: the text is something else; one sentence.
    """
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{text!r} is not a requirement ({reason})") from None
    if requirement.url or requirement.marker or requirement.extras or not requirement.specifier:
        raise ValueError(f"{text!r} is not a library with a range of versions, such as diffusers<0.31")
    return requirement


def library_of(requirement: Requirement) -> str:
    """The name under which runs record the version of this library."""
    return canonicalize_name(requirement.name)


def holds(requirement: Requirement, libraries: Mapping[str, str | None]) -> bool:
    """Whether the library is installed in a version of the range, pre-releases included."""
    version = libraries.get(library_of(requirement))
    return version is not None and requirement.specifier.contains(version, prereleases=True)


class Difference(Frozen):
    """With which releases a case differs from its golden, and why.

    Attributes:
        when: requirements that must all be met, such as ``diffusers<0.31``.
        reason: one sentence.
    """

    when: tuple[str, ...] = Field(min_length=1)
    reason: str = Field(min_length=1)

    @field_validator("when")
    @classmethod
    def _are_requirements(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        """One way to write each range, so that equal ranges are equal."""
        return tuple(sorted(f"{library_of(one)}{one.specifier}" for one in map(read_requirement, texts)))

    def holds_with(self, libraries: Mapping[str, str | None]) -> bool:
        return all(holds(read_requirement(text), libraries) for text in self.when)

    @property
    def releases(self) -> str:
        return " with ".join(self.when)

    def __str__(self) -> str:
        return f"with {self.releases}: {self.reason}"

    @property
    def slug(self) -> str:
        """The range, safe in a file name: ``diffusers-from-0.28-below-0.31``."""
        requirements = [read_requirement(text) for text in self.when]
        return "-".join("-".join([library_of(one), *_in_words(one)]) for one in requirements)


def _in_words(requirement: Requirement) -> list[str]:
    ordered = sorted(requirement.specifier, key=lambda one: (one.version, one.operator))
    return [f"{_OPERATORS[one.operator]}-{re.sub('[^a-z0-9.]', '-', one.version.replace('*', 'x'))}" for one in ordered]


class Outcome(Difference):
    """What a case shows with these releases.

    Attributes:
        error: what it raises; it has no pictures then.
        pixels: SHA-256 of its picture's values, which ties it to the file; empty where it raises.
        device: on which it was accepted: ``type`` and ``name``.
        libraries: versions of the libraries in ``when``, as they were then.
        date: day it was accepted, ISO 8601.
    """

    error: RaisedError | None = None
    pixels: str = ""
    device: dict[Literal["type", "name"], str] = Field(min_length=2)
    libraries: dict[str, str | None]
    date: str
