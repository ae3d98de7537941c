"""The device exists only on request, and ends with the process."""

import pytest
import torch

from bench.simulated import VARIABLE, Settings, SimulationError, enable, enable_if_asked, enabled_settings


def _nothing_without_asking():
    from bench.calls.device import choose_device

    enable_if_asked()
    choose_device("cpu")
    choose_device("auto")
    assert enabled_settings() is None
    assert not hasattr(torch, "sim")


def test_nothing_is_enabled_without_asking(alone):
    ended = alone(_nothing_without_asking, **{VARIABLE: "0"})
    assert ended.returncode == 0, ended.stderr


def _chosen_by_name():
    from bench.calls.device import Cpu, choose_device, clock, is_simulated

    device = choose_device("sim:1")
    assert (device.type, device.name, device.torch_device) == ("sim", "simulated accelerator", torch.device("sim:1"))
    assert device.total_memory == 5_000_000
    assert is_simulated(device)
    assert not is_simulated(Cpu())
    assert choose_device("auto").torch_device == torch.device("sim:0")
    assert clock(device) > 0


def test_the_suite_enables_it_by_name(alone):
    ended = alone(_chosen_by_name, **{VARIABLE: "memory_bytes=5000000"})
    assert ended.returncode == 0, ended.stderr


def _refused_by_name():
    from bench.calls.device import DeviceError, choose_device

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "__version__", "2.9.0")
        with pytest.raises(DeviceError, match=r"^--device sim: the simulated accelerator needs torch 2\.10"):
            choose_device("sim")


def test_the_suite_refuses_an_older_torch(alone):
    ended = alone(_refused_by_name)
    assert ended.returncode == 0, ended.stderr


def _ends_with_work_in_the_queue():
    import os

    enable_if_asked()
    kept = torch.ones(1000, device="sim")
    torch.kept = [kept]
    kept.untyped_storage().cycle = kept
    for _ in range(200):
        kept = kept + 1
    print("queued", flush=True)
    child = os.fork()
    if not child:
        with pytest.raises(SimulationError, match=r"forked process; start processes with spawn\.$"):
            kept.add_(1)
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_process_ends_immediately_and_without_crash(alone):
    ended = alone(_ends_with_work_in_the_queue, **{VARIABLE: "devices=1,latency_s=1"})
    assert (ended.returncode, ended.stdout) == (0, "queued\n"), ended.stderr


def test_enabling_again_changes_nothing():
    before = enabled_settings()
    enable()
    enable(before)
    assert enabled_settings() is before


def test_other_settings_come_too_late():
    with pytest.raises(SimulationError, match=r"enabled already, with Settings\(devices=4"):
        enable(Settings(devices=1))
