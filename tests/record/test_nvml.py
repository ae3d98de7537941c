"""NVML read through a stand-in for ``pynvml`` that follows its source: states, units, and what older GPUs lack."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from bench.calls.device import Cpu
from bench.record.nvml import GpuState, gpu_limits, gpu_state

GPU: Any = SimpleNamespace(type="cuda", name="Imaginary GPU", torch_device=torch.device("cuda", 1))
UUIDS = {0: "00000000-aaaa-bbbb-cccc-000000000000", 1: "11111111-aaaa-bbbb-cccc-111111111111"}


class Driver(ModuleType):
    """``pynvml`` on a machine with two GPUs: every call but ``nvmlInit`` raises until it was called.

    Attributes:
        unsupported: functions that this GPU does not have.
        reasons: bits of what slows the second GPU down.
    """

    NVML_CLOCK_SM, NVML_CLOCK_MEM = 1, 2

    class NVMLError(Exception):
        def __init__(self, text: str) -> None:
            self._text = text

        def __str__(self) -> str:
            return self._text

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.opened = 0
        self.library = True
        self.unsupported: set[str] = set()
        self.reasons = 0x4 | 0x40
        self.clocks = {(0, 1): 210, (0, 2): 405, (1, 1): 1755, (1, 2): 2619}
        self.highest = {(0, 1): 1980, (0, 2): 2619, (1, 1): 1980, (1, 2): 2619}

    def nvmlInit(self) -> None:
        if not self.library:
            raise self.NVMLError("NVML Shared Library Not Found")
        self.opened += 1

    def nvmlShutdown(self) -> None:
        self._check("nvmlShutdown")
        self.opened -= 1

    def _check(self, name: str) -> None:
        if not self.opened:
            raise self.NVMLError("Uninitialized")
        if name in self.unsupported:
            raise self.NVMLError("Not Supported")

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:
        self._check("nvmlDeviceGetHandleByUUID")
        for number, known in UUIDS.items():
            if uuid == f"GPU-{known}":
                return number
        raise self.NVMLError("Not Found")

    def nvmlDeviceGetClockInfo(self, handle: int, kind: int) -> int:
        self._check("nvmlDeviceGetClockInfo")
        return self.clocks[handle, kind]

    def nvmlDeviceGetMaxClockInfo(self, handle: int, kind: int) -> int:
        self._check("nvmlDeviceGetMaxClockInfo")
        return self.highest[handle, kind]

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: int) -> int:
        self._check("nvmlDeviceGetEnforcedPowerLimit")
        return {0: 300_000, 1: 700_000}[handle]

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: int) -> int:
        self._check("nvmlDeviceGetCurrentClocksThrottleReasons")
        return self.reasons

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[object]:
        self._check("nvmlDeviceGetComputeRunningProcesses")
        return [object()] * {0: 5, 1: 2}[handle]


@pytest.fixture
def driver(monkeypatch):
    """The second GPU of the machine is torch's ``cuda:1``, whatever number NVML gives it."""
    found = Driver()
    monkeypatch.setitem(sys.modules, "pynvml", found)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=UUIDS[torch.device(device).index])
    )
    yield found
    assert found.opened == 0


def test_the_state_of_a_gpu_is_that_of_its_uuid(driver):
    assert gpu_state(GPU) == GpuState(
        sm_clock_mhz=1755,
        memory_clock_mhz=2619,
        power_limit_w=700.0,
        compute_processes=2,
        throttle_reasons=("power cap", "hardware thermal slowdown"),
    )


def test_what_stays_the_same_over_a_run_is_read_apart(driver):
    expected = {"max_sm_clock_mhz": 1980, "max_memory_clock_mhz": 2619, "power_limit_w": 700.0, "nvml_reason": None}
    assert gpu_limits(GPU) == expected


@pytest.mark.parametrize(("bits", "names"), [(0, ()), (1, ("idle",)), (1 << 40, ("bit 40",))])
def test_every_reason_has_a_name(driver, bits, names):
    driver.reasons = bits
    state = gpu_state(GPU)
    assert state
    assert state.throttle_reasons == names


def test_a_figure_that_a_gpu_lacks_is_null_with_a_reason(driver):
    driver.unsupported = {"nvmlDeviceGetEnforcedPowerLimit"}
    state = gpu_state(GPU)
    assert state
    assert (state.power_limit_w, state.sm_clock_mhz) == (None, 1755)
    assert state.reason == "power_limit_w: Not Supported"


def test_a_gpu_that_nvml_does_not_know_is_null_with_a_reason(driver, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="another"))
    assert gpu_state(GPU) == GpuState(reason="NVML: Not Found")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace())
    assert gpu_state(GPU) == GpuState(reason="torch does not say which GPU it uses")


def test_a_machine_without_nvml_is_null_with_a_reason(driver, monkeypatch):
    driver.library = False
    assert gpu_state(GPU) == GpuState(reason="NVML: NVML Shared Library Not Found")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpu_state(GPU) == GpuState(reason="nvidia-ml-py is not installed")
    limits = gpu_limits(GPU)
    assert limits
    assert limits["nvml_reason"] == "nvidia-ml-py is not installed"


def test_other_devices_are_not_asked(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert (gpu_state(Cpu()), gpu_limits(Cpu())) == (None, None)
