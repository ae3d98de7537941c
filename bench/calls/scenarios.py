"""How each scenario of ``bench.suite.scenarios`` calls a pipeline.

It also runs under old libraries, in the upgrade check's worker, so it imports little.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import ImageFilter

from bench.calls.device import Device
from bench.calls.pipelines import Checkpoint, PipelineError, load_checkpoint
from bench.suite.scenarios import PLAIN

# Thresholds of the safety checker. The three pictures that the suite shows it have similarities of 0.333, 0.282 and
# 0.299 with this concept, so one of them is above 0.31.
NEVER, SOMETIMES, CONCEPT = 2.0, 0.31, 4


@dataclass(frozen=True)
class Call:
    """One pipeline call, ready to run; calling it returns the images as the pipeline gives them.

    Attributes:
        arguments: with new generators.
        device: on which it is to run; offloaded weights rest elsewhere.
        new_scheduler, new_generators: make what another call needs, so that nothing is left of this one.
    """

    case: Any
    pipeline: Any
    arguments: dict[str, Any]
    device: Device
    new_scheduler: Callable[[], Any]
    new_generators: Callable[[], list[torch.Generator]]

    def __call__(self, **others: Any) -> Any:
        return self.pipeline(**{**self.arguments, **others}).images

    @property
    def seed(self) -> int:
        return int(self.case.settings.seed)


@dataclass(frozen=True)
class Way:
    """How the call of a scenario is made.

    Attributes:
        make: makes the call, or several, and returns the images of one.
        pipeline: makes another pipeline for the call, before it.
    """

    make: Callable[[Call], Any] = Call.__call__
    pipeline: Callable[[Call], Any] | None = None

    def prepared(self, call: Call) -> Call:
        """The call with the pipeline of this scenario; random weights do not advance torch's own generator."""
        if self.pipeline is None:
            return call
        with torch.random.fork_rng():
            pipeline = self.pipeline(call)
        pipeline.set_progress_bar_config(disable=True)
        return replace(call, pipeline=pipeline)


def _joined(parts: list[Any]) -> Any:
    return torch.cat(parts) if isinstance(parts[0], torch.Tensor) else np.concatenate(parts)


def _singles(call: Call) -> Any:
    """Each image alone."""
    images = []
    for number, generator in enumerate(call.arguments["generator"]):
        call.pipeline.scheduler = call.new_scheduler()
        prompts = call.arguments.get("prompt")
        alone = {"batch_size": 1} if prompts is None else {"prompt": prompts[number : number + 1]}
        images.append(call(generator=[generator], **alone))
    return _joined(images)


def _called_twice(call: Call) -> Any:
    """The second of two calls with one scheduler."""
    call()
    return call(generator=call.new_generators())


def _one_generator(call: Call) -> Any:
    """All images from one generator."""
    return call(generator=torch.Generator("cpu").manual_seed(call.seed))


def _generator_of_two_calls(call: Call) -> Any:
    """The second of two calls with one generator, which continues where the first call left it."""
    generator = torch.Generator("cpu").manual_seed(call.seed)
    call(generator=generator)
    call.pipeline.scheduler = call.new_scheduler()
    return call(generator=generator)


def _global_seed(call: Call) -> Any:
    """No generator: torch's own, seeded."""
    with torch.random.fork_rng():
        torch.manual_seed(call.seed)
        return call(generator=None)


def _numpy_output(call: Call) -> Any:
    return call(output_type="np")


