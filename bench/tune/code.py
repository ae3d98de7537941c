"""A setting as Python for ``diffusers``, and as a case of a suite file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from bench.calls.optimizations import FREEU, GUIDED_SHARE
from bench.calls.pipelines import CHECKPOINTS
from bench.calls.schedulers import scheduler_options
from bench.suite.case import Case, Model
from bench.suite.optimizations import LORA
from bench.suite.schedulers import DDPM, SCHEDULERS

# How each speed setting is switched on in a pipeline that is called ``pipe``.
STATEMENTS: Mapping[str, tuple[str, ...]] = {
    "channels-last": (
        "pipe.unet.to(memory_format=torch.channels_last)",
        'if hasattr(pipe, "vae"):',
        "    pipe.vae.to(memory_format=torch.channels_last)",
    ),
    "attention-slicing": ('pipe.enable_attention_slicing("max")',),
    "eager-attention": (
        "from diffusers.models.attention_processor import AttnProcessor",
        "pipe.unet.set_attn_processor(AttnProcessor())",
    ),
    "fused-qkv": ("pipe.fuse_qkv_projections()",),
    "vae-slicing": ("pipe.vae.enable_slicing()",),
    "vae-tiling": ("pipe.vae.enable_tiling()",),
    "tf32": ('torch.set_float32_matmul_precision("high")',),
    "cudnn-benchmark": ("torch.backends.cudnn.benchmark = True",),
    "compile-regional": ("pipe.unet.compile_repeated_blocks(fullgraph=True)",),
    "compile": ("pipe.unet.compile(fullgraph=True)",),
    "compile-reduce-overhead": ('pipe.unet.compile(fullgraph=True, mode="reduce-overhead")',),
    "compile-max-autotune": ('pipe.unet.compile(fullgraph=True, mode="max-autotune")',),
    "compile-vae": ("pipe.vae.decode = torch.compile(pipe.vae.decode)",),
    "compile-text-encoder": ("pipe.text_encoder.compile(fullgraph=True)",),
    "layerwise-casting": (
        "pipe.unet.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=pipe.unet.dtype)",
    ),
    "int8-dynamic": (
        "from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_",
        "quantize_(pipe.unet, Int8DynamicActivationInt8WeightConfig())",
    ),
    "int8-weights": (
        "from torchao.quantization import Int8WeightOnlyConfig, quantize_",
        "quantize_(pipe.unet, Int8WeightOnlyConfig())",
    ),
    "float8-dynamic": (
        "from torchao.quantization import Float8DynamicActivationFloat8WeightConfig, quantize_",
        "quantize_(pipe.unet, Float8DynamicActivationFloat8WeightConfig())",
    ),
    "freeu": (f"pipe.enable_freeu({', '.join(f'{key}={value}' for key, value in FREEU.items())})",),
    "token-merging": ("import tomesd", "tomesd.apply_patch(pipe, ratio=0.5, use_rand=False)"),
    "deepcache": (
        "from DeepCache import DeepCacheSDHelper",
        "cache = DeepCacheSDHelper(pipe=pipe)",
        "cache.set_params(cache_interval=3, cache_branch_id=0)",
        "cache.enable()",
    ),
    "model-offload": ("pipe.enable_model_cpu_offload()",),
    "sequential-offload": ("pipe.enable_sequential_cpu_offload()",),
    "group-offload": (
        "pipe.enable_group_offload(",
        '    onload_device=torch.device(device), offload_device=torch.device("cpu"), offload_type="leaf_level"',
        ")",
    ),
}
# Settings that hold around the call, as the expression of a context manager.
CONTEXTS: Mapping[str, str] = {
    f"sdpa-{name}": f"torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.{backend})"
    for name, backend in (
        ("math", "MATH"),
        ("flash", "FLASH_ATTENTION"),
        ("efficient", "EFFICIENT_ATTENTION"),
        ("cudnn", "CUDNN_ATTENTION"),
    )
}
_CUTOFF = f"""
def end_guidance(pipe, step, timestep, tensors):
    if step + 1 == int(steps * {GUIDED_SHARE}):
        tensors["prompt_embeds"] = tensors["prompt_embeds"].chunk(2)[-1]
        pipe._guidance_scale = 0.0
    return tensors

