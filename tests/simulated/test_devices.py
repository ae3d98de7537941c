"""Several devices, and the current one."""

import threading

import pytest
import torch

from bench.simulated.devices import device as device_of


def test_torch_sees_the_devices():
    assert torch.accelerator.is_available()
    assert torch.accelerator.current_accelerator() == torch.device("sim")
    assert torch.accelerator.device_count() == torch.sim.device_count() == 4
    assert torch.sim.get_device_name(1) == torch.sim.get_device_properties("sim:0").name == "simulated accelerator"


def test_each_device_has_its_own_memory_and_counters():
    before = torch.accelerator.memory_allocated(0)
    x = torch.ones(1000, device="sim:1")
    assert torch.accelerator.memory_allocated(0) == before
    assert x.device == torch.device("sim:1")
    assert (device_of(0).counters.kernels, device_of(1).counters.kernels) == (0, 1)
    assert (x + 1).device == torch.device("sim:1")


def test_new_tensors_go_to_the_current_device():
    torch.accelerator.set_device_index(1)
    try:
        assert torch.accelerator.current_device_index() == torch.sim.current_device() == 1
        assert torch.ones(2, device="sim").device == torch.device("sim:1")
        with torch.accelerator.device_index(0):
            assert torch.ones(2, device="sim").device == torch.device("sim:0")
        assert torch.sim.current_device() == 1
    finally:
        torch.sim.set_device("sim:0")
    with torch.sim.device(1):
        assert torch.ones(2, device="sim").device == torch.device("sim:1")
    assert torch.sim.current_device() == 0


def test_each_thread_has_a_current_device():
    found = []
    with torch.sim.device(1):
        thread = threading.Thread(target=lambda: found.append(torch.sim.current_device()))
        thread.start()
        thread.join()
    assert found == [0]


def test_a_device_that_does_not_exist_is_refused():
    for use in (lambda: torch.ones(2, device="sim:4"), lambda: torch.accelerator.set_device_index(4)):
        with pytest.raises(torch.AcceleratorError, match=r"^sim:4: no such device, there are 4 of them\.$"):
            use()
