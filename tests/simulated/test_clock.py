"""The suite's clock waits for the device, and its check finds a clock that does not."""

import pytest
import torch

from bench.calls.device import Accelerator, DeviceError, check_clock, clock, clock_leftover
from bench.simulated import weightless
from bench.simulated.devices import device as device_of

LATENCY_S = 0.005


def _device():
    return Accelerator(torch.device("sim:0"))


def _without_synchronize(patch):
    patch.setattr(torch._C, "_accelerator_synchronizeDevice", lambda index: None)


def test_without_synchronize_the_clock_reads_less_than_a_fifth():
    kernels, queue = 100, device_of(0).queue
    x = torch.ones(1, device="sim")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(queue, "latency_s", LATENCY_S)
        read = []
        for sound in (True, False):
            with pytest.MonkeyPatch.context() as broken:
                if not sound:
                    _without_synchronize(broken)
                began = clock(_device())
                for _ in range(kernels):
                    x.add_(1)
                read.append(clock(_device()) - began)
            torch.accelerator.synchronize()
    assert read[0] >= kernels * LATENCY_S > 5 * read[1]


def test_the_check_passes_a_sound_clock_and_refuses_the_other():
    with pytest.MonkeyPatch.context() as patch, weightless():
        patch.setattr(device_of(0).queue, "latency_s", LATENCY_S)
        check_clock(_device())
        _without_synchronize(patch)
        with pytest.raises(DeviceError, match="the clock does not wait for sim"):
            check_clock(_device())


def test_real_arithmetic_is_waited_for():
    assert min(clock_leftover(_device(), seconds=0.001) for _ in range(3)) < 0.2
