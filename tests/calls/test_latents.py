"""The latents of a call, step by step."""

from __future__ import annotations

import inspect

import pytest
import torch

from bench.calls.latents import TooLarge, kept_latents
from bench.calls.sampling import prepared
from bench.suite.schedulers import DDPM, STABLE_DIFFUSION


@pytest.mark.parametrize(("kind", "scheduler", "steps"), [(DDPM, "ddpm", 4), (STABLE_DIFFUSION, "pndm", 5)])
def test_latents_before_the_first_step_and_after_each(kind, scheduler, steps, tiny_case, load_tiny):
    case = tiny_case(kind, scheduler=scheduler)
    loaded = load_tiny(case)
    plain = prepared(loaded, case)()
    call = prepared(loaded, case)
    with kept_latents(call.pipeline.scheduler) as kept:
        images = call()
    assert torch.equal(torch.as_tensor(images), torch.as_tensor(plain))
    assert len(kept) == 1 + 2 * steps
    assert len({tensor.shape for tensor in kept}) == 1
    assert {(tensor.dtype, str(tensor.device)) for tensor in kept} == {(torch.float32, "cpu")}
    if kind == DDPM:
        assert torch.allclose((kept[-1] / 2 + 0.5).clamp(0, 1), torch.as_tensor(images), atol=1e-6)


class Scheduler:
    def step(self, model_output, timestep, sample, extra=None):
        sample += model_output  # a scheduler may write into its latents
        return (sample,)


def test_the_class_is_as_before_afterwards_and_tensors_are_copies():
    before = Scheduler.step
    latents = torch.zeros(2)
    with kept_latents(Scheduler()) as kept:
        assert "extra" in inspect.signature(Scheduler.step).parameters
        Scheduler().step(torch.ones(2), 0, latents)
        Scheduler().step(torch.ones(2), 0, latents)
    assert Scheduler.step is before
    assert [tensor[0].item() for tensor in kept] == [0, 1, 1, 1, 2]


def test_more_latents_than_fit_are_refused():
    with pytest.raises(TooLarge, match="more than 1 MiB"), kept_latents(Scheduler(), 2**20):
        Scheduler().step(torch.ones(2**17), 0, torch.zeros(2**17))
