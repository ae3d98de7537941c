"""Operators with their own kernels: new tensors, sizes, attention, views."""

import copy
import io

import pytest
import torch

from bench.simulated.devices import device as device_of
from bench.simulated.settings import SimulationError
from bench.simulated.storage import new_tensor

attend = torch.nn.functional.scaled_dot_product_attention


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16", "int8", "uint16", "bool", "complex64"])
def test_dtypes_survive_the_way_there_and_back(dtype):
    values = torch.tensor([0, 1, 1]).to(getattr(torch, dtype))
    assert torch.equal(values.to("sim").cpu(), values)


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
def test_eight_bits_survive_too(dtype):
    values = torch.tensor([0.0, 0.5, -2.0])
    assert torch.equal(values.to("sim").to(getattr(torch, dtype)).float().cpu(), values)


def test_other_dtypes_are_refused():
    with pytest.raises(SimulationError, match=r"no tensors of torch\.quint8\.$"):
        new_tensor(device_of(0), (1,), (1,), torch.quint8)


def test_attention_is_one_kernel_with_the_values_of_the_cpu():
    q, k, v = (torch.randn(2, 3, 8, 4) for _ in range(3))
    there = [tensor.to("sim") for tensor in (q, k, v)]
    device_of(0).counters.reset()
    made = attend(*there)
    assert device_of(0).counters.kernels == 1
    assert torch.equal(made.cpu(), attend(q, k, v))
    mask = torch.rand(8, 8) > 0.5
    assert torch.equal(attend(*there, attn_mask=mask.to("sim")).cpu(), attend(q, k, v, attn_mask=mask))


def test_attention_has_gradients():
    q = torch.randn(1, 2, 8, 4)
    here, there = q.clone().requires_grad_(), q.to("sim").requires_grad_()
    attend(here, here, here).sum().backward()
    attend(there, there, there).sum().backward()
    torch.testing.assert_close(there.grad.cpu(), here.grad)


def test_views_share_their_bytes():
    x = torch.zeros(2, 6, device="sim")
    for view in (x.view(3, 4), x.T, x[1:], x.unfold(1, 2, 2), x.view(torch.int32), x.detach()):
        assert view.data_ptr() - x.data_ptr() == view.storage_offset() * 4
    x.view(3, 4)[2] = 1
    assert x[1].tolist() == [0, 0, 1, 1, 1, 1]


def test_growing_keeps_the_values_in_front():
    assert torch.arange(3.0, device="sim").resize_(2, 2).flatten()[:3].tolist() == [0, 1, 2]


def test_deep_copies_and_files_keep_the_values():
    x = torch.arange(3.0, device="sim:1")
    copied = copy.deepcopy(torch.nn.Linear(2, 2).to("sim:1"))
    assert copied.weight.device == torch.device("sim:1")
    file = io.BytesIO()
    torch.save(x, file)
    for target in (None, "cpu", "sim:0"):
        file.seek(0)
        loaded = torch.load(file, map_location=target)
        assert loaded.device == torch.device(target or "sim:1")
        assert loaded.tolist() == [0, 1, 2]


def test_a_storage_of_the_device_can_be_made():
    assert torch.UntypedStorage(8, device="sim:1").device == torch.device("sim:1")
    assert torch.UntypedStorage(8).device == torch.device("cpu")