def _stop_after(steps: int) -> Callable[..., dict[str, Any]]:
    def stop(pipeline: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        pipeline._interrupt = step + 1 >= steps
        return tensors

    return stop


def _interrupted(call: Call) -> Any:
    """Stopped after two steps, as a user interface does."""
    return call(callback_on_step_end=_stop_after(2))


def _after_interruption(call: Call) -> Any:
    """The call after one that was interrupted."""
    call(callback_on_step_end=_stop_after(1))
    return call(generator=call.new_generators())


def _callback(call: Call) -> Any:
    """A callback that gives the latents back as they were."""
    return call(callback_on_step_end=lambda _pipeline, _step, _time, tensors: {"latents": tensors["latents"].clone()})


def _callback_changes(call: Call) -> Any:
    """A callback that gives other latents back."""
    return call(callback_on_step_end=lambda _pipeline, _step, _time, tensors: {"latents": 0.95 * tensors["latents"]})


def _prompt_embeddings(call: Call) -> Any:
    """Prompts encoded before the call."""
    arguments = dict(call.arguments)
    prompts, negative = arguments.pop("prompt"), arguments.pop("negative_prompt", None)
    device, guided = call.device.torch_device, arguments["guidance_scale"] > 1
    embeddings, others = call.pipeline.encode_prompt(prompts, device, 1, guided, negative)
    return call.pipeline(**arguments, prompt_embeds=embeddings, negative_prompt_embeds=others).images


def _given_latents(call: Call) -> Any:
    """Noise drawn before the call."""
    settings = call.pipeline.unet.config
    shape = (1, settings.in_channels, settings.sample_size, settings.sample_size)
    noise = torch.cat([torch.randn(shape, generator=generator) for generator in call.new_generators()])
    return call(latents=noise.to(call.device.torch_device, call.pipeline.unet.dtype))


def _decoded_apart(call: Call) -> Any:
    """Latents asked for, and decoded after the call."""
    vae = call.pipeline.vae
    with torch.no_grad():
        decoded = vae.decode(call(output_type="latent") / vae.config.scaling_factor).sample
    return call.pipeline.image_processor.postprocess(decoded, output_type="pt")


def _soft_mask(call: Call) -> Any:
    """A mask with soft edges, which inpainting takes as a hard one."""
    return call(mask_image=[mask.filter(ImageFilter.BoxBlur(2)) for mask in call.arguments["mask_image"]])


def _cropped_to_mask(call: Call) -> Any:
    """Only the surroundings of the mask are repainted, at full size; the output is one picture, not a tensor."""
    picture, mask = (call.arguments[name][0] for name in ("image", "mask_image"))
    images = call(image=picture, mask_image=mask, padding_mask_crop=8, output_type="pil")
    return np.stack([np.asarray(image, dtype=np.float32) / 255 for image in images])


def _tiled_vae(call: Call) -> Any:
    """Decoded in tiles that overlap, for which the picture must be larger than the VAE's own size."""
    call.pipeline.vae.enable_tiling()
    try:
        return call()
    finally:
        call.pipeline.vae.disable_tiling()


def _free_u(call: Call) -> Any:
    """FreeU (Si et al. 2023) with the factors its authors give for Stable Diffusion 1.5."""
    call.pipeline.enable_freeu(s1=0.9, s2=0.2, b1=1.5, b2=1.6)
    try:
        return call()
    finally:
        call.pipeline.disable_freeu()


def _ddim_pipeline(call: Call) -> Any:
    """The weights in ``DDIMPipeline``, which takes ``eta``."""
    import diffusers

    return diffusers.DDIMPipeline(unet=call.pipeline.unet, scheduler=call.pipeline.scheduler)


def _from_pipe(call: Call) -> Any:
    """Made from the loaded pipeline, whose weights it must share."""
    other = type(call.pipeline).from_pipe(call.pipeline)
    if other.unet is not call.pipeline.unet:
        raise ValueError("from_pipe copied the weights")
    return other


@contextlib.contextmanager
def _saved(pipeline: Any, dtype: torch.dtype | None = None) -> Iterator[Path]:
    """Yields a folder with the pipeline's files, its weights in ``dtype``."""
    from safetensors.torch import load_file, save_file

    with tempfile.TemporaryDirectory(prefix="pipeline-") as folder:
        pipeline.save_pretrained(folder)
        for path in Path(folder).rglob("*.safetensors") if dtype else ():
            weights = {name: weight.to(dtype) for name, weight in load_file(path).items()}
            save_file(weights, path, metadata={"format": "pt"})
        yield Path(folder)


def _load(call: Call, folder: Path, safety_checker: bool = False) -> Any:
    own = call.case.model
    model: Any = SimpleNamespace(name=own.name, kind=own.kind, safety_checker=safety_checker)
    checkpoint = Checkpoint(folder, None, False)
    try:
        return load_checkpoint(model, checkpoint, call.case.settings.dtype, (), call.device).pipeline
    except PipelineError as error:
        # Exceptions are compared, and the folder has a different name each time.
        raise PipelineError(str(error).replace(str(folder), "the saved pipeline")) from None


def _saved_and_loaded(call: Call) -> Any:
    """Saved with its scheduler, and loaded again."""
    with _saved(call.pipeline) as folder:
        return _load(call, folder)


def _stored_in_float32(call: Call) -> Any:
    """Weights stored in float32 and loaded in the case's dtype."""
    with _saved(call.pipeline, torch.float32) as folder:
        return _load(call, folder)


def _loaded_without_dtype(call: Call) -> Any:
    """Weights stored in float16 and loaded without naming a dtype."""
    checker = {"safety_checker": None} if hasattr(call.pipeline, "safety_checker") else {}
    with _saved(call.pipeline, torch.float16) as folder:
        pipeline = type(call.pipeline).from_pretrained(folder, local_files_only=True, **checker)
    return pipeline.to(call.device.torch_device)


def _safety_checker(threshold: float) -> Callable[[Call], Any]:
    def load(call: Call) -> Any:
        """With a safety checker that was loaded from disk; it blackens pictures over its threshold."""
        from transformers import CLIPImageProcessor

        pipeline = type(call.pipeline)(
            **call.pipeline.components
            | {
                "safety_checker": tiny_safety_checker(threshold),
                "feature_extractor": CLIPImageProcessor(
                    size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
                ),
            }
        )
        with _saved(pipeline) as folder:
            return _load(call, folder, safety_checker=True)

    return load


def tiny_safety_checker(threshold: float) -> Any:
    """A safety checker with a vision tower of one layer and weights from a fixed seed.

    Args:
        threshold: cosine similarity with its one concept above which a picture is blackened; nothing is above 1.
    """
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig

    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "image_size": 32,
        "patch_size": 8,
    }
    checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=16))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, weight in sorted(checker.named_parameters()):
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3)
        checker.special_care_embeds_weights.fill_(NEVER)
        checker.concept_embeds_weights.fill_(NEVER)
        checker.concept_embeds_weights[CONCEPT] = threshold
    return checker


