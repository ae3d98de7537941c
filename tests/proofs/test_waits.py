"""How often each scheduler waits: the table follows from two calls of each."""

from __future__ import annotations

from typing import Any

import pytest

from bench.calls.device_work import DeviceWork
from bench.pictures.simulated_work import accept_simulated
from bench.proofs.waits import main, table, waits_by_scheduler, waits_of
from bench.suite.case import Case, Model, Settings

MODEL = Model(name="emoji-sd", kind="stable-diffusion", source="embedded")


def _work(**waits: int) -> DeviceWork:
    return DeviceWork(kernels=1, waits=waits, copies={}, copied_bytes={})


def _case(scheduler: str, steps: int, **settings: Any) -> Case:
    usual = {"sentinel": "schedulers", "guidance": 7.5, "images": 1, "prompts": ("a fox",)}
    return Case(model=MODEL, settings=Settings(scheduler=scheduler, steps=steps, **(usual | settings)))


def test_what_happens_once_per_call_is_not_of_a_step():
    found = waits_of("ddim", (2, _work(item=12, nonzero=1)), (5, _work(item=30, nonzero=1)))
    assert found.per_step == {"item": 6}
    assert found.of_steps == 6


def test_a_scheduler_that_never_waits_in_a_step():
    found = waits_of("euler", (2, _work(item=1)), (5, _work(item=1)))
    assert (found.per_step, found.of_steps) == ({}, 0)


def test_the_two_longest_calls_count_and_the_most_waits_come_first():
    steps = {1: 50, 2: 4, 5: 7}
    cases = [_case(name, number) for name in ("euler", "ddim") for number in steps]
    kept = {
        case.id: _work(item=steps[case.settings.steps] if case.settings.scheduler == "ddim" else 1) for case in cases
    }
    once, options = _case("lms", 5), _case("ddim", 9, options={"eta": 1.0})
    kept |= {once.id: _work(item=9), options.id: _work(item=900)}
    found = waits_by_scheduler([*cases, once, options], kept, "emoji-sd")
    assert [(one.scheduler, one.of_steps) for one in found] == [("ddim", 1.0), ("euler", 0.0)]
    assert table(found).splitlines()[2] == "| ddim | 1 | item 1 |"


def test_a_model_without_counts_is_one_sentence(tmp_path, capsys):
    accept_simulated(tmp_path, _case("ddim", 5), _work(item=1))
    assert main(["--model", "emoji-sd", "--golden-dir", str(tmp_path)]) == 4
    assert "--model emoji-sd: no scheduler of it was counted with two numbers of steps" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["emoji-sd", "emoji-ddpm"])
def test_the_accepted_work_of_the_suite_has_a_table(name, capsys):
    assert main(["--model", name]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("| ddim |") for line in lines)
