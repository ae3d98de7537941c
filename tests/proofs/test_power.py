"""The known slow-down: chosen layers do their work twice, and nothing else changes."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.calls.pipelines import Checkpoint
from bench.calls.sampling import generate
from bench.proofs.power import SLOW_WORKER
from bench.proofs.slow_down import choose_layers, layer_seconds, repeat_layers
from bench.suite.schedulers import DDPM
from bench.upgrade.request import load_request
from bench.upgrade.side_results import SideResult, picture_in, picture_of
from bench.upgrade.workers import WorkerProcess, fresh, started_worker
from tests.upgrade.helpers import KINDS, UNET_CALLS

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_chosen_layers_take_nearly_what_is_wanted():
    rng = random.Random(5)
    for _ in range(300):
        seconds = {f"layer {number}": rng.lognormvariate(0, 1.5) for number in range(rng.randint(1, 80))}
        wanted = rng.random() * sum(seconds.values())
        chosen = choose_layers(seconds, wanted)
        total = math.fsum(seconds[name] for name in chosen)
        assert total <= wanted * (1 + 1e-9)
        assert len(set(chosen)) == len(chosen)
        assert all(total + took > wanted for name, took in seconds.items() if name not in chosen)
        if len(seconds) > 40 and wanted > 2 * max(seconds.values()):
            assert total > 0.95 * wanted


def test_no_time_chooses_nothing_and_all_of_it_everything():
    seconds = {"a": 1.0, "b": 2.0, "c": 4.0}
    assert choose_layers(seconds, 0.0) == []
    assert choose_layers(seconds, 7.0) == ["c", "b", "a"]


@KINDS
def test_repeated_layers_work_twice_and_leave_the_pictures_alone(kind, tiny_case, load_tiny, monkeypatch):
    case = tiny_case(kind)
    loaded = load_tiny(case)
    plain = [image.tobytes() for image in generate(loaded, case)]
    unet = loaded.pipeline.unet
    seconds, whole = layer_seconds(unet, lambda: generate(loaded, case))
    assert whole > 0
    assert 0 < sum(seconds.values()) < 1.5 * whole
    assert all(not unet.get_submodule(name)._forward_hooks for name in seconds)
    kinds = (torch.nn.Conv2d, torch.nn.Linear, torch.nn.GroupNorm)
    names = [name for name in seconds if isinstance(unet.get_submodule(name), kinds)]
    counts = dict.fromkeys(names, 0)
    for name in names:
        monkeypatch.setattr(unet.get_submodule(name), "forward", counting(unet.get_submodule(name), counts, name))
    generate(loaded, case)
    once = dict(counts)
    repeated = names[::2]
    repeat_layers(unet, repeated)
    assert [image.tobytes() for image in generate(loaded, case)] == plain
    assert min(once.values()) >= UNET_CALLS[kind]
    for name in names:
        assert counts[name] - once[name] == (2 if name in repeated else 1) * once[name]


def counting(module: torch.nn.Module, counts: dict[str, int], name: str) -> Callable[..., Any]:
    forward = module.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        counts[name] += 1
        return forward(*args, **kwargs)

    return counted


@pytest.fixture(scope="module")
def slow_worker() -> Iterator[WorkerProcess]:
    with started_worker("one", Path(sys.executable), 120, program=SLOW_WORKER) as worker:
        yield worker


@pytest.fixture
def request_of(tiny_case) -> Callable[..., dict[str, Any]]:
    """``request_of("conv_in")`` is what the slow worker needs to load a tiny pipeline in which this layer repeats."""
    case = tiny_case(DDPM)
    plain = load_request(case, Checkpoint(Path(case.model.path), None, False), "cpu", 1)
    return lambda *layers: plain | {"repeated_layers": layers}


def test_a_worker_repeats_the_layers_that_it_is_told(slow_worker, request_of):
    plain = picture_of(slow_worker, request_of())
    repeated = picture_of(slow_worker, request_of("conv_in", "conv_out"))
    assert repeated.error is None
    assert repeated.images == plain.images
    assert convolutions(repeated) == convolutions(plain) + 2 * UNET_CALLS[DDPM]
    unknown = picture_of(slow_worker, request_of("no such layer"))
    assert unknown.error == "KeyError: 'no such layer'"


def convolutions(result: SideResult) -> int:
    assert result.work
    return result.work.operators["aten::convolution"]


def test_layers_repeat_their_work_in_one_case_only(slow_worker, request_of):
    layers = ((), ("conv_in",), ("conv_in",), ())
    with fresh(slow_worker) as process:
        counts = [convolutions(picture_in(process, request_of(*names))) for names in layers]
    assert [count - counts[0] for count in counts] == [0, UNET_CALLS[DDPM], UNET_CALLS[DDPM], 0]


def test_the_slow_worker_times_the_layers(slow_worker, request_of):
    with fresh(slow_worker) as process:
        process.ask("load", **request_of())
        costs, _ = process.ask("layers")
    assert 0 < costs["layers"]["conv_in"] < costs["whole"]


def test_without_forks_a_fresh_slow_worker_is_slow_too(request_of):
    with (
        started_worker("one", Path(sys.executable), 120, forks=False, program=SLOW_WORKER) as worker,
        fresh(worker) as process,
    ):
        process.ask("load", **request_of("conv_in"))
        assert process.program == SLOW_WORKER
        assert process.ask("layers")[0]["layers"]
