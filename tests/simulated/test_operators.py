"""Operators give the CPU's values, in the sizes that were predicted, and wait where CUDA waits."""

import pytest
import torch

from bench.simulated.devices import device as device_of


def _counters():
    return device_of(0).counters


def _both(function, *tensors):
    """The results on the CPU and on the device, both on the CPU."""
    here = function(*tensors)
    there = function(*(tensor.to("sim") for tensor in tensors))
    assert there.device == torch.device("sim:0")
    return here, there.cpu()


@pytest.mark.parametrize(
    "name",
    ["add", "broadcast", "matmul", "convolution", "group_norm", "sort", "where", "cat", "upsample", "fft", "inverse"],
)
def test_values_are_those_of_the_cpu(name):
    functions = {
        "add": lambda x: x + 2.5,
        "broadcast": lambda x: x * x[:1, :1],
        "matmul": lambda x: x.flatten(1) @ x.flatten(1).T,
        "convolution": lambda x: torch.nn.functional.conv2d(x, x[:, :, :3, :3], padding=1),
        "group_norm": lambda x: torch.nn.functional.group_norm(x, 2),
        "sort": lambda x: x.sort(dim=-1, descending=True)[0],
        "where": lambda x: torch.where(x > 0, x, torch.zeros((), device=x.device)),
        "cat": lambda x: torch.cat([x, x[:1]]).permute(1, 0, 3, 2),
        "upsample": lambda x: torch.nn.functional.interpolate(x, scale_factor=2.0),
        "fft": lambda x: torch.fft.fft2(x).abs(),
        "inverse": lambda x: torch.linalg.inv(x[0, 0]),
    }
    here, there = _both(functions[name], torch.randn(2, 4, 6, 6))
    assert torch.equal(here, there)


def test_results_are_plain_tensors():
    x = torch.ones(2, 3, device="sim")
    assert type(x + 1) is torch.Tensor
    assert x.data_ptr()
    assert x.untyped_storage().nbytes() == 24


def test_out_arguments_get_their_size():
    x = torch.ones(2, 3, device="sim")
    out = torch.empty(0, device="sim")
    assert torch.add(x, x, out=out) is out
    assert out.tolist() == [[2, 2, 2], [2, 2, 2]]


def test_batch_norm_writes_statistics_and_returns_new_tensors():
    here, there = torch.nn.BatchNorm2d(3), torch.nn.BatchNorm2d(3).to("sim")
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(here(x), there(x.to("sim")).cpu())
    assert torch.equal(here.running_mean, there.running_mean.cpu())


def test_gradients_are_those_of_the_cpu():
    layer = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.GroupNorm(2, 4))
    x = torch.randn(2, 3, 8, 8)
    layer(x).square().sum().backward()
    expected = layer[0].weight.grad
    layer.zero_grad()
    layer.to("sim")
    layer(x.to("sim")).square().sum().backward()
    torch.testing.assert_close(layer[0].weight.grad.cpu(), expected)


def test_channels_last_stays_as_on_cuda():
    x = torch.randn(1, 4, 5, 5, device="sim").contiguous(memory_format=torch.channels_last)
    y = torch.nn.functional.conv2d(x, torch.randn(3, 4, 3, 3, device="sim"))
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_wrong_shapes_raise_immediately():
    x = torch.ones(3, device="sim")
    with pytest.raises(RuntimeError):
        x @ torch.ones(4, device="sim")
    with pytest.raises(RuntimeError):
        x.add_(torch.ones(4, device="sim"))
    torch.accelerator.synchronize()


def test_an_item_in_a_loop_waits_each_time():
    x = torch.arange(5.0, device="sim")
    _counters().reset()
    assert sum(x[place].item() for place in range(5)) == 10
    assert _counters().waits == {"item": 5}
    assert _counters().kernels == 0


def test_a_small_program_is_counted():
    x = torch.ones(4, 4).to("sim")
    y = torch.relu(x @ x) + 1
    z = y.clone()
    z.cpu()
    assert _counters().kernels == 3
    assert _counters().copies == {"host to device": 1, "device to device": 1, "device to host": 1}
    assert _counters().copied_bytes == {"host to device": 64, "device to device": 64, "device to host": 64}
    assert _counters().waits == {"copy to device": 1, "copy to host": 1}


def test_sizes_that_depend_on_values_are_waited_for():
    x = torch.tensor([0.0, 2.0, 3.0], device="sim")
    _counters().reset()
    assert x.nonzero().shape == (2, 1)
    assert x[x > 2].shape == (1,)
    assert torch.equal(x, x)
    assert x.unique().shape == (3,)
    assert _counters().waits == {"nonzero": 1, "index": 1, "equal": 1, "_unique2": 1}


def test_a_value_for_all_places_of_a_mask_is_not_waited_for():
    x = torch.tensor([0.0, 2.0, 3.0], device="sim")
    _counters().reset()
    x[x > 1] = 7
    assert not _counters().waits
    assert x.tolist() == [0, 7, 7]


def test_indices_from_the_cpu_are_copied():
    x = torch.arange(3.0, device="sim")
    _counters().reset()
    assert x[torch.tensor([2, 0])].tolist() == [2, 0]
    assert _counters().copies["host to device"] == 1


def test_numbers_from_the_cpu_go_with_any_device():
    number = torch.tensor(2.0)
    y = torch.ones(2, device="sim:1") * number
    number.zero_()
    assert y.tolist() == [2, 2]


@pytest.mark.parametrize("other", ["cpu", "sim:1"])
def test_tensors_of_two_devices_raise_as_on_cuda(other):
    message = f"^Expected all tensors to be on the same device, but found at least two devices, sim:0 and {other}!"
    x, y = torch.ones(2, 2, device="sim"), torch.ones(2, 2, device=other)
    for mixed in (
        lambda: x + y,
        lambda: x @ y,
        lambda: x.add_(y),
        lambda: torch.cat([x, y]),
        lambda: torch.nn.functional.scaled_dot_product_attention(x[None, None], y[None, None], x[None, None]),
    ):
        with pytest.raises(RuntimeError, match=message):
            mixed()


def test_the_cpu_is_not_written_by_the_device():
    number = torch.ones(())
    with pytest.raises(RuntimeError, match="found at least two devices, sim:0 and cpu"):
        number.add_(torch.ones((), device="sim"))
    assert number == 1
