"""What a fault is, and the few ways in which one is put into a library from outside."""

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
    """A mistake like those that were really made, and how to make it.

    Attributes:
        name: a slug, the same for ever.
        area: the part of the work that it spoils.
        what: one sentence, in the present.
        source: where this mistake or one of its kind was made, reported or mended; for a few, only the change that
            brought what it breaks.
        apply: makes it, by patches that end with the ``MonkeyPatch``.
        at_load: it must be made before the pipeline is loaded.
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
    """Puts ``make(original)`` in the place of a function; it keeps the signature that diffusers looks at."""
    original = getattr(owner, name)
    patch.setattr(owner, name, functools.wraps(original)(make(original)))


def wrapped(classes: str, method: str, make: Callable[[Any], Any]) -> Apply:
    """``make(original)`` in the place of a method of these diffusers classes (names with spaces between)."""

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
    """Within this block an object's configuration says this, and says what it said before when the block ends."""
    kept = configured._internal_dict
    configured._internal_dict = FrozenDict({**kept, **options})
    try:
        yield
    finally:
        configured._internal_dict = kept


def misread(classes: str, during: str, **options: Any) -> Apply:
    """During these methods the classes take their options for these. What ``config`` shows stays right."""

    def make(original: Any) -> Any:
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            with reading(self, **options):
                return original(self, *args, **kwargs)

        return method

    return together(*(wrapped(classes, method, make) for method in during.split()))


def built_with(classes: str, **options: Any) -> Apply:
    """Objects of these classes are built with these options, whatever was asked for."""

    def make(original: Any) -> Any:
        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            original(self, *args, **{**kwargs, **options})

        return init

    return wrapped(classes, "__init__", make)


def returning(classes: str, name: str, value: Callable[[Any], Any]) -> Apply:
    """A property of these classes has another value."""

    def apply(patch: Patch) -> None:
        for owner in classes.split():
            patch.setattr(getattr(diffusers, owner), name, property(value))

    return apply


def everywhere(patch: Patch, name: str, value: Any) -> None:
    """Sets a name in all modules of diffusers that have it: most import functions by name."""
    modules = [
        module
        for key, module in list(sys.modules.items())
        if key.startswith("diffusers.") and name in getattr(module, "__dict__", {})
    ]
    for module in modules:
        patch.setattr(module, name, value)
