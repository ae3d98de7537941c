"""Work counts: exact on every run and in every setting of the machine, and each fault is named."""

from __future__ import annotations

import contextlib
import gc
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from diffusers.models.resnet import ResnetBlock2D
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from bench.calls.device import Cpu
from bench.calls.device_work import DeviceWork
from bench.calls.pipelines import LoadedPipeline, load_pipeline
from bench.calls.sampling import generate, prepare_call
from bench.calls.work import (
    ATTENTION,
    OperatorCounter,
    Work,
    _kind_of,
    compiled_graphs,
    count_work,
    counted_call,
    forget_compiled,
)
from bench.calls.work_verdict import compare_work
from bench.suite.case import Case
from bench.suite.file import read_suite
from bench.suite.schedulers import DDPM, STABLE_DIFFUSION
from bench.training.architectures import TOKENS
from bench.verdicts import Verdict

pytestmark = pytest.mark.usefixtures("one_thread", "quick_collections")

KINDS = pytest.mark.parametrize("kind", [STABLE_DIFFUSION, DDPM])


def with_settings(case: Case, **changed: Any) -> Case:
    return case.model_copy(update={"settings": case.settings.model_copy(update=changed)})


@pytest.fixture(scope="module")
def ddim_case(tiny_case) -> Callable[..., Case]:
    """A case of this kind with a scheduler that both kinds know, so that a fault in it is one in both."""
    return lambda kind, **settings: tiny_case(kind, scheduler="ddim", **settings)


@pytest.fixture(scope="module")
def sound(ddim_case, load_tiny) -> Callable[[str], Work]:
    """The work of the intact tiny pipeline of this kind."""
    kept: dict[str, Work] = {}

    def work(kind: str) -> Work:
        if kind not in kept:
            case = ddim_case(kind)
            kept[kind] = count_work(load_tiny(case), case)
        return kept[kind]

    return work


@KINDS
def test_the_first_call_counts_like_every_other(kind, ddim_case, load_tiny):
    case = ddim_case(kind)
    loaded = load_tiny(case)
    first = count_work(loaded, case)
    generate(loaded, case)
    assert count_work(loaded, case) == first
    assert compare_work(count_work(loaded, case), first).verdict == Verdict.SAME_WORK


def two_threads() -> Any:
    torch.set_num_threads(2)
    return torch.no_grad()


@pytest.mark.filterwarnings("ignore:TF32")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "setting",
    [two_threads, lambda: torch.backends.mkldnn.flags(enabled=False)],
    ids=["two threads", "other convolutions"],
)
def test_counts_do_not_depend_on_threads_or_kernels(setting, dtype, ddim_case, load_tiny):
    case = ddim_case(STABLE_DIFFUSION, dtype=dtype, steps=2)
    loaded = load_tiny(case)
    plain = count_work(loaded, case)
    with setting():
        assert count_work(loaded, case) == plain


def test_composite_operators_are_taken_apart_if_they_arrive_whole(ddim_case, load_tiny, sound):
    with torch.inference_mode():
        work = count_work(load_tiny(ddim_case(STABLE_DIFFUSION)), ddim_case(STABLE_DIFFUSION))
    plain = sound(STABLE_DIFFUSION)
    assert "aten::linear" not in work.operators
    assert (work.flops, work.host_syncs) == (plain.flops, plain.host_syncs)
    assert work.operators[ATTENTION] == plain.operators[ATTENTION]


