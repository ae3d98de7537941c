"""Speed settings: each is switched on in a ready pipeline, and checked to have an effect.

A setting without effect is an error, not a result: diffusers accepts some settings on these networks and
silently ignores them (for example ``set_attention_backend``).
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.calls.knobs import in_context, merge_tokens, offload, quantize, reuse_deep_features, watch_batch
from bench.errors import BenchError
from bench.suite.optimizations import LORA, checked_after_call, optimization

# After this share of the steps there is no guidance.
GUIDED_SHARE = 0.5
# As its authors suggest for Stable Diffusion 1 (Si et al. 2023, "FreeU", arXiv 2309.11497).
FREEU = {"s1": 0.9, "s2": 0.2, "b1": 1.2, "b2": 1.4}


class NotApplied(BenchError):
    """A speed setting could not be switched on, or had no effect."""


def _no_arguments(_pipeline: Any, _arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Knob:
    """How a setting is switched on and checked.

    Attributes:
        apply: switches it on; the device of the pipeline is that of its networks.
        count: says in how many places it is on, or how often it took effect in the calls so far.
        arguments: what it changes in the arguments of a call.
    """

    apply: Callable[[Any], None]
    count: Callable[[Any], int]
    arguments: Callable[[Any, Mapping[str, Any]], dict[str, Any]] = _no_arguments


def _processors(pipeline: Any, class_prefix: str) -> int:
    return sum(type(part).__name__.startswith(class_prefix) for part in pipeline.unet.attn_processors.values())


def _channels_last(pipeline: Any) -> None:
    pipeline.unet.to(memory_format=torch.channels_last)
    if hasattr(pipeline, "vae"):
        pipeline.vae.to(memory_format=torch.channels_last)


def _count_channels_last(pipeline: Any) -> int:
    return sum(
        weight.dim() == 4 and weight.stride(1) == 1 and not weight.is_contiguous()
        for weight in pipeline.unet.parameters()
    )


def _compiled(part: str, **options: Any) -> Knob:
    def apply(pipeline: Any) -> None:
        getattr(pipeline, part).compile(fullgraph=True, **options)

    return Knob(apply, _count_graphs)


def _compile_regional(pipeline: Any) -> None:
    pipeline.unet.compile_repeated_blocks(fullgraph=True)


def _compile_decoder(pipeline: Any) -> None:
    pipeline.vae.decode = torch.compile(pipeline.vae.decode)


def _count_graphs(_pipeline: Any) -> int:
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"]


def _sdpa(backend: SDPBackend) -> Knob:
    return _around_unet(lambda: sdpa_kernel(backend))


def _around_unet(context: Callable[[], contextlib.AbstractContextManager[Any]]) -> Knob:
    """A flag of torch that holds during the UNet's calls and no longer, since it holds for the whole process."""
    entered: Counter[int] = Counter()

    def apply(pipeline: Any) -> None:
        in_context(pipeline.unet, context, lambda: entered.update([id(pipeline.unet)]))

    return Knob(apply, lambda pipeline: entered[id(pipeline.unet)])


@contextlib.contextmanager
def _tf32() -> Any:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _eager_attention(pipeline: Any) -> None:
    from diffusers.models.attention_processor import AttnProcessor

    pipeline.unet.set_attn_processor(AttnProcessor())


def _count_eager(pipeline: Any) -> int:
    return sum(type(part).__name__ == "AttnProcessor" for part in pipeline.unet.attn_processors.values())


def _layerwise_casting(pipeline: Any) -> None:
    compute = pipeline.unet.dtype
    pipeline.unet.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=compute)


def _count_eight_bits(pipeline: Any) -> int:
    return sum(weight.dtype == torch.float8_e4m3fn for weight in pipeline.unet.parameters())


def _count_quantized(pipeline: Any) -> int:
    return sum("torchao" in type(weight.data).__module__ for weight in pipeline.unet.parameters())


