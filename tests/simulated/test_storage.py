"""Tensors that have sizes and no bytes."""

import torch

from bench.simulated import weightless
from bench.simulated.devices import device as device_of
from bench.simulated.storage import is_weightless


def test_what_is_computed_from_no_bytes_has_none():
    with weightless():
        layer = torch.nn.Linear(1000, 1000, device="sim")
    device_of(0).counters.reset()
    made = torch.nn.functional.softmax(layer(torch.ones(2, 1000, device="sim")), dim=-1)
    assert is_weightless(made)
    assert made.shape == (2, 1000)
    assert device_of(0).counters.kernels == 3
    assert made[0, 0].item() == 0
    assert made.cpu().count_nonzero() == 0
    assert made.nonzero().shape == (0, 2)
    assert device_of(0).counters.waits == {"item": 1, "copy to host": 1, "nonzero": 1}


def test_only_the_written_tensor_loses_its_bytes():
    with weightless():
        absent = torch.zeros(3, device="sim")
    kept = torch.ones(3, device="sim")
    written = kept.clone().add_(absent)
    assert is_weightless(written)
    assert kept.tolist() == [1, 1, 1]


def test_sizes_are_counted_and_no_memory_is_used():
    before = torch.accelerator.memory_allocated()
    with weightless():
        large = torch.empty(10 << 20, device="sim")
        other = torch.empty(10, device="sim")
    assert torch.accelerator.memory_allocated() - before == (40 << 20) + 512
    assert large.data_ptr() != other.data_ptr()


def test_counters_are_equal_with_and_without_bytes():
    def count():
        x = torch.ones(1, 3, 8, 8).to("sim")
        layer = torch.nn.Conv2d(3, 4, 3, device="sim")
        device_of(0).counters.reset()
        torch.relu(layer(x)).mean().item()
        return vars(device_of(0).counters).copy() | {"waits": dict(device_of(0).counters.waits)}

    with_bytes = count()
    with weightless():
        assert count() == with_bytes