@KINDS
def test_counting_does_not_change_pictures_or_pipeline(kind, ddim_case, load_tiny):
    case = ddim_case(kind)
    loaded = load_tiny(case)
    before = generate(loaded, case)
    count_work(loaded, case)
    assert [image.tobytes() for image in generate(loaded, case)] == [image.tobytes() for image in before]
    assert not getattr(getattr(loaded.pipeline, "text_encoder", loaded.pipeline.unet), "_forward_pre_hooks", None)
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (STABLE_DIFFUSION, {}),
        (STABLE_DIFFUSION, {"scheduler": "ddim"}),
        (STABLE_DIFFUSION, {"scheduler": "euler"}),
        (STABLE_DIFFUSION, {"scheduler": "euler-ancestral"}),
        (STABLE_DIFFUSION, {"dtype": "bfloat16"}),
        (STABLE_DIFFUSION, {"dtype": "float16"}),
        (STABLE_DIFFUSION, {"optimizations": ("attention-slicing",)}),
        (STABLE_DIFFUSION, {"optimizations": ("channels-last",)}),
        (STABLE_DIFFUSION, {"optimizations": ("channels-last",), "dtype": "bfloat16"}),
        (STABLE_DIFFUSION, {"optimizations": ("fused-qkv",)}),
        (STABLE_DIFFUSION, {"optimizations": ("vae-slicing",)}),
        (DDPM, {}),
        (DDPM, {"dtype": "bfloat16"}),
        (DDPM, {"scheduler": "dpmpp-2m"}),
    ],
    ids=str,
)
def test_a_counted_call_makes_exactly_the_plain_pictures(kind, settings, tiny_case, load_tiny):
    case = tiny_case(kind, **settings)
    loaded = load_tiny(case)
    counted, _ = counted_call(loaded, case)
    plain = loaded.pipeline(**prepare_call(loaded, case)).images
    assert torch.equal(counted, plain)


