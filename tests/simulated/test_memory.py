"""How memory is counted, and how it runs out."""

import gc
import threading

import pytest
import torch

from bench.simulated.devices import device as device_of
from bench.simulated.memory import Memory

MIB = 1 << 20


def test_blocks_are_rounded_and_reserved_in_segments():
    memory = Memory("sim:9", 64 * MIB)
    memory.allocate(1)
    memory.allocate(513)
    assert (memory.requested.current, memory.allocated.current, memory.reserved.current) == (514, 1536, 2 * MIB)
    memory.allocate(2 * MIB)
    assert memory.reserved.current == 4 * MIB
    memory.free(2 * MIB)
    assert (memory.allocated.current, memory.allocated.peak) == (1536, 2 * MIB + 1536)
    assert memory.free_and_total() == (60 * MIB, 64 * MIB)
    memory.empty_cache()
    assert memory.free_and_total() == (62 * MIB, 64 * MIB)
    memory.reset_peaks()
    assert (memory.allocated.peak, memory.reserved.peak) == (1536, 2 * MIB)


def test_a_request_that_does_not_fit_changes_nothing():
    memory = Memory("sim:9", 1000)
    with pytest.raises(torch.OutOfMemoryError, match=r"^sim:9 out of memory: tried to allocate 1,001 bytes, of 1,000 "):
        memory.allocate(1001)
    assert (memory.allocated.peak, memory.failures) == (0, 1)


def test_statistics_of_torch_follow_the_tensors():
    gc.collect()
    torch.accelerator.reset_peak_memory_stats()
    before = torch.accelerator.memory_allocated()
    kept = torch.empty(1000, device="sim")
    passing = torch.empty(MIB, device="sim")
    assert torch.accelerator.memory_allocated() - before == 4096 + 4 * MIB
    view = passing[10:20]
    del passing
    assert torch.accelerator.memory_allocated() - before == 4096 + 4 * MIB
    del view
    assert torch.accelerator.memory_allocated() - before == 4096
    assert torch.accelerator.max_memory_allocated() - before == 4096 + 4 * MIB
    assert torch.accelerator.memory_reserved() >= torch.accelerator.memory_allocated()
    torch.accelerator.empty_cache()
    torch.accelerator.reset_peak_memory_stats()
    assert torch.accelerator.max_memory_allocated() - before == 4096
    assert torch.sim.max_memory_allocated(0) == torch.accelerator.max_memory_allocated(0)
    assert torch.accelerator.memory_stats()["requested_bytes.all.current"] >= kept.nbytes
    assert torch.accelerator.get_memory_info()[1] == torch.sim.mem_get_info()[1] == 64 * MIB


def test_memory_does_not_depend_on_how_far_the_host_is_ahead():
    torch.accelerator.synchronize()
    before = torch.accelerator.memory_allocated()
    weight = torch.randn(3, 4, 1, 1, device="sim")
    gate = threading.Event()
    device_of(0).queue.mark(gate.wait)
    x = torch.ones(2, 4, 8, 8, device="sim")
    for _ in range(3):
        y = torch.relu(torch.nn.functional.conv2d(x + 1, weight).exp_())
        y = torch.nn.functional.scaled_dot_product_attention(y, y, y).clone().sum()
    ahead = torch.accelerator.memory_allocated() - before
    gate.set()
    torch.accelerator.synchronize()
    assert torch.accelerator.memory_allocated() - before == ahead == 512 + 2048 + 512


def test_a_full_device_raises_and_recovers():
    allocated = torch.accelerator.memory_allocated(1)
    with pytest.raises(torch.OutOfMemoryError, match=r"^sim:1 out of memory"):
        torch.empty(65 * MIB, dtype=torch.uint8, device="sim:1")
    assert torch.accelerator.memory_allocated(1) == allocated
    assert torch.ones(3, device="sim:1").sum().item() == 3


def test_temporaries_run_out_too():
    x = torch.ones(10 * MIB, device="sim:1")
    with pytest.raises(torch.OutOfMemoryError):
        x + 1
