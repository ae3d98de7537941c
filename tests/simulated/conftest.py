"""Each test here runs in another process, which has the simulated accelerator; pytest's own process never has it.

A test with the fixture ``alone`` runs in pytest's process, to start other processes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PROCESS = Path(__file__).parent / "process.py"

Alone = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def device_process() -> Iterator[subprocess.Popen[str]]:
    """The process that all tests here share."""
    with subprocess.Popen(
        [sys.executable, str(PROCESS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        assert process.stdin
        process.stdin.close()
        assert process.wait(30) == 0


@pytest.fixture
def alone(request: pytest.FixtureRequest) -> Alone:
    """``alone(function, **environment)`` calls a function of the test's module in a separate process."""

    def run(function: Callable[[], None], **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-X", "faulthandler", str(PROCESS), str(request.path), function.__name__],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return run


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs the body of a test in the shared process; its arguments travel as text and numbers."""
    if "alone" in pyfuncitem.fixturenames:
        return None
    __tracebackhide__ = True
    process = pyfuncitem._request.getfixturevalue("device_process")
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    request = {"file": str(pyfuncitem.path), "function": pyfuncitem.originalname, "arguments": arguments}
    process.stdin.write(json.dumps(request, default=str) + "\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        pytest.fail(f"the process with the device died with exit code {process.wait()}", pytrace=False)
    failure = json.loads(answer)
    if failure:
        pytest.fail(failure, pytrace=False)
    return True
