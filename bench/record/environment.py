"""The libraries and the machine under a run."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterable
from fnmatch import fnmatchcase
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from bench.calls.device import Device, cudnn_version
from bench.record.nvml import gpu_limits

LIBRARIES = (
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "accelerate",
    "huggingface-hub",
    "safetensors",
    "tokenizers",
    "numpy",
    "scipy",
    "scikit-image",
    "pillow",
    "pytest",
    "pytest-benchmark",
)
# Environment variables that change how fast or how exactly the libraries compute, as patterns; tox passes them on.
VARIABLES = (
    "ATEN_CPU_CAPABILITY",
    "CUBLAS_*",
    "CUDA_*",
    "CUDNN_*",
    "DIFFUSERS_*",
    "DNNL_*",
    "HIP_*",
    "KMP_*",
    "LD_PRELOAD",
    "MALLOC_*",
    "MIOPEN_*",
    "MKL_*",
    "NVIDIA_TF32_OVERRIDE",
    "NVIDIA_VISIBLE_DEVICES",
    "OMP_*",
    "ONEDNN_*",
    "PYTORCH_*",
    "ROCR_VISIBLE_DEVICES",
    "SIMULATED_ACCELERATOR",
    "TORCH*",
    "TRITON_*",
    "XLA_*",
    "ZE_AFFINITY_MASK",
)
_SECRET = ("*TOKEN*", "*SECRET*", "*PASSWORD*", "*_KEY")


def library_versions() -> dict[str, str | None]:
    """Installed versions by name; ``None`` for what is not installed."""
    versions: dict[str, str | None] = {}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def variables() -> dict[str, str]:
    """The environment variables of ``VARIABLES`` that are set, by name."""
    found = sorted(os.environ.items())
    return {name: value for name, value in found if _matches(name, VARIABLES) and not _matches(name, _SECRET)}


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def git_revision(folder: Path) -> str | None:
    """Commit of the checkout, followed by ``-dirty`` if files differ; ``None`` outside a checkout."""
    try:
        described = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--abbrev=12", "--dirty", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()


def driver_version(device: Device) -> str | None:
    """Version of the accelerator's driver, from the driver's own tool; ``None`` for other devices."""
    if device.type != "cuda":
        return None
    try:
        answer = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return torch.version.hip or torch.version.cuda
    return answer.stdout.splitlines()[0].strip()


def describe_environment(device: Device, root: Path) -> dict[str, Any]:
    """Everything under a run that may change its pictures, its speed or its memory; memory in bytes."""
    return {
        "libraries": library_versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device.type,
        "device_name": device.name,
        "device_memory_bytes": device.total_memory,
        "driver": driver_version(device),
        "cuda": torch.version.cuda,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "cudnn_tf32": torch.backends.cudnn.allow_tf32,
        "cudnn": cudnn_version(device),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "gpu": gpu_limits(device),
        "variables": variables(),
        "git": git_revision(root),
    }


def environment_hash(environment: dict[str, Any]) -> str:
    """Eight hexadecimal digits that are the same for the same environment."""
    return hashlib.sha256(json.dumps(environment, sort_keys=True).encode()).hexdigest()[:8]


def load_average() -> float | None:
    """Runnable processes over the last minute; ``None`` if the system does not report it."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None
