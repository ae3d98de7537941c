"""Speed settings: each one takes effect without changing the pictures, or says that it has no effect."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch._dynamo.utils import counters

from bench.calls.device import Cpu
from bench.calls.optimizations import (
    KNOBS,
    Knob,
    NotApplied,
    apply_optimizations,
    check_applied,
    check_applied_in_call,
)
from bench.calls.sampling import generate
from bench.calls.timing import measure
from bench.suite.optimizations import OPTIMIZATIONS, Optimization, compiles
from bench.suite.schedulers import DDPM, STABLE_DIFFUSION

pytestmark = pytest.mark.usefixtures("one_thread")

HERE = {
    name: one
    for name, one in OPTIMIZATIONS.items()
    if not one.devices and not one.compiles and (not one.package or importlib.util.find_spec(one.package))
}
IMMEDIATE = [(name, kind) for name, one in HERE.items() if not one.in_calls for kind in sorted(one.kinds)]
# The tiny pictures have too few tokens to merge.
IN_CALLS = [name for name, one in HERE.items() if one.in_calls and name != "token-merging"]


def largest_difference(one: list[Image.Image], other: list[Image.Image]) -> int:
    levels = [np.stack([np.asarray(image) for image in images]).astype(np.int16) for images in (one, other)]
    return int(np.abs(levels[0] - levels[1]).max())


@pytest.fixture
def nothing_compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No compiled graph before the test, none after it, and an empty cache in between."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()
    counters.clear()


@pytest.mark.parametrize(("name", "kind"), IMMEDIATE)
def test_an_optimization_is_on_only_if_asked_for(name, kind, tiny_case, load_tiny):
    plain, quick = tiny_case(kind), tiny_case(kind, optimizations=(name,))
    without, with_it = load_tiny(plain), load_tiny(quick)
    assert KNOBS[name].count(without.pipeline) == 0
    assert KNOBS[name].count(with_it.pipeline) > 0
    difference = largest_difference(generate(with_it, quick), generate(without, plain))
    if not OPTIMIZATIONS[name].changes_pictures:
        assert difference <= 1
    elif name != "vae-tiling":  # pictures of one tile need no tiling
        assert difference > 0


@pytest.mark.parametrize("name", IN_CALLS)
def test_what_takes_effect_in_calls_is_counted_there(name, tiny_case, load_tiny):
    plain, quick = (tiny_case(STABLE_DIFFUSION, steps=6, optimizations=names) for names in ((), (name,)))
    without, with_it = load_tiny(plain), load_tiny(quick)
    assert KNOBS[name].count(with_it.pipeline) == 0
    difference = largest_difference(generate(with_it, quick), generate(without, plain))
    assert KNOBS[name].count(with_it.pipeline) > 0
    assert (difference > 1) == OPTIMIZATIONS[name].changes_pictures
    check_applied_in_call(with_it.pipeline, (name,))


@pytest.mark.parametrize("name", IN_CALLS)
def test_what_does_nothing_in_the_first_call_is_refused(name, tiny_case, load_tiny, monkeypatch):
    idle = Knob(KNOBS[name].apply, lambda _pipeline: 0)
    monkeypatch.setitem(KNOBS, name, idle)
    case = tiny_case(STABLE_DIFFUSION, steps=6, optimizations=(name,))
    with pytest.raises(NotApplied, match=f"'{name}' had no effect"):
        measure(load_tiny(case), case, Cpu(), 1)


@pytest.mark.skipif("token-merging" not in HERE, reason="tomesd is not installed")
def test_merging_that_finds_too_few_tokens_is_refused(tiny_case, load_tiny):
    case = tiny_case(STABLE_DIFFUSION, optimizations=("token-merging",))
    with pytest.raises(NotApplied, match="'token-merging' had no effect"):
        measure(load_tiny(case), case, Cpu(), 1)


def test_guidance_ends_in_the_middle_and_halves_the_batch(tiny_case, load_tiny):
    case = tiny_case(STABLE_DIFFUSION, scheduler="ddim", steps=6, optimizations=("guidance-cutoff",))
    loaded = load_tiny(case)
    batches: list[int] = []
    loaded.pipeline.unet.register_forward_pre_hook(lambda _module, arguments: batches.append(len(arguments[0])))
    generate(loaded, case)
    assert batches == [4, 4, 4, 2, 2, 2]


def test_prompts_are_encoded_once(tiny_case, load_tiny):
    case = tiny_case(STABLE_DIFFUSION, optimizations=("prompt-embeddings",))
    loaded = load_tiny(case)
    calls: list[None] = []
    loaded.pipeline.text_encoder.register_forward_pre_hook(lambda *_: calls.append(None))
    for _ in range(3):
        generate(loaded, case)
    assert len(calls) == 2  # the prompts, and the empty ones of guidance


@pytest.mark.parametrize("name", ["model-offload", "sequential-offload", "group-offload"])
def test_an_offload_is_counted_by_its_hooks(name, tiny_case, load_tiny):
    assert KNOBS[name].count(load_tiny(tiny_case(STABLE_DIFFUSION)).pipeline) == 0


@pytest.mark.parametrize("kind", [STABLE_DIFFUSION, DDPM])
def test_every_convolution_is_channels_last(kind, tiny_case, load_tiny):
    pipeline = load_tiny(tiny_case(kind, optimizations=("channels-last",))).pipeline
    parts = [pipeline.unet, pipeline.vae] if kind == STABLE_DIFFUSION else [pipeline.unet]
    kernels = [weight for part in parts for weight in part.parameters() if weight.dim() == 4]
    assert kernels
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in kernels)


@pytest.mark.parametrize("name", ["attention-slicing", "fused-qkv"])
def test_every_attention_is_counted(name, tiny_case, load_tiny):
    pipeline = load_tiny(tiny_case(STABLE_DIFFUSION, optimizations=(name,))).pipeline
    assert KNOBS[name].count(pipeline) == len(pipeline.unet.attn_processors) > 0


def test_settings_are_switched_on_together(tiny_case, load_tiny):
    names = ("channels-last", "attention-slicing", "vae-slicing")
    case = tiny_case(STABLE_DIFFUSION, optimizations=names)
    loaded = load_tiny(case)
    assert all(KNOBS[name].count(loaded.pipeline) for name in names)
    plain = tiny_case(STABLE_DIFFUSION)
    assert largest_difference(generate(loaded, case), generate(load_tiny(plain), plain)) <= 1


def test_a_setting_that_undoes_an_earlier_one_is_noticed(tiny_case, load_tiny):
    # Both replace the same processors, and the last one wins.
    with pytest.raises(NotApplied, match="'attention-slicing' had no effect"):
        load_tiny(tiny_case(STABLE_DIFFUSION, optimizations=("attention-slicing", "fused-qkv")))


@pytest.mark.parametrize(("name", "kind"), IMMEDIATE)
def test_a_setting_that_does_nothing_is_refused(name, kind, tiny_case, load_tiny, monkeypatch):
    monkeypatch.setitem(KNOBS, name, Knob(lambda _pipeline: None, KNOBS[name].count))
    with pytest.raises(NotApplied) as refused:
        load_tiny(tiny_case(kind, optimizations=(name,)))
    assert str(refused.value) == f"optimization '{name}' had no effect: nothing in the pipeline uses it."


def test_the_librarys_own_setting_without_effect_is_refused(tiny_case, load_tiny, monkeypatch):
    # On these networks the library accepts the call and changes no processor.
    pipeline = load_tiny(tiny_case(STABLE_DIFFUSION)).pipeline
    if not hasattr(pipeline.unet, "set_attention_backend"):
        pytest.skip("this diffusers has no set_attention_backend")

    def backends(pipeline) -> int:
        chosen = (getattr(part, "_attention_backend", None) for part in pipeline.unet.attn_processors.values())
        return sum(backend is not None for backend in chosen)

    knob = Knob(lambda pipeline: pipeline.unet.set_attention_backend("native"), backends)
    monkeypatch.setitem(OPTIMIZATIONS, "attention-backend", Optimization(frozenset({STABLE_DIFFUSION})))
    monkeypatch.setitem(KNOBS, "attention-backend", knob)
    with pytest.raises(NotApplied, match="'attention-backend' had no effect"):
        apply_optimizations(pipeline, ("attention-backend",))


@pytest.mark.parametrize("name", ["attention-slicing", "fused-qkv", "vae-slicing"])
def test_a_library_without_the_method_is_one_sentence(name):
    bare = SimpleNamespace(unet=SimpleNamespace(), vae=SimpleNamespace())
    with pytest.raises(NotApplied) as refused:
        apply_optimizations(bare, (name,))
    assert re.fullmatch(
        rf"optimization '{name}' cannot be switched on here: [^\n]*has no attribute[^\n]*\.", str(refused.value)
    )


def test_a_library_that_refuses_the_value_is_one_sentence(monkeypatch):
    def refuse(_pipeline) -> None:
        raise ValueError("no such backend")

    monkeypatch.setitem(KNOBS, "fused-qkv", Knob(refuse, KNOBS["fused-qkv"].count))
    with pytest.raises(NotApplied, match=r"^optimization 'fused-qkv' cannot be switched on here: no such backend\.$"):
        apply_optimizations(SimpleNamespace(), ("fused-qkv",))


def test_only_compiling_settings_wait_for_the_first_call():
    assert all(name.startswith("compile") for name, one in OPTIMIZATIONS.items() if one.compiles)
    assert compiles(("channels-last", "compile"))
    assert not compiles(("channels-last", "fused-qkv"))
    assert not compiles(())


@pytest.mark.usefixtures("nothing_compiled")
@pytest.mark.parametrize("name", ["compile", "compile-regional"])
def test_a_setting_that_compiles_nothing_is_refused(name, tiny_case, load_tiny, monkeypatch):
    monkeypatch.setitem(KNOBS, name, Knob(lambda _pipeline: None, KNOBS[name].count))
    case = tiny_case(STABLE_DIFFUSION, optimizations=(name,), steps=1, images=1)
    loaded = load_tiny(case)
    with pytest.raises(NotApplied, match=f"'{name}' had no effect"):
        measure(loaded, case, Cpu(), 2)


@pytest.mark.slow
@pytest.mark.usefixtures("nothing_compiled")
@pytest.mark.skipif(not shutil.which("g++") and not shutil.which("clang++"), reason="no C++ compiler here")
def test_regional_compilation_compiles_and_the_pictures_stay(tiny_case, load_tiny):
    quick, plain = tiny_case(STABLE_DIFFUSION, optimizations=("compile-regional",)), tiny_case(STABLE_DIFFUSION)
    loaded = load_tiny(quick)
    images = generate(loaded, quick)
    check_applied(loaded.pipeline, ("compile-regional",))
    assert largest_difference(images, generate(load_tiny(plain), plain)) <= 1
