"""From a side to a ready Python environment, kept in a cache.

A change is made in a clone: the current environment's files are linked into a new virtual environment, and uv installs
there what was asked for. So what stays needs no index, is the same byte for byte even if an index no longer has that
release, and takes little disk space.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from bench.installs.cache import (
    PART,
    clear_leftovers,
    delete,
    in_use,
    lock,
    occupied_bytes,
    read_description,
    remove,
    write_description,
)
from bench.installs.clone import make_clone, python_for_uv
from bench.installs.copies import Copies, clean_copies
from bench.installs.installed import Environment, PythonPlace, changes, look, python_of
from bench.installs.plan import InstallPlan, plan_of
from bench.installs.sides import Side
from bench.installs.uv import FULL_DISK, EnvironmentFailed, run_uv, unmet_requirements


def environment_of(
    side: Side, cache: Path, announce: Callable[[str], None], base: Path = Path(sys.executable)
) -> Environment:
    """The environment that a side asks for, from the cache if it is there.

    Args:
        cache: folder where environments are kept.
        announce: called with short lines on the progress.
        base: the Python of the current environment, which is only read.

    Raises:
        EnvironmentFailed: a release does not exist, requirements contradict each other, a build fails, the index cannot
            be reached, or the disk is full.
    """
    if side.environment:
        return look(python_of(side.environment)).environment
    current = look(base)
    if side.is_current:
        return current.environment
    try:
        with clean_copies(side) as copies, python_for_uv(current, side.text) as python:
            plan = plan_of(copies, python)
            if plan.steps:
                return _cached_or_built(copies, plan, current, cache, announce)
    except OSError as error:
        raise EnvironmentFailed(_why_not_written(side, cache, error)) from None
    announce(f"'{side.text}' changes nothing; the current environment is used")
    return current.environment


def _cached_or_built(
    copies: Copies, plan: InstallPlan, current: PythonPlace, cache: Path, announce: Callable[[str], None]
) -> Environment:
    side = copies.side
    cache.mkdir(parents=True, exist_ok=True)
    clear_leftovers(cache)
    key = plan.key(current)
    folder = cache / key
    with lock(cache, key, lambda: announce(_waiting(side))):
        environment = _cached(folder, plan, current.environment)
        if environment:
            announce(f"'{side.text}' is in the cache: {plan.describe(current.environment)}")
        else:
            if folder.exists():
                remove(folder)
            environment = _build(copies, plan, current, folder, announce)
        for sentence in environment.unmet:
            announce(f"note: {sentence}")
        return environment


def _cached(folder: Path, plan: InstallPlan, current: Environment) -> Environment | None:
    """The environment in this folder, if it is complete and unchanged."""
    description = read_description(folder)
    if not description:
        return None
    try:
        found = look(python_of(folder)).environment
    except EnvironmentFailed:
        return None
    if not plan.is_carried_out(found, current):
        return None
    with contextlib.suppress(OSError):  # a full disk is no reason to fail: only the time of the last use is lost
        write_description(folder, description["asked"], description["changes"], description["unmet"])
    return in_use(folder, found, tuple(description["unmet"]))


def _build(
    copies: Copies, plan: InstallPlan, current: PythonPlace, folder: Path, announce: Callable[[str], None]
) -> Environment:
    """Makes an environment in a folder next to its own and moves it when it is complete."""
    side = copies.side
    announce(f"making an environment for '{side.text}': {plan.describe(current.environment)}")
    start = time.monotonic()
    part = folder.with_name(folder.name + PART)
    try:
        make_clone(current, part, folder, side.text)
        clone = python_of(part)
        checkouts = map(str, copies.folders.values())  # named by themselves, they are always built
        run_uv(
            ["pip", "install", "--python", str(clone), *plan.arguments, *checkouts],
            side.text,
            lambda line: announce(copies.original(line)),
        )
        found = look(clone).environment
        if not plan.is_carried_out(found, current.environment):
            raise EnvironmentFailed(f"'{side.text}': the index changed while the environment was made; run again.")
        known = unmet_requirements(plan.python)
        unmet = tuple(sentence for sentence in unmet_requirements(clone) if sentence not in known)
        made = [asdict(change) for change in changes(current.environment, found)]
        write_description(part, side.text, made, unmet)
        os.replace(part, folder)
    finally:
        delete(part)
    seconds = time.monotonic() - start
    announce(f"made in {seconds:.1f} s; it takes {occupied_bytes(folder) / 1e6:,.1f} MB of disk")
    return in_use(folder, look(python_of(folder)).environment, unmet)


def _waiting(side: Side) -> str:
    return f"waiting: another process makes the environment for '{side.text}'"


def _why_not_written(side: Side, cache: Path, error: OSError) -> str:
    if error.errno in FULL_DISK:
        return (
            f"'{side.text}': the disk of {cache} (or of uv's own cache) is full; no partial environment was left there."
        )
    return f"'{side.text}': {cache} cannot be written ({error.strerror or error})."
