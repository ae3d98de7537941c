"""What NVIDIA's driver says about a GPU: its clocks, its power limit, and what keeps it from running faster.

Read through NVML with ``pynvml`` (package ``nvidia-ml-py``), which is optional. Tested with a stand-in for that module
that follows its source; never run on a real GPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from bench.errors import BenchError
from bench.frozen import Frozen

if TYPE_CHECKING:
    from bench.calls.device import Device

# The bits of nvmlClocksThrottleReasons, from NVIDIA's nvml.h.
_THROTTLE_REASONS = {
    0x1: "idle",
    0x2: "application clocks",
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
    0x100: "display clocks",
    0x200: "board limit",
    0x400: "reliability",
}
_Question = Callable[[Any, Any], Any]


class _Unreadable(BenchError):
    """NVML has no answers here; a phrase that says why."""


class GpuState(Frozen):
    """A GPU right after the calls of a case; it may already be slowing down because it is idle."""

    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    power_limit_w: float | None = Field(default=None, description="enforced at that moment")
    throttle_reasons: tuple[str, ...] | None = Field(
        default=None, description="what keeps the clocks below their maximum; empty if nothing does"
    )
    compute_processes: int | None = Field(default=None, description="on this GPU, that of the run included")
    reason: str | None = Field(default=None, description="why a figure is null")


def gpu_state(device: Device) -> GpuState | None:
    """The state of a GPU now; ``None`` for other devices."""
    if device.type != "cuda":
        return None
    return GpuState(
        **_answers(
            device,
            {
                "sm_clock_mhz": lambda nvml, gpu: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM),
                "memory_clock_mhz": lambda nvml, gpu: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_MEM),
                "power_limit_w": _power_limit,
                "compute_processes": lambda nvml, gpu: len(nvml.nvmlDeviceGetComputeRunningProcesses(gpu)),
                "throttle_reasons": lambda nvml, gpu: _named(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu)),
            },
        )
    )


def gpu_limits(device: Device) -> dict[str, Any] | None:
    """What stays the same over a run: highest clocks in MHz, the power limit in watts; ``None`` for other devices."""
    if device.type != "cuda":
        return None
    answers = _answers(
        device,
        {
            "max_sm_clock_mhz": lambda nvml, gpu: nvml.nvmlDeviceGetMaxClockInfo(gpu, nvml.NVML_CLOCK_SM),
            "max_memory_clock_mhz": lambda nvml, gpu: nvml.nvmlDeviceGetMaxClockInfo(gpu, nvml.NVML_CLOCK_MEM),
            "power_limit_w": _power_limit,
        },
    )
    return {("nvml_reason" if name == "reason" else name): value for name, value in answers.items()}


def _power_limit(nvml: Any, gpu: Any) -> float:
    """NVML counts in milliwatts."""
    return nvml.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1000


def _named(bits: int) -> tuple[str, ...]:
    return tuple(
        _THROTTLE_REASONS.get(1 << place, f"bit {place}") for place in range(bits.bit_length()) if bits & 1 << place
    )


def _answers(device: Device, questions: Mapping[str, _Question]) -> dict[str, Any]:
    """An answer to each question, ``None`` where this GPU has none, and under ``reason`` why."""
    answers: dict[str, Any] = dict.fromkeys(questions)
    reasons = []
    try:
        with _opened(device) as (nvml, gpu):
            for name, ask in questions.items():
                try:
                    answers[name] = ask(nvml, gpu)
                except nvml.NVMLError as error:
                    reasons.append(f"{name}: {error}")
    except _Unreadable as error:
        reasons.append(str(error))
    return answers | {"reason": "; ".join(reasons) or None}


@contextlib.contextmanager
def _opened(device: Device) -> Iterator[tuple[Any, Any]]:
    """NVML, and its handle of the device, which is found by UUID: ``CUDA_VISIBLE_DEVICES`` renumbers the devices.

    Raises:
        _Unreadable: the module, the driver or the device is missing.
    """
    try:
        import pynvml
    except ImportError:
        raise _Unreadable("nvidia-ml-py is not installed") from None
    import torch

    uuid = getattr(torch.cuda.get_device_properties(device.torch_device), "uuid", None)
    if uuid is None:
        raise _Unreadable("torch does not say which GPU it uses")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise _Unreadable(f"NVML: {error}") from None
    try:
        try:
            handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        except pynvml.NVMLError as error:
            raise _Unreadable(f"NVML: {error}") from None
        yield pynvml, handle
    finally:
        pynvml.nvmlShutdown()
