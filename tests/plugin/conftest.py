"""Projects of their own with a suite of tiny cases, and goldens for it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from bench.calls.device import Cpu
from bench.record.environment import describe_environment
from bench.record.folder import RunFolder
from bench.run import GoldenPolicy, Run
from bench.suite.file import read_suite
from tests.plugin.tiny_suite import CASES, SUITE
from tests.project import make_project

Start = Callable[..., pytest.RunResult]


@pytest.fixture
def as_found(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restores what a run of the suite sets for its process."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", torch.backends.cudnn.deterministic)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", torch.backends.cudnn.benchmark)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", os.environ.get("CUBLAS_WORKSPACE_CONFIG", ":4096:8"))
    yield
    torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


@pytest.fixture(scope="module")
def suite_text(tiny_ddpm_folder: Path) -> str:
    return SUITE.format(folder=tiny_ddpm_folder)


@pytest.fixture(scope="module")
def accepted(suite_text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A golden store for the cases that run without being asked for."""
    folder = tmp_path_factory.mktemp("accepted")
    (folder / "suite.toml").write_text(suite_text)
    announced: list[str] = []
    policy = GoldenPolicy(folder / "golden", "auto")
    device = Cpu()
    run = Run(device, RunFolder(folder, "run"), policy, folder, describe_environment(device, folder), announced.append)
    for case in read_suite(folder / "suite.toml").cases:
        if case.id in CASES:
            run.picture(case)
    return folder / "golden"


@pytest.fixture
def start(pytester: pytest.Pytester, suite_text: str, monkeypatch: pytest.MonkeyPatch) -> Start:
    """``start("golden", …)`` runs pytest in a project with this one's conftest, settings, tests and benchmarks."""
    make_project(pytester, suite_text, "bench/test_cases.py", "golden/test_goldens.py")
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # where these tests run in parallel themselves
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # for processes that -n starts; this one's number is set already

    def run(*arguments: str) -> pytest.RunResult:
        return pytester.runpytest_inprocess("--suite=suite.toml", "--device=cpu", "--rounds=2", *arguments)

    return run


@pytest.fixture
def goldens(pytester: pytest.Pytester, accepted: Path) -> Path:
    """The accepted goldens, where the suite looks for them."""
    return Path(shutil.copytree(accepted, pytester.path / "golden", dirs_exist_ok=True))