"""


def python_of(case: Case, device: str, suite_folder: Path) -> str:
    """A program that draws the pictures of a case without this suite."""
    settings, kind = case.settings, case.model.kind
    names = settings.optimizations
    scheduler = SCHEDULERS[settings.scheduler]
    pipeline = "DDPMPipeline" if kind == DDPM else "StableDiffusionPipeline"
    options = _keywords(scheduler_options(settings.scheduler, kind) | settings.options)
    offloaded = any(name.endswith("-offload") for name in names)
    lines = [
        "import torch",
        f"from diffusers import {', '.join(sorted((pipeline, scheduler.class_name)))}",
        "",
        f"device = {json.dumps(device)}",
        f"pipe = {pipeline}.from_pretrained({_source(case.model, suite_folder)}, dtype=torch.{settings.dtype}"
        + (f", variant={json.dumps(case.model.variant)}" if case.model.variant else "")
        + ("" if kind == DDPM or case.model.safety_checker else ", safety_checker=None")
        + f"){'' if offloaded else '.to(device)'}",
        f"pipe.scheduler = {scheduler.class_name}.from_config(pipe.scheduler.config{options})",
        *(line for name in names if name.startswith(LORA) for line in _lora(case.model, name)),
        *(line for name in names for line in STATEMENTS.get(name, ())),
        f"steps = {settings.steps}",
        *(_CUTOFF.splitlines() if "guidance-cutoff" in names else ()),
        f'generators = [torch.Generator("cpu").manual_seed({settings.seed} + number) '
        f"for number in range({settings.images})]",
    ]
    arguments = ["num_inference_steps=steps", "generator=generators"]
    if kind == DDPM:
        arguments.append(f"batch_size={settings.images}")
    else:
        lines.append(f"prompts = {json.dumps(list(settings.prompts))}")
        if "prompt-embeddings" in names:
            lines.append(
                f"positive, negative = pipe.encode_prompt(prompts, device, 1, {(settings.guidance or 0) > 1})"
                "  # once, and kept"
            )
            arguments += ["prompt_embeds=positive", "negative_prompt_embeds=negative"]
        else:
            arguments.append("prompt=prompts")
        arguments.append(f"guidance_scale={settings.guidance}")
        arguments += [f"height={settings.size}", f"width={settings.size}"] if settings.size else []
    arguments += [f"{key}={value!r}" for key, value in settings.call.items()]
    if "guidance-cutoff" in names:
        arguments += [
            "callback_on_step_end=end_guidance",
            'callback_on_step_end_tensor_inputs=["latents", "prompt_embeds"]',
        ]
    call = f"images = pipe({', '.join(arguments)}).images"
    contexts = [CONTEXTS[name] for name in names if name in CONTEXTS]
    lines += [f"with {', '.join(contexts)}:", f"    {call}"] if contexts else [call]
    return "\n".join(lines) + "\n"


def _lora(model: Model, name: str) -> list[str]:
    lora = model.loras[name.removeprefix(LORA)]
    more = f", weight_name={json.dumps(lora.weight_name)}" if lora.weight_name else ""
    more += f", revision={json.dumps(lora.revision)}" if lora.revision else ""
    return [
        f"pipe.load_lora_weights({json.dumps(lora.id or str(lora.path))}{more})",
        f"pipe.fuse_lora(lora_scale={lora.scale})",
        "pipe.unload_lora_weights()",
    ]


def _keywords(options: Mapping[str, Any]) -> str:
    return "".join(f", {key}={value!r}" for key, value in options.items())


def _source(model: Model, suite_folder: Path) -> str:
    if model.source == "hub":
        revision = f", revision={json.dumps(model.revision)}" if model.revision else ""
        return f"{json.dumps(model.id)}{revision}"
    folder = CHECKPOINTS / model.name if model.source == "embedded" else suite_folder / (model.path or "")
    return json.dumps(str(folder.resolve()))


def table_of(case: Case) -> dict[str, Any]:
    """The case as an entry of ``[[cases]]``."""
    described = case.settings.described()
    left_out: dict[str, Any] = {"size": None, "guidance": None, "optimizations": [], "prompts": [], "seed": 0}
    settings = {key: value for key, value in described.items() if key not in left_out or value != left_out[key]}
    return {"model": case.model.name} | settings


def suite_of(model: Model, cases: Sequence[Case], suite_folder: Path) -> str:
    """A suite file with these cases of a model."""
    entry = model.model_dump(mode="json", exclude={"name"}, exclude_defaults=True)
    if model.source == "local":
        entry["path"] = str((suite_folder / (model.path or "")).resolve())
    document = {"models": {model.name: entry}, "cases": [table_of(case) for case in cases]}
    return tomli_w.dumps(document)


def case_table_text(case: Case) -> str:
    """The ``[[cases]]`` table alone, as text."""
    return re.sub(r"^cases = ", "", tomli_w.dumps({"cases": [table_of(case)]})).strip() + "\n"
