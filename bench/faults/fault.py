"""What a fault is, and helpers that put one into a library from outside."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import diffusers
import pytest
from diffusers.configuration_utils import FrozenDict

Patch = pytest.MonkeyPatch
Apply = Callable[[Patch], None]


@dataclass(frozen=True)
class Fault:
    """A mistake like one that was really made, and how to reproduce it.

    Attributes:
        name: a slug that never changes.
        area: the part of the pipeline that it breaks.
        what: one sentence in the present tense.
        source: where this mistake or a similar one was made, reported or fixed; for a few, only the change that
            introduced what it breaks.
        apply: puts the fault in, by patches that end with the ``MonkeyPatch``.
        at_load: whether the fault must be in place before the pipeline is loaded.
    """

    name: str
    area: str
    what: str
    source: str
    apply: Apply
    at_load: bool = False


def pull(number: int, repository: str = "huggingface/diffusers") -> str:
    return f"https://github.com/{repository}/pull/{number}"


def issue(number: int, repository: str = "huggingface/diffusers") -> str:
    return f"https://github.com/{repository}/issues/{number}"


def commit(short_hash: str, repository: str = "huggingface/diffusers") -> str:
    return f"https://github.com/{repository}/commit/{short_hash}"


TRANSFORMERS = "huggingface/transformers"


def wrap(patch: Patch, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Replaces a function by ``make(original)`` and keeps its signature, which diffusers inspects."""
    original = getattr(owner, name)
    patch.setattr(owner, name, functools.wraps(original)(make(original)))


def wrapped(classes: str, method: str, make: Callable[[Any], Any]) -> Apply:
    """Replaces a method of these diffusers classes (names separated by spaces) by ``make(original)``."""

    def apply(patch: Patch) -> None:
        for name in classes.split():
            wrap(patch, getattr(diffusers, name), method, make)

    return apply


def together(*parts: Apply) -> Apply:
    def apply(patch: Patch) -> None:
        for part in parts:
            part(patch)

    return apply


@contextlib.contextmanager
def reading(configured: Any, **options: Any) -> Iterator[None]:
    """Changes options in an object's configuration for the length of a block."""
    kept = configured._internal_dict
    configured._internal_dict = FrozenDict({**kept, **options})
    try:
        yield
    finally:
        configured._internal_dict = kept


def misread(classes: str, during: str, **options: Any) -> Apply:
    """Changes options of these classes while these methods run. Outside of them ``config`` stays right."""

    def make(original: Any) -> Any:
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            with reading(self, **options):
                return original(self, *args, **kwargs)

        return method

    return together(*(wrapped(classes, method, make) for method in during.split()))


def built_with(classes: str, **options: Any) -> Apply:
    """Builds objects of these classes with these options, whatever the caller asks for."""

    def make(original: Any) -> Any:
        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            original(self, *args, **{**kwargs, **options})

        return init

    return wrapped(classes, "__init__", make)


def returning(classes: str, name: str, value: Callable[[Any], Any]) -> Apply:
    """Gives a property of these classes another value."""

    def apply(patch: Patch) -> None:
        for owner in classes.split():
            patch.setattr(getattr(diffusers, owner), name, property(value))

    return apply


def everywhere(patch: Patch, name: str, value: Any) -> None:
    """Sets a name in every module of diffusers that has it, since most import functions by name."""
    modules = [
        module
        for key, module in list(sys.modules.items())
        if key.startswith("diffusers.") and name in getattr(module, "__dict__", {})
    ]
    for module in modules:
        patch.setattr(module, name, value)