def _embedded_prompts(pipeline: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The embeddings in place of the prompts; they are computed at the first call with these prompts."""
    known = pipeline.__dict__.setdefault("_embedded", {})
    guided = arguments["guidance_scale"] > 1
    key = (*arguments["prompt"], guided)
    if key not in known:
        with torch.no_grad():
            known[key] = pipeline.encode_prompt(arguments["prompt"], pipeline.unet.device, 1, guided)
    positive, negative = known[key]
    return {"prompt": None, "prompt_embeds": positive} | ({"negative_prompt_embeds": negative} if guided else {})


def _without_guidance(pipeline: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A callback that ends guidance after a share of the steps, which halves the batch of the UNet from then on."""
    last = int(arguments["num_inference_steps"] * GUIDED_SHARE)

    def end_guidance(pipeline: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if step + 1 == last and pipeline.do_classifier_free_guidance:
            tensors["prompt_embeds"] = tensors["prompt_embeds"].chunk(2)[-1]
            pipeline._guidance_scale = 0.0
        return tensors

    return {"callback_on_step_end": end_guidance, "callback_on_step_end_tensor_inputs": ["latents", "prompt_embeds"]}


def _count_freeu(pipeline: Any) -> int:
    return sum(getattr(block, "s1", None) is not None for block in pipeline.unet.up_blocks)


def _quantized(configuration: str) -> Knob:
    return Knob(lambda pipeline: quantize(pipeline.unet, configuration), _count_quantized)


def _offload(method: str) -> Knob:
    return Knob(lambda pipeline: offload(pipeline, method), _count_hooks)


def _count_hooks(pipeline: Any) -> int:
    networks = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    modules = [module for part in networks for module in part.modules()]
    return sum(hasattr(module, "_hf_hook") or hasattr(module, "_diffusers_hook") for module in modules)


KNOBS: dict[str, Knob] = {
    "channels-last": Knob(_channels_last, _count_channels_last),
    "attention-slicing": Knob(
        lambda pipeline: pipeline.enable_attention_slicing("max"), lambda pipeline: _processors(pipeline, "Sliced")
    ),
    "eager-attention": Knob(_eager_attention, _count_eager),
    "sdpa-math": _sdpa(SDPBackend.MATH),
    "sdpa-flash": _sdpa(SDPBackend.FLASH_ATTENTION),
    "sdpa-efficient": _sdpa(SDPBackend.EFFICIENT_ATTENTION),
    "sdpa-cudnn": _sdpa(SDPBackend.CUDNN_ATTENTION),
    "fused-qkv": Knob(
        lambda pipeline: pipeline.fuse_qkv_projections(), lambda pipeline: _processors(pipeline, "Fused")
    ),
    "vae-slicing": Knob(
        lambda pipeline: pipeline.vae.enable_slicing(), lambda pipeline: int(bool(pipeline.vae.use_slicing))
    ),
    "vae-tiling": Knob(
        lambda pipeline: pipeline.vae.enable_tiling(), lambda pipeline: int(bool(pipeline.vae.use_tiling))
    ),
    "prompt-embeddings": Knob(
        lambda _pipeline: None, lambda pipeline: len(pipeline.__dict__.get("_embedded", {})), _embedded_prompts
    ),
    "tf32": _around_unet(_tf32),
    "cudnn-benchmark": _around_unet(lambda: torch.backends.cudnn.flags(benchmark=True)),
    "compile-regional": Knob(_compile_regional, _count_graphs),
    "compile": _compiled("unet"),
    "compile-reduce-overhead": _compiled("unet", mode="reduce-overhead"),
    "compile-max-autotune": _compiled("unet", mode="max-autotune"),
    "compile-vae": Knob(_compile_decoder, _count_graphs),
    "compile-text-encoder": _compiled("text_encoder"),
    "model-offload": _offload("model"),
    "sequential-offload": _offload("sequential"),
    "group-offload": _offload("group"),
    "layerwise-casting": Knob(_layerwise_casting, _count_eight_bits),
    "int8-dynamic": _quantized("Int8DynamicActivationInt8WeightConfig"),
    "int8-weights": _quantized("Int8WeightOnlyConfig"),
    "float8-dynamic": _quantized("Float8DynamicActivationFloat8WeightConfig"),
    "guidance-cutoff": Knob(
        lambda pipeline: watch_batch(pipeline.unet), lambda pipeline: pipeline.unet.batches_halved, _without_guidance
    ),
    "freeu": Knob(lambda pipeline: pipeline.enable_freeu(**FREEU), _count_freeu),
    "token-merging": Knob(merge_tokens, lambda pipeline: pipeline.unet.merged),
    "deepcache": Knob(reuse_deep_features, lambda pipeline: pipeline.deep_cache.reused),
}


def knob_named(name: str) -> Knob:
    """A LoRA is mixed in when the pipeline is loaded, since only the model knows where it is."""
    if name.startswith(LORA):
        return Knob(lambda _pipeline: None, lambda pipeline: getattr(pipeline, "mixed_in", {}).get(name, 0))
    return KNOBS[name]


def apply_optimizations(pipeline: Any, names: tuple[str, ...]) -> None:
    """Switches the settings on, in the order given.

    Raises:
        NotApplied: the installed library lacks the setting, or it changed nothing.
    """
    for name in names:
        try:
            knob_named(name).apply(pipeline)
        except (AttributeError, ValueError, ImportError) as error:
            raise NotApplied(f"optimization '{name}' cannot be switched on here: {error}.") from error
    check_applied(pipeline, tuple(name for name in names if not optimization(name).checked_after_call))


def check_applied(pipeline: Any, names: tuple[str, ...]) -> None:
    """Raises:
    NotApplied: nothing in the pipeline uses a setting.
    """
    for name in names:
        if knob_named(name).count(pipeline) == 0:
            raise NotApplied(f"optimization '{name}' had no effect: nothing in the pipeline uses it.")


def check_applied_in_call(pipeline: Any, names: tuple[str, ...]) -> None:
    """As ``check_applied``, after the first call, of those that take effect in calls."""
    check_applied(pipeline, checked_after_call(names))


def changed_arguments(pipeline: Any, names: tuple[str, ...], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call, with what the settings change in them."""
    changed = dict(arguments)
    for name in names:
        changed |= knob_named(name).arguments(pipeline, changed)
    return changed