WAYS: Mapping[str, Way] = {
    PLAIN: Way(),
    "singles": Way(_singles),
    "called-twice": Way(_called_twice),
    "numpy-output": Way(_numpy_output),
    "saved-and-loaded": Way(pipeline=_saved_and_loaded),
    "stored-in-float32": Way(pipeline=_stored_in_float32),
    "after-interruption": Way(_after_interruption),
    "callback": Way(_callback),
    "callback-changes": Way(_callback_changes),
    "prompt-embeddings": Way(_prompt_embeddings),
    "given-latents": Way(_given_latents),
    "decoded-apart": Way(_decoded_apart),
    "safety-checker": Way(pipeline=_safety_checker(threshold=NEVER)),
    "safety-checker-blackens": Way(pipeline=_safety_checker(threshold=SOMETIMES)),
    "one-generator": Way(_one_generator),
    "generator-of-two-calls": Way(_generator_of_two_calls),
    "global-seed": Way(_global_seed),
    "interrupted": Way(_interrupted),
    "loaded-without-dtype": Way(pipeline=_loaded_without_dtype),
    "soft-mask": Way(_soft_mask),
    "cropped-to-mask": Way(_cropped_to_mask),
    "from-pipe": Way(pipeline=_from_pipe),
    "tiled-vae": Way(_tiled_vae),
    "free-u": Way(_free_u),
    "ddim-pipeline": Way(pipeline=_ddim_pipeline),
}
