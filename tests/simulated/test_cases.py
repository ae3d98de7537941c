"""Cases of the suite on the simulated accelerator: where they run, what memory they use, goldens of two devices."""

import gc
from pathlib import Path
from unittest import mock

import pytest
import torch

from bench import run
from bench.calls.device import Accelerator, Cpu
from bench.calls.pipelines import load_pipeline
from bench.calls.placement import WrongDevice
from bench.calls.sampling import generate, prepared
from bench.calls.timing import measure, measure_peak, measure_phases
from bench.record.environment import describe_environment
from bench.record.folder import RunFolder
from bench.run import GoldenPolicy, Run
from bench.suite.case import Case, Model, Settings
from bench.verdicts import Verdict

OFFLOADS = ["model-offload", "sequential-offload", "group-offload"]


def _sim():
    return Accelerator(torch.device("sim:0"))


def _case(kind, folder, **settings):
    model = Model.model_validate({"name": f"tiny-{kind}", "kind": kind, "source": "local", "path": folder})
    usual = {"scheduler": "ddim", "steps": 2, "images": 1, "sentinel": "ways"}
    if kind == "stable-diffusion":
        usual |= {"guidance": 5.0, "prompts": ("red fox",)}
    return Case(model=model, settings=Settings(**(usual | settings)))


def _load(case):
    return load_pipeline(case.model, case.settings.dtype, case.settings.optimizations, _sim(), Path())


@pytest.mark.parametrize("scenario", ["plain", "loaded-without-dtype", "saved-and-loaded", "stored-in-float32"])
def test_the_pipeline_of_a_scenario_is_on_the_device(tiny_ddpm_folder, scenario):
    case = _case("ddpm", tiny_ddpm_folder, scenario=scenario)
    loaded = _load(case)
    assert prepared(loaded, case).pipeline.unet.device == _sim().torch_device
    assert generate(loaded, case)


def test_a_pipeline_that_was_left_on_the_processor_is_noticed(tiny_ddpm_folder):
    case = _case("ddpm", tiny_ddpm_folder)
    loaded = _load(case)
    loaded.pipeline.to("cpu")
    for call in (lambda: generate(loaded, case), lambda: measure_phases(loaded, case, _sim())):
        with pytest.raises(WrongDevice, match="the denoiser ran on cpu instead of sim:0"):
            call()


def test_another_accelerator_is_noticed_too(tiny_ddpm_folder):
    case = _case("ddpm", tiny_ddpm_folder)
    loaded = _load(case)
    loaded.pipeline.to("sim:1")
    with pytest.raises(WrongDevice, match="the denoiser ran on sim:1 instead of sim:0"):
        generate(loaded, case)


@pytest.mark.parametrize("name", OFFLOADS)
def test_an_offloaded_denoiser_runs_on_the_device_and_rests_elsewhere(tiny_sd_folder, name):
    case = _case("stable-diffusion", tiny_sd_folder, optimizations=(name,))
    loaded = _load(case)
    assert {one.device.type for one in loaded.pipeline.unet.parameters()} <= {"cpu", "meta"}
    assert generate(loaded, case)


@pytest.mark.parametrize("scenario", ["saved-and-loaded", "given-latents", "prompt-embeddings"])
def test_a_scenario_of_an_offloaded_pipeline_runs_on_the_device(tiny_sd_folder, scenario):
    case = _case("stable-diffusion", tiny_sd_folder, optimizations=("model-offload",), scenario=scenario)
    assert generate(_load(case), case)


def test_a_peak_holds_nothing_of_earlier_calls(tiny_sd_folder):
    """Without the collector, what refers to itself stays: the scheduler of the phases, with its last predictions."""
    case = _case("stable-diffusion", tiny_sd_folder, scheduler="pndm", steps=5, sentinel="", images=1)
    gc.collect()
    gc.disable()
    try:
        loaded = _load(case)
        alone, _ = measure_peak(loaded, case, _sim())
        after_others = measure(loaded, case, _sim(), 1).peak_memory
    finally:
        gc.enable()
    assert alone.allocated
    assert after_others.allocated == alone.allocated
    assert after_others.reserved
    assert after_others.reserved >= alone.allocated


def _run(folder, name, device=None, update=None):
    device = device or _sim()
    environment = describe_environment(device, folder)
    policy = GoldenPolicy(folder / "golden", update)
    return Run(device, RunFolder(folder / "results", name), policy, folder, environment, lambda _line: None)


@mock.patch.object(run, "is_simulated", return_value=False)  # as on a real accelerator, which has its own goldens
def _check_goldens_of_two_devices(folder, ddpm_folder, _is_simulated):
    cases = [_case("ddpm", ddpm_folder), _case("ddpm", ddpm_folder, scenario="called-twice")]
    for case in cases:
        _run(folder, "accept", Cpu(), "auto").picture(case)
    before = [_run(folder, "before").picture(case) for case in cases]
    assert [one.work.verdict for one in before] == [Verdict.NOT_COMPARED] * 2
    accepted = [_run(folder, "update", update="auto").picture(case) for case in cases]
    assert not any(Verdict(one.verdict).passes for one in accepted)
    written = {path.name for path in (folder / "golden").rglob("*.*")}
    devices = ("", "@sim-simulated-accelerator")
    assert written == {f"ways{device}{suffix}" for device in devices for suffix in (".png", ".json")}
    after = [_run(folder, "after").picture(case) for case in cases]
    assert [(one.verdict, one.work.verdict) for one in after] == [(Verdict.IDENTICAL, Verdict.SAME_WORK)] * 2
    assert [_run(folder, "cpu", Cpu()).picture(case).verdict for case in cases] == [Verdict.IDENTICAL] * 2


def test_cases_that_must_match_another_get_goldens_of_the_device(tiny_ddpm_folder, tmp_path):
    _check_goldens_of_two_devices(Path(tmp_path), tiny_ddpm_folder)