def test_deterministic_algorithms_do_the_same_work(ddim_case, load_tiny, sound):
    """Picture checks ask torch for them and timing runs do not, and both compare with the same golden."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(not before, warn_only=True)
    try:
        for kind in (STABLE_DIFFUSION, DDPM):
            assert count_work(load_tiny(ddim_case(kind)), ddim_case(kind)) == sound(kind)
    finally:
        torch.use_deterministic_algorithms(before, warn_only=True)


def test_what_is_counted_is_what_was_done(ddim_case, sound):
    work, case = sound(STABLE_DIFFUSION), ddim_case(STABLE_DIFFUSION)
    prompts = 2 * case.settings.images  # with and without guidance
    assert work.unet_calls == case.settings.steps
    assert work.tokens == prompts * TOKENS
    assert (work.graphs, work.graph_breaks) == (None, None)
    assert list(work.operators) == sorted(work.operators)
    assert sound(DDPM).tokens == 0


def test_flops_copies_and_syncs_of_single_operators():
    counter = OperatorCounter()
    with torch.no_grad(), counter:
        matrix = torch.ones(3, 4) @ torch.ones(4, 5)
        matrix.t().contiguous()
        matrix.double()
        matrix.contiguous()  # it is already
        torch.nonzero(matrix)
        matrix[matrix > 0]
        float(matrix[0, 0])
        torch.nn.functional.scaled_dot_product_attention(*(torch.ones(1, 2, 6, 8) for _ in range(3)))
    assert counter.flops == 2 * 3 * 4 * 5 + 2 * 2 * (2 * 6 * 6 * 8)
    assert (counter.copies, counter.copied_bytes) == (2, 15 * 4 + 15 * 8)
    assert counter.host_syncs == {"aten::nonzero": 1, "aten::index by mask": 1, "aten::_local_scalar_dense": 1}
    assert counter.operators[ATTENTION] == 1


def test_flops_are_those_that_torch_counts():
    def multiply() -> None:
        pictures, kernel = torch.ones(2, 4, 8, 8), torch.ones(4, 4, 3, 3)
        for _ in range(2):  # again with the same shapes
            for stride in (1, 2):
                torch.conv2d(pictures, kernel, stride=stride)
                torch.conv_transpose2d(pictures, kernel, stride=stride)
        for batch in (1, 3):
            matrices = torch.ones(batch, 5, 5)
            torch.baddbmm(matrices, matrices, matrices, beta=2)
            torch.addmm(matrices[0], matrices[0], matrices[0], alpha=3)
            matrices[0] @ matrices[0, :, :batch]

    with torch.no_grad(), OperatorCounter() as counter:
        multiply()
    with torch.no_grad(), FlopCounterMode(display=False) as of_torch:
        multiply()
    assert counter.flops == of_torch.get_total_flops() > 0


def test_a_formula_that_needs_more_than_shapes_gets_the_tensors(monkeypatch):
    operator = torch.ops.aten.logcumsumexp
    monkeypatch.setitem(flop_registry, operator, lambda tensor, dim, *, out_val: int(tensor.sum()) + out_val.numel())
    monkeypatch.setattr("bench.calls.work._kind_of", _kind_of.__wrapped__)  # nothing is kept for other tests
    with torch.no_grad(), OperatorCounter() as counter:
        torch.logcumsumexp(torch.ones(3, 4), 0)
    assert counter.flops == 12 + 12


@pytest.mark.parametrize("raises", [False, True])
def test_methods_that_wait_are_counted_only_during_the_call(monkeypatch, ddim_case, load_tiny, raises):
    case = ddim_case(DDPM)
    loaded = load_tiny(case)
    if raises:
        monkeypatch.setattr(DDIMScheduler, "step", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError) if raises else contextlib.nullcontext():
        count_work(loaded, case)
    assert not {"cpu", "tolist"} & set(vars(torch.Tensor))


def test_peak_bytes_are_of_tensors_alive_at_the_same_time():
    weights = torch.ones(1000)
    with torch.no_grad(), OperatorCounter() as counter:
        view = weights.view(10, 100)  # nothing new
        first = view + 1  # 4,000 bytes
        second = first * 2  # and 4,000 more
        del first
        half = second[:5].clone()  # 6,000 in all
        half.add_(1)
        del second, half
        torch.zeros(500)
    assert counter.peak_bytes == 8000


# What faults do. Each takes the pipeline and breaks it for as long as the test lasts.


def read_a_value_each_step(patch: pytest.MonkeyPatch, _loaded: LoadedPipeline) -> None:
    step = DDIMScheduler.step

    def reading(self: Any, model_output: Any, *args: Any, **kwargs: Any) -> Any:
        model_output[0, 0, 0, 0].item()
        return step(self, model_output, *args, **kwargs)

    patch.setattr(DDIMScheduler, "step", reading)


def list_the_values_each_step(patch: pytest.MonkeyPatch, _loaded: LoadedPipeline) -> None:
    step = DDIMScheduler.step

    def listing(self: Any, model_output: Any, *args: Any, **kwargs: Any) -> Any:
        model_output.tolist()
        return step(self, model_output, *args, **kwargs)

    patch.setattr(DDIMScheduler, "step", listing)


def around_the_unet(patch: pytest.MonkeyPatch, loaded: LoadedPipeline, broken: Callable[..., Any]) -> None:
    """``broken(forward, sample, *rest, **more)`` replaces the forward method of the UNet."""
    forward = loaded.pipeline.unet.forward
    patch.setattr(loaded.pipeline.unet, "forward", lambda sample, *rest, **more: broken(forward, sample, *rest, **more))


def copy_in_a_block(patch: pytest.MonkeyPatch, loaded: LoadedPipeline) -> None:
    block = loaded.pipeline.unet.mid_block.resnets[0]
    forward = block.forward
    patch.setattr(block, "forward", lambda hidden, *rest, **more: forward(hidden.clone(), *rest, **more))


def convert_there_and_back(patch: pytest.MonkeyPatch, loaded: LoadedPipeline) -> None:
    around_the_unet(
        patch,
        loaded,
        lambda forward, sample, *rest, **more: forward(sample.double().to(sample.dtype), *rest, **more),
    )


def one_image_after_the_other(patch: pytest.MonkeyPatch, loaded: LoadedPipeline) -> None:
    def loop(forward: Any, sample: Any, timestep: Any, encoder_hidden_states: Any = None, **more: Any) -> Any:
        results = []
        for number in range(len(sample)):
            text = () if encoder_hidden_states is None else (encoder_hidden_states[number : number + 1],)
            results.append(forward(sample[number : number + 1], timestep, *text, **more)[0])
        joined = torch.cat(results)
        return (joined,) if more.get("return_dict") is False else type("Output", (), {"sample": joined})()

    around_the_unet(patch, loaded, loop)


def compute_a_half_twice(patch: pytest.MonkeyPatch, loaded: LoadedPipeline) -> None:
    def twice(forward: Any, sample: Any, timestep: Any, encoder_hidden_states: Any, **more: Any) -> Any:
        half = len(sample) // 2
        larger = (
            torch.cat([sample, sample[:half]]),
            timestep,
            torch.cat([encoder_hidden_states, encoder_hidden_states[:half]]),
        )
        return tuple(part[: len(sample)] for part in forward(*larger, **more))

    around_the_unet(patch, loaded, twice)


def call_the_unet_twice(patch: pytest.MonkeyPatch, loaded: LoadedPipeline) -> None:
    step = DDIMScheduler.step
    width = getattr(loaded.pipeline.unet.config, "cross_attention_dim", 0)

    def predicting(self: Any, model_output: Any, timestep: Any, sample: Any, **more: Any) -> Any:
        loaded.pipeline.unet(sample, timestep, *([sample.new_zeros(len(sample), TOKENS, width)] if width else []))
        return step(self, model_output, timestep, sample, **more)

    patch.setattr(DDIMScheduler, "step", predicting)


def encode_the_prompt_each_step(patch: pytest.MonkeyPatch, loaded: LoadedPipeline) -> None:
    def encoding(forward: Any, sample: Any, *rest: Any, **more: Any) -> Any:
        loaded.pipeline.text_encoder(torch.zeros(len(sample), TOKENS, dtype=torch.long))
        return forward(sample, *rest, **more)

    around_the_unet(patch, loaded, encoding)


def add_a_layer(patch: pytest.MonkeyPatch, loaded: LoadedPipeline) -> None:
    layer = loaded.pipeline.unet.conv_in
    forward = layer.forward
    added = torch.nn.Conv2d(layer.out_channels, layer.out_channels, 3, padding=1)
    patch.setattr(layer, "forward", lambda sample: added(forward(sample)))


def keep_every_step(patch: pytest.MonkeyPatch, loaded: LoadedPipeline) -> None:
    kept: list[torch.Tensor] = []
    block = loaded.pipeline.unet.mid_block.resnets[0]
    forward = block.forward

    def keeping(*args: Any, **kwargs: Any) -> Any:
        kept.append(forward(*args, **kwargs))
        return kept[-1]

    patch.setattr(block, "forward", keeping)


@dataclass(frozen=True)
class Fault:
    """``quantity`` must show it; the sentence must name ``cause``."""

    apply: Callable[[pytest.MonkeyPatch, LoadedPipeline], None]
    quantity: str
    cause: str
    kinds: tuple[str, ...] = (STABLE_DIFFUSION, DDPM)


FAULTS = [
    Fault(read_a_value_each_step, "value reads", "+1 per step): aten::_local_scalar_dense +4"),
    Fault(list_the_values_each_step, "value reads", "+1 per step): Tensor.tolist +4"),
    Fault(copy_in_a_block, "copied bytes", ": aten::clone +4"),
    Fault(convert_there_and_back, "copied bytes", ": aten::_to_copy +8"),
    Fault(one_image_after_the_other, "operators", "aten::convolution +"),
    Fault(compute_a_half_twice, "FLOPs", "as many calls on larger tensors", (STABLE_DIFFUSION,)),
    Fault(call_the_unet_twice, "UNet calls", "4 → 8 (+100.0 %)"),
    Fault(encode_the_prompt_each_step, "tokens encoded", "+96 per step", (STABLE_DIFFUSION,)),
    Fault(add_a_layer, "FLOPs", ": aten::convolution +4"),
    Fault(keep_every_step, "peak bytes", " %"),
]
FAULTS_OF_KINDS = [
    pytest.param(fault, kind, id=f"{fault.apply.__name__} {kind}") for fault in FAULTS for kind in fault.kinds
]


@pytest.mark.parametrize(("fault", "kind"), FAULTS_OF_KINDS)
def test_a_fault_is_more_work_and_its_repair_less(fault, kind, ddim_case, load_tiny, sound):
    case, golden = ddim_case(kind), sound(kind)
    loaded = load_tiny(case)
    with pytest.MonkeyPatch.context() as patch:
        fault.apply(patch, loaded)
        broken = count_work(loaded, case)
    found = compare_work(broken, golden)
    assert found.verdict == Verdict.MORE_WORK
    assert any(text.startswith(fault.quantity) and fault.cause in text for text in found.more), found.message
    repaired = compare_work(golden, broken)
    assert any(text.startswith(fault.quantity) for text in repaired.less)
    assert (repaired.verdict == Verdict.LESS_WORK) != bool(repaired.more)
    assert compare_work(count_work(loaded, case), golden).verdict == Verdict.SAME_WORK


@pytest.mark.parametrize(
    ("optimizations", "clones"), [((), 1), (("channels-last",), 9)], ids=["default layout", "channels-last"]
)
def test_copies_before_shortcuts_are_found(optimizations, clones, monkeypatch):
    """As diffusers 0.33.0 to 0.36.0 had them: one copy in the default layout, many in channels-last."""
    case = next(case for case in read_suite().cases if case.id == "emoji-sd/pndm-s20-g7.5-fp32")
    case = with_settings(case, steps=1, images=2, prompts=("panda", "fox"), optimizations=optimizations)
    loaded = load_pipeline(case.model, "float32", optimizations, Cpu(), Path())
    golden = count_work(loaded, case)
    for block in (*loaded.pipeline.unet.modules(), *loaded.pipeline.vae.decoder.modules()):
        if isinstance(block, ResnetBlock2D) and block.conv_shortcut is not None:
            forward = block.conv_shortcut.forward
            monkeypatch.setattr(
                block.conv_shortcut, "forward", lambda value, forward=forward: forward(value.contiguous())
            )
    found = compare_work(count_work(loaded, case), golden)
    assert found.verdict == Verdict.MORE_WORK
    assert found.more[0].startswith("copied bytes")
    assert f"aten::clone +{clones}" in found.more[0]


def test_work_goes_to_json_and_back(sound):
    plain = sound(DDPM)
    on_device = DeviceWork(kernels=3, waits={"item": 1}, copies={}, copied_bytes={})
    for work in (plain, replace(plain, graphs=1, graph_breaks=0), replace(plain, on_device=on_device)):
        assert Work.from_json(json.loads(json.dumps(work.to_json()))) == work
    assert not {"graphs", "on_device"} & plain.to_json().keys()


@pytest.mark.parametrize(
    "change",
    [{"flops": 1.5}, {"flops": None}, {"operators": 3}, {"host_syncs": {"aten::nonzero": "1"}}, {"seconds": 1}],
    ids=str,
)
def test_something_else_than_work_is_refused(change, sound):
    with pytest.raises(ValueError, match=next(iter(change))):
        Work.from_json(sound(DDPM).to_json() | change)


@pytest.fixture
def compiler() -> Iterator[Any]:
    """torch.compile as if nothing had been compiled in this process yet."""
    import torch._dynamo as dynamo

    dynamo.reset()
    dynamo.utils.counters.clear()
    yield dynamo
    dynamo.reset()
    dynamo.utils.counters.clear()


@pytest.mark.parametrize(("breaks", "graphs"), [(0, 1), (1, 2)])
def test_a_compiled_case_has_graphs_and_uncompiled_work(breaks, graphs, compiler, ddim_case, load_tiny):
    case = ddim_case(STABLE_DIFFUSION, steps=1)
    loaded = load_tiny(case)
    plain = count_work(loaded, case)
    layer = loaded.pipeline.unet.time_embedding.linear_1
    forward = layer.forward

    def breaking(sample: torch.Tensor) -> torch.Tensor:
        result = forward(sample * 1)
        if breaks:
            compiler.graph_break()
        return result + 0

    layer.forward = breaking
    broken = count_work(loaded, case)
    layer.compile(backend="eager")
    generate(loaded, case)
    work = count_work(loaded, with_settings(case, optimizations=("compile",)))
    assert (work.graphs, work.graph_breaks) == (graphs, breaks)
    assert replace(work, graphs=None, graph_breaks=None) == broken != plain
    assert compiled_graphs() == (graphs, breaks)


def test_a_compiled_case_is_compiled_again_when_forgotten(compiler, ddim_case, load_tiny):
    case = ddim_case(DDPM, steps=1)
    loaded = load_tiny(case)
    loaded.pipeline.unet.time_embedding.linear_1.compile(backend="eager")
    for _ in range(2):
        forget_compiled()
        assert compiled_graphs() == (0, 0)
        generate(loaded, case)
        assert compiled_graphs() == (1, 0)
