"""What is recorded of the libraries and the machine under a run."""

import configparser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench.calls.device import Cpu
from bench.record import environment as environments
from bench.record.environment import VARIABLES, describe_environment, environment_hash, variables

PROJECT = Path(__file__).parents[2]
SET = {
    "PYTORCH_ALLOC_CONF": "expandable_segments:True",
    "PYTORCH_NO_CUDA_MEMORY_CACHING": "1",
    "DIFFUSERS_ATTN_BACKEND": "flash",
    "TRITON_CACHE_DIR": "/tmp/triton",
    "HIP_VISIBLE_DEVICES": "1",
    "MIOPEN_FIND_MODE": "2",
    "XLA_FLAGS": "--xla_gpu_autotune_level=4",
    "NVIDIA_TF32_OVERRIDE": "0",
    "OMP_NUM_THREADS": "1",
}


@pytest.fixture
def nothing_set(monkeypatch):
    for name in variables():
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("nothing_set")
def test_variables_that_change_speed_are_recorded_by_name_and_value(monkeypatch, tmp_path):
    before = describe_environment(Cpu(), tmp_path)
    assert before["variables"] == {}
    for name, value in SET.items():
        monkeypatch.setenv(name, value)
    after = describe_environment(Cpu(), tmp_path)
    assert after["variables"] == SET
    assert environment_hash(after) != environment_hash(before)


@pytest.mark.usefixtures("nothing_set")
def test_secrets_and_other_variables_are_not_recorded(monkeypatch):
    for name in ("HF_TOKEN", "NVIDIA_API_KEY", "TORCH_HUB_TOKEN", "PYTORCH_SECRET", "EDITOR"):
        monkeypatch.setenv(name, "hidden")
    assert variables() == {}


def test_tox_passes_every_variable_that_is_recorded():
    tox = configparser.ConfigParser()
    tox.read(PROJECT / "tox.ini")
    passed = tox["testenv"]["pass_env"].split()
    covered = {pattern for pattern in VARIABLES if pattern in passed or f"{pattern.partition('_')[0]}_*" in passed}
    assert covered == {*VARIABLES}


def test_the_version_of_cudnn_is_that_of_a_cuda_run(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    monkeypatch.setattr(environments, "driver_version", lambda _: "570.1")
    monkeypatch.setattr(environments, "gpu_limits", lambda _: {"power_limit_w": 700.0})
    gpu: Any = SimpleNamespace(type="cuda", name="Imaginary GPU", total_memory=80)
    found = describe_environment(gpu, tmp_path)
    assert (found["cudnn"], found["gpu"]) == (91002, {"power_limit_w": 700.0})
    monkeypatch.undo()
    found = describe_environment(Cpu(), tmp_path)
    assert (found["cudnn"], found["gpu"]) == (None, None)


def test_a_cudnn_that_cannot_be_loaded_has_no_version(monkeypatch, tmp_path):
    def mismatch():
        raise RuntimeError("cuDNN version incompatibility")

    monkeypatch.setattr(torch.backends.cudnn, "version", mismatch)
    gpu: Any = SimpleNamespace(type="cuda", name="Imaginary GPU", total_memory=80)
    assert environments.cudnn_version(gpu) is None
