"""The suite on the simulated accelerator: records without times, and words that say so."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench.calls.device import Accelerator
from bench.errors import UsageError
from bench.plugin.reporter import SIMULATED, session_header
from bench.plugin.session import refuse_on_simulated
from bench.record.environment import describe_environment
from bench.record.folder import RunFolder
from bench.record.record import read_records
from bench.run import GoldenPolicy, Run
from bench.suite.case import Case, Model, Settings


def _run(folder):
    device = Accelerator(torch.device("sim:0"))
    environment = describe_environment(device, folder)
    return Run(device, RunFolder(folder, "run"), GoldenPolicy(folder, "auto"), folder, environment, print)


def _case(folder):
    model = Model.model_validate({"name": "tiny", "kind": "ddpm", "source": "local", "path": folder})
    return Case(model=model, settings=Settings(scheduler="ddpm", steps=2, images=1))


def test_a_measured_case_has_no_times(tiny_ddpm_folder, tmp_path):
    run = _run(Path(tmp_path))
    made = run.benchmark(_case(tiny_ddpm_folder), rounds=1)
    (kept,) = read_records(run.folder.path / "records.jsonl")
    for record in (made, kept):
        assert record.device == "sim"
        assert record.pictures
        assert record.peak_memory_bytes
        assert record.peak_reserved_bytes
        assert record.peak_reserved_bytes >= record.peak_memory_bytes
        assert (record.load_s, record.first_call_s, record.samples_s) == (None, None, ())
        assert (record.first_call_cold, record.gpu) == (None, None)
        assert (record.median_s, record.mad_s, record.phases_s) == (None, None, None)
    assert run.environment["device_name"] == "simulated accelerator"


def test_the_header_says_that_times_mean_nothing(tmp_path):
    run = _run(Path(tmp_path))
    selection = SimpleNamespace(left_out={}, cases=[])
    session: Any = SimpleNamespace(
        run=run, device=run.device, selection=selection, suite=SimpleNamespace(file="a.toml")
    )
    assert SIMULATED in session_header(session)
    session.device = SimpleNamespace(type="cpu", name="Some Processor")
    assert SIMULATED not in session_header(session)


def _options(**given: Any) -> Any:
    return SimpleNamespace(**({"golden_difference": None, "golden_calibrate": False} | given))


@pytest.mark.parametrize("given", [{"golden_difference": "diffusers < 0.31"}, {"golden_calibrate": True}])
def test_no_golden_comes_from_a_simulated_accelerator(given):
    with pytest.raises(UsageError, match=r"draws no goldens: choose a real device with --device\.$"):
        refuse_on_simulated(_options(**given))
    refuse_on_simulated(_options())
