"""The device of a run, and what the suite asks of it: waiting, memory, names, determinism."""

from __future__ import annotations

import contextlib
import gc
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from bench import simulated
from bench.errors import BenchError


class DeviceError(BenchError):
    """The device that was asked for is not here."""


@dataclass(frozen=True)
class PeakMemory:
    """Peaks of memory in bytes, or ``None`` and the reason why the backend has no figure.

    Attributes:
        allocated: of the memory that tensors used.
        reserved: of the memory that torch held for them, unused blocks included.
    """

    allocated: int | None
    reason: str | None = None
    reserved: int | None = None
    reserved_reason: str | None = None


class Device(Protocol):
    """What the suite asks of a device. ``type`` is torch's word: cpu, cuda, mps, xpu, …"""

    @property
    def type(self) -> str: ...
    @property
    def torch_device(self) -> torch.device: ...
    @property
    def name(self) -> str: ...
    @property
    def total_memory(self) -> int | None: ...
    def synchronize(self) -> None: ...
    def reset_peak_memory(self) -> None: ...
    def peak_memory(self) -> PeakMemory: ...
    def empty_cache(self) -> None: ...


def slow_dtypes(device: Device) -> frozenset[str]:
    """Dtypes that the device computes far slower than float32, by their torch names; such cases run on request only.

    On a CPU float16 always counts as slow: most CPUs have no float16 convolutions, and all should run the same cases.
    bfloat16 counts as slow where oneDNN has no kernels for it.
    """
    if device.type != "cpu":
        return frozenset()
    return frozenset({"float16"} if torch.ops.mkldnn._is_mkldnn_bf16_supported() else {"float16", "bfloat16"})


def is_simulated(device: Device) -> bool:
    """Whether times on the device mean nothing, because the CPU computes its work."""
    return device.type == simulated.TYPE


def instruction_set(device: Device) -> str:
    """What selects a processor's kernels, other than its name, in words; empty for accelerators."""
    if device.type != "cpu":
        return ""
    has = {"AMX": torch.cpu._is_amx_tile_supported(), "bfloat16": torch.ops.mkldnn._is_mkldnn_bf16_supported()}
    held = os.environ.get("ONEDNN_MAX_CPU_ISA")
    parts = [torch.backends.cpu.get_cpu_capability(), *(name for name, there in has.items() if there)]
    return " ".join([*parts, f"(oneDNN at most {held})"] if held else parts)


def cudnn_version(device: Device) -> int | None:
    """Version of the library that computes convolutions, cuDNN or MIOpen; ``None`` for devices that have neither."""
    if device.type != "cuda":
        return None
    try:
        return torch.backends.cudnn.version()
    except (RuntimeError, OSError):  # it does not match torch, or cannot be loaded
        return None


def numerics(device: Device) -> dict[str, bool | int | str | None]:
    """What decides how this process rounds, other than the device and the libraries."""
    modes: dict[str, bool | int | str | None] = {
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
    }
    if device.type != "cuda":
        return modes
    return modes | {"cudnn_tf32": torch.backends.cudnn.allow_tf32, "cudnn": cudnn_version(device)}


def clock(device: Device) -> float:
    """Seconds of a monotonic clock, read when all work given to the device so far is done."""
    device.synchronize()
    return time.perf_counter()


@dataclass(frozen=True)
class Cpu:
    """The processor: its work is done when a call returns, and it has no counter of peak memory."""

    type: str = "cpu"

    @property
    def torch_device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def name(self) -> str:
        with contextlib.suppress(OSError):
            for line in Path("/proc/cpuinfo").read_text().splitlines():
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
        return platform.processor() or platform.machine()

    @property
    def total_memory(self) -> int | None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return None

    def synchronize(self) -> None:
        pass

    def reset_peak_memory(self) -> None:
        pass

    def peak_memory(self) -> PeakMemory:
        why = "the CPU allocator keeps no peak counter"
        return PeakMemory(None, why, None, why)

    def empty_cache(self) -> None:
        pass


