"""Random numbers are the CPU's, in the order of the calls."""

import pytest
import torch


def test_a_seed_is_for_all_devices():
    torch.manual_seed(3)
    expected = torch.randn(4)
    torch.manual_seed(3)
    assert torch.equal(torch.randn(4, device="sim:0").cpu(), expected)
    assert torch.equal(torch.randn(4, device="sim:1").cpu(), expected)
    assert torch.sim.initial_seed() == 3


def test_a_state_is_read_after_the_work_so_far():
    torch.manual_seed(3)
    torch.randn(4, device="sim")
    state = torch.sim.get_rng_state()
    first = torch.randn(4, device="sim")
    with torch.random.fork_rng(devices=[0], device_type="sim"):
        torch.randn(4, device="sim")
    second = torch.randn(4, device="sim")
    torch.sim.set_rng_state(state)
    assert torch.equal(torch.randn(4, device="sim"), first)
    assert torch.equal(torch.randn(4, device="sim"), second)


def test_generators_of_the_device():
    generator = torch.Generator("sim:1").manual_seed(8)
    assert generator.device == torch.device("sim:1")
    expected = torch.rand(3, generator=torch.Generator().manual_seed(8))
    assert torch.equal(torch.rand(3, device="sim:1", generator=generator).cpu(), expected)


def test_generators_of_the_cpu_stay_generators():
    assert isinstance(torch.Generator(), torch.Generator)
    assert torch.Generator().device == torch.device("cpu")


@pytest.mark.parametrize("device", ["cpu", "sim:1"])
def test_generators_of_another_device_are_refused(device):
    message = f"Expected a 'sim:0' device type for generator but found '{device}'"
    with pytest.raises(RuntimeError, match=message):
        torch.rand(3, device="sim:0", generator=torch.Generator(device))
