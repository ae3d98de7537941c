"""The host runs ahead, waits where it must, and learns of errors late."""

import threading
import time

import pytest
import torch

from bench.simulated.devices import device as device_of
from bench.simulated.work_queue import WorkQueue


def test_the_host_continues_while_the_device_works():
    x = torch.ones(3, device="sim")
    gate = threading.Event()
    device_of(0).queue.mark(gate.wait)
    y = x + 1
    assert not torch.accelerator.current_stream().query()
    gate.set()
    torch.accelerator.synchronize()
    assert torch.accelerator.current_stream().query()
    assert y.tolist() == [2, 2, 2]


def test_the_latency_is_added_to_each_kernel():
    queue = WorkQueue("test", latency_s=0.02)
    began = time.perf_counter()
    for _ in range(10):
        queue.launch(lambda: None)
    launched = time.perf_counter() - began
    queue.wait()
    waited = time.perf_counter() - began
    queue.stop()
    assert waited >= 0.2 > launched


def test_kernels_compute_with_the_threads_of_the_host():
    found = []
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    device_of(0).queue.launch(lambda: found.append(torch.get_num_threads()))
    torch.set_num_threads(before)
    device_of(0).queue.launch(lambda: found.append(torch.get_num_threads()))
    torch.accelerator.synchronize()
    assert found == [before + 1, before]


def test_a_failed_kernel_breaks_the_device_at_the_next_wait():
    x = torch.ones(3, device="sim:3")
    torch.index_select(x, 0, torch.tensor([7], device="sim:3"))
    y = x + 1
    with pytest.raises(torch.AcceleratorError, match=r"^sim:3: a kernel failed: index out of range"):
        y.cpu()
    for use in (lambda: x + 1, lambda: torch.ones(3, device="sim:3"), x.cpu, lambda: torch.sim.synchronize(3)):
        with pytest.raises(torch.AcceleratorError, match=r"cannot be used again in this process\.$"):
            use()
    assert torch.ones(3, device="sim:0").sum().item() == 3
