"""Environments whose libraries were altered, and what an upgrade may do to a library, as code that does it."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ALTERING = "altering.py"


def altered_environment(folder: Path, code: str) -> Path:
    """The interpreter of an environment in this folder, whose libraries the code alters before the worker starts."""
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    (folder / "pyvenv.cfg").write_text(f"home = {Path(sys.executable).parent}\n")
    (folder / ALTERING).write_text(code)
    driver = folder / "driver.py"
    driver.write_text(f"{code}\nfrom bench.upgrade.worker import main\nmain()\n")
    python.write_text(
        f'#!/bin/sh\nif [ "$1" = -m ]; then set -- "{driver}"; fi\nPYTHONPATH="{ROOT}" exec "{sys.executable}" "$@"\n'
    )
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    return python


def code_of(python: Path) -> str | None:
    """The code that alters the libraries of this interpreter's environment; ``None`` for another environment."""
    file = python.parents[1] / ALTERING
    return file.read_text() if file.exists() else None


BRIGHTER = """
import diffusers
original = diffusers.DDPMPipeline.__call__
def brighter(self, *args, **kwargs):
    output = original(self, *args, **kwargs)
    output.images = output.images * 0.9 + 0.1
    return output
diffusers.DDPMPipeline.__call__ = brighter
"""
RAISING = """
import diffusers
def call(self, *args, **kwargs):
    raise TypeError("unexpected keyword argument 'generator'")
diffusers.DDPMPipeline.__call__ = call
"""
RESTLESS = """
import diffusers, random
original = diffusers.DDPMPipeline.__call__
def restless(self, *args, **kwargs):
    output = original(self, *args, **kwargs)
    output.images = output.images + 1e-4 * random.random()
    return output
diffusers.DDPMPipeline.__call__ = restless
"""
WARNING = """
import warnings
import diffusers
original = diffusers.DDPMPipeline.__call__
def warned(self, *args, **kwargs):
    warnings.warn("`steps` is deprecated", FutureWarning)
    return original(self, *args, **kwargs)
diffusers.DDPMPipeline.__call__ = warned
"""


WAITING = """
import diffusers
plain_step = diffusers.DDPMScheduler.step
def waiting(self, *args, **kwargs):
    output = plain_step(self, *args, **kwargs)
    output.prev_sample.mean().item()
    return output
diffusers.DDPMScheduler.step = waiting
"""
UNCOUNTED = """
import bench.calls.work
def counted_call(loaded, case):
    raise RuntimeError("no such dispatch mode")
bench.calls.work.counted_call = counted_call
"""
SLOW_DECODER = """
import diffusers
original = diffusers.AutoencoderKL.decode
def slow(self, *args, **kwargs):
    for _ in range(60):
        original(self, *args, **kwargs)
    return original(self, *args, **kwargs)
diffusers.AutoencoderKL.decode = slow
"""
DYING = """
import os, diffusers
original, calls = diffusers.DDPMPipeline.__call__, []
def dying(self, *args, **kwargs):
    calls.append(None)
    if len(calls) > 1:
        os._exit(7)
    return original(self, *args, **kwargs)
diffusers.DDPMPipeline.__call__ = dying
"""
