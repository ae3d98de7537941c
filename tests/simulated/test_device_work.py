"""What one call asks of an accelerator: the same on every run, and each fault is named."""

import functools
from pathlib import Path

import pytest
import torch

from bench.calls.device import Accelerator
from bench.calls.pipelines import load_pipeline
from bench.calls.work import count_work
from bench.calls.work_verdict import compare_work
from bench.simulated.counters import TO_DEVICE
from bench.suite.case import Case, Model, Settings


def _loaded(folder, kind="ddpm", steps=4, device="sim:0", **settings):
    model = Model.model_validate({"name": "tiny", "kind": kind, "source": "local", "path": folder})
    case = Case(model=model, settings=Settings(steps=steps, images=1, **settings))
    return load_pipeline(model, "float32", (), Accelerator(torch.device(device)), Path(folder)), case


def _each_step(pipeline, what):
    """Does something with the prediction of each step, as a change of the library might."""
    forward = pipeline.unet.forward

    @functools.wraps(forward)
    def changed(*args, **kwargs):
        made = forward(*args, **kwargs)
        what(made[0] if isinstance(made, tuple) else made.sample)
        return made

    pipeline.unet.forward = changed


@pytest.mark.parametrize("device", ["sim:0", "sim:1"])
def test_counts_are_the_same_on_every_run(tiny_ddpm_folder, device):
    loaded, case = _loaded(tiny_ddpm_folder, scheduler="ddpm", device=device)
    first, *others = (count_work(loaded, case) for _ in range(3))
    assert others == [first, first]
    assert first.on_device
    assert first.on_device.kernels > 100
    assert first.on_device.copies[TO_DEVICE] >= 1


def test_waits_of_the_device_replace_value_reads(tiny_ddpm_folder):
    loaded, case = _loaded(tiny_ddpm_folder, scheduler="ddpm")
    work = count_work(loaded, case)
    assert work.host_syncs == {}
    assert work.on_device
    assert sum(work.on_device.waits.values()) > 0


IDLE = {
    "item": lambda prediction: prediction.flatten()[0].item(),
    "synchronize": lambda prediction: torch.accelerator.synchronize(),
    "round trip": lambda prediction: prediction.to("cpu").to("sim"),
}


@pytest.mark.parametrize(
    ("what", "changed"),
    [
        ("item", ["waits for the device", "transfers"]),
        ("synchronize", ["waits for the device"]),
        ("round trip", ["waits for the device", "transfers"]),
    ],
)
def test_what_leaves_a_device_idle_is_more_work(tiny_ddpm_folder, what, changed):
    loaded, case = _loaded(tiny_ddpm_folder, scheduler="ddpm")
    before = count_work(loaded, case)
    _each_step(loaded.pipeline, IDLE[what])
    found = compare_work(count_work(loaded, case), before)
    for quantity in changed:
        assert any(text.startswith(quantity) and "per step" in text for text in found.more), found.message


def test_reading_a_value_of_the_host_leaves_no_device_idle(tiny_ddpm_folder):
    loaded, case = _loaded(tiny_ddpm_folder, scheduler="ddpm")
    before = count_work(loaded, case)
    on_host = torch.ones(3)
    _each_step(loaded.pipeline, lambda prediction: on_host[0].item())
    assert compare_work(count_work(loaded, case), before).verdict == "same work"