@dataclass(frozen=True)
class Accelerator:
    """Any accelerator that torch knows, through ``torch.accelerator``."""

    torch_device: torch.device

    @property
    def type(self) -> str:
        return self.torch_device.type

    @property
    def _module(self):
        return torch.get_device_module(self.type)

    @property
    def name(self) -> str:
        get_name = getattr(self._module, "get_device_name", None)
        return get_name(self.torch_device) if get_name else f"{platform.machine()} {self.type}"

    @property
    def total_memory(self) -> int | None:
        with contextlib.suppress(RuntimeError, AttributeError, NotImplementedError):
            return torch.accelerator.get_memory_info(self.torch_device)[1]
        return None

    def synchronize(self) -> None:
        torch.accelerator.synchronize(self.torch_device)

    def reset_peak_memory(self) -> None:
        with contextlib.suppress(RuntimeError, AttributeError, NotImplementedError):
            torch.accelerator.reset_peak_memory_stats(self.torch_device)

    def peak_memory(self) -> PeakMemory:
        allocated = self._peak("max_memory_allocated", "peak counter")
        return PeakMemory(*allocated, *self._peak("max_memory_reserved", "peak counter of reserved memory"))

    def _peak(self, counter: str, name: str) -> tuple[int | None, str | None]:
        """Bytes, or why there are none: torch returns 0 without a counter, which would read as *no memory used*."""
        try:
            count = getattr(torch.accelerator, counter)(self.torch_device)
        except (RuntimeError, AttributeError, NotImplementedError) as error:
            why = str(error).partition("\n")[0] or type(error).__name__
            return None, f"{self.type} has no {name} ({why})"
        return (count, None) if count else (None, f"the {name} of {self.type} returns 0")

    def empty_cache(self) -> None:
        torch.accelerator.empty_cache()


def choose_device(wanted: str = "auto") -> Device:
    """The device of this name; ``auto`` is the accelerator if there is one, else the CPU.

    The simulated accelerator must be asked for by its name, ``sim``, which enables it for the rest of this process.

    ``torch.accelerator.current_accelerator()`` names ``cuda`` on machines without a GPU too, so availability is
    checked first.

    Raises:
        DeviceError: torch does not know the name, or no such device is available.
    """
    if wanted.partition(":")[0] == simulated.TYPE:
        try:
            simulated.enable()
        except simulated.SimulationError as error:
            raise DeviceError(f"--device {wanted}: {error}") from None
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if wanted == "auto":
        return Accelerator(torch.device(accelerator.type, 0)) if accelerator else Cpu()
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise DeviceError(
            f"--device {wanted}: torch knows no such device; try auto, cpu, cuda, cuda:1, mps, xpu or sim."
        ) from None
    if device.type == "cpu":
        return Cpu()
    count = device_count(device.type)
    index = device.index or 0
    if index >= count:
        here = f"this machine has {count} of them" if count else f"torch {torch.__version__} sees none here"
        raise DeviceError(f"--device {wanted}: no such device is available; {here}.")
    return Accelerator(torch.device(device.type, index))


def device_count(kind: str) -> int:
    """How many accelerators of this type torch sees."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return torch.accelerator.device_count() if accelerator and accelerator.type == kind else 0


def require_device(device: Device, wanted: str) -> None:
    """Refuses to continue without the device that a CI job was started for.

    Raises:
        DeviceError: the run would be on another type of device.
    """
    if wanted not in (device.type, str(device.torch_device)):
        raise DeviceError(
            f"--require-device {wanted}: the run would be on {device.torch_device} ({device.name}); "
            "nothing was run; check the driver, the torch build and --device."
        )


def clock_leftover(device: Device, seconds: float = 0.02) -> float:
    """Share of some work that was still running when the clock said it was over; about 0 for a sound clock.

    Work is queued, the clock is read, and then a result is copied to the host, which waits on every
    backend: if that copy takes a large part of the time, the clock did not wait.
    """
    matrix = torch.randn(1024, 1024, device=device.torch_device)
    result = matrix @ matrix
    began = clock(device)
    while time.perf_counter() - began < seconds:
        result = torch.tanh(result @ matrix)
    stopped = clock(device)
    result[0, 0].item()
    waited = time.perf_counter() - stopped
    return waited / (stopped - began + waited)


def check_clock(device: Device, limit: float = 0.2) -> None:
    """Raises:
    DeviceError: the clock does not wait for the device, so no time could be trusted.
    """
    leftover = min(clock_leftover(device) for _ in range(3))
    if leftover > limit:
        raise DeviceError(
            f"the clock does not wait for {device.type}: {leftover:.0%} of the work was still running when it stopped; "
            "times on this device cannot be trusted."
        )


def make_deterministic() -> None:
    """Asks torch for the same numbers on every run, for picture checks; timing runs keep torch's defaults.

    ``CUBLAS_WORKSPACE_CONFIG`` must be set before CUDA starts. ``CUDA_LAUNCH_BLOCKING`` stays off: it changes
    nothing but the speed.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


@contextlib.contextmanager
def measured_memory(device: Device) -> Iterator[list[PeakMemory]]:
    """Yields a list that contains the peak of the block once the block has ended.

    What earlier calls left is freed first, also where it refers to itself, as a wrapped scheduler with its last
    latents does.
    """
    peaks: list[PeakMemory] = []
    gc.collect()
    device.empty_cache()
    device.reset_peak_memory()
    yield peaks
    device.synchronize()
    peaks.append(device.peak_memory())
