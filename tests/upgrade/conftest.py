"""Workers with libraries that take no time to import, and with the real ones."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.calls.pipelines import Checkpoint
from bench.upgrade.request import load_request
from bench.upgrade.workers import SIDES, Sides, WorkerProcess
from tests.upgrade.helpers import CURRENT, LIBRARY, FakePython, Request


@pytest.fixture
def fake_python(tmp_path: Path) -> FakePython:
    """``fake_python(module="its first lines")`` is an interpreter with libraries that take no time to import."""

    def make(**modules: str) -> Path:
        folder = tmp_path / "libraries"
        folder.mkdir(exist_ok=True)
        for name in ("torch", "diffusers", "transformers", *modules):
            (folder / f"{name}.py").write_text(modules.get(name, "") + LIBRARY)
        python = tmp_path / "python"
        python.write_text(f'#!/bin/sh\nPYTHONPATH="{folder}" exec "{sys.executable}" "$@"\n')
        python.chmod(0o755)
        return python

    return make


@pytest.fixture(scope="package")
def lasting_sides() -> Iterator[Sides]:
    """Two equal sides with this interpreter for all tests of this folder, never renewed: importing takes long."""
    with Sides(dict.fromkeys(SIDES, CURRENT), 120) as sides:
        sides.renewed = sides.take  # type: ignore[method-assign]
        yield sides


@pytest.fixture
def sides(lasting_sides: Sides) -> list[WorkerProcess]:
    """The first processes of two equal sides, new ones if a test before has ended them."""
    return lasting_sides.take()


@pytest.fixture
def request_of(tiny_case) -> Request:
    """``request_of(kind, **settings)`` is what a worker needs to load the tiny pipeline of that kind."""

    def make(kind: str, **settings: Any) -> dict[str, Any]:
        case = tiny_case(kind, **settings)
        return load_request(case, Checkpoint(Path(case.model.path), None, False), "cpu", 1)

    return make


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20)
