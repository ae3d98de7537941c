"""Each fault of the catalogue takes effect: it changes the result of a small call."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from bench.calls.device import Cpu
from bench.calls.pipelines import CHECKPOINTS, LoadedPipeline, load_pipeline
from bench.calls.work import count_work
from bench.faults.catalogue import FAULTS
from bench.suite.case import Case, Model, Settings
from bench.suite.schedulers import DDPM, STABLE_DIFFUSION

KINDS = {"emoji-sd": STABLE_DIFFUSION, "emoji-ddpm": DDPM}
PROMPTS = ["panda", "fox on a blue background"]
LONG = " ".join(["strawberry on a green background and a purple rocket"] * 6)
LEVELS = np.linspace(0, 255, 70, dtype=np.uint8)
IMAGE = Image.fromarray(np.stack([*np.meshgrid(LEVELS, LEVELS[::-1]), np.full((70, 70), 99, np.uint8)], axis=-1))
MASK = Image.fromarray(np.pad(np.full((31, 30), 255, np.uint8), ((9, 30), (17, 23))))


@dataclass(frozen=True)
class Witness:
    """One small pipeline call.

    Attributes:
        scheduler: a class of diffusers without ``Scheduler`` at the end.
        options: what the scheduler is built with, on top of the checkpoint's configuration.
        vae: what is switched on in the autoencoder.
        calls: the number of calls, of which the last is compared.
    """

    model: str = "emoji-sd"
    pipeline: str = "StableDiffusionPipeline"
    scheduler: str = "DDIM"
    options: tuple[tuple[str, Any], ...] = ()
    dtype: str = "float32"
    images: int = 1
    vae: tuple[str, ...] = ()
    checked: bool = False
    sliced: bool = False
    calls: int = 1
    arguments: tuple[tuple[str, Any], ...] = ()

    def __call__(self, **arguments: Any) -> Witness:
        """The same call with further arguments."""
        return replace(self, arguments=tuple((dict(self.arguments) | arguments).items()))

    def by(self, scheduler: str, **options: Any) -> Witness:
        return replace(self, scheduler=scheduler, options=tuple(options.items()))


SD = Witness()(num_inference_steps=2, prompt="panda", guidance_scale=5.0)
TWO = replace(SD, images=2)(prompt=PROMPTS)
HALF = replace(SD, dtype="bfloat16")
PIXELS = replace(Witness()(num_inference_steps=3, batch_size=1), model="emoji-ddpm", pipeline="DDPMPipeline").by("DDPM")
EDIT = replace(SD, pipeline="StableDiffusionImg2ImgPipeline")(num_inference_steps=4, image=IMAGE, strength=0.5)
FILL = replace(EDIT, pipeline="StableDiffusionInpaintPipeline")(mask_image=MASK, height=64, width=64)
DPM, SINGLE = "DPMSolverMultistep", "DPMSolverSinglestep"
EULER, ANCESTRAL = "EulerDiscrete", "EulerAncestralDiscrete"

# Which call shows which faults.
PICTURES: list[tuple[Witness, str]] = [
    (SD.by(DPM), "dpmpp-final-sigma"),
    (SD.by(SINGLE)(num_inference_steps=4), "dpmpp-singlestep-final-sigma dpmpp-singlestep-orders"),
    (SD.by(DPM, solver_order=3)(num_inference_steps=5), "dpmpp-lower-order-final dpmpp-order-lost"),
    (SD.by(DPM, algorithm_type="sde-dpmsolver++"), "dpmpp-algorithm-lost dpmpp-sde-noise step-noise-without-generator"),
    (SD.by(DPM, use_karras_sigmas=True)(num_inference_steps=4), "karras-sigmas-lost karras-formula timesteps-cut-off"),
    (SD.by(DPM, use_exponential_sigmas=True)(num_inference_steps=4), "exponential-sigmas-lost"),
    (SD.by(DPM, use_exponential_sigmas=True)(num_inference_steps=4), "exponential-sigmas-raise"),
    (SD.by(DPM, use_beta_sigmas=True)(num_inference_steps=4), "beta-sigmas-lost beta-sigmas-raise"),
    (SD.by(DPM, use_lu_lambdas=True)(num_inference_steps=4), "lu-lambdas-lost"),
    (SD.by(EULER), "sigmas-in-bfloat16 euler-input-unscaled first-sigma spacing-of-the-class"),
    (SD.by("LMSDiscrete"), "lms-input-unscaled"),
    (SD, "betas-linear noise-taken-for-velocity steps-offset-ddim alpha-to-one trailing-timesteps one-step-too-many"),
    (SD.by("DDIM", prediction_type="v_prediction"), "velocity-taken-for-noise"),
    (SD.by("DDIM", rescale_betas_zero_snr=True, timestep_spacing="trailing"), "zero-snr-lost spacing-lost"),
    (SD.by("PNDM"), "steps-offset-pndm"),
    (replace(SD.by("PNDM"), calls=2), "pndm-history-kept"),
    (SD.by("PNDM")(num_inference_steps=5), "pndm-runge-kutta"),
    (PIXELS.by("DDPM", timestep_spacing="linspace"), "ddpm-previous-timestep"),
    (SD.by(EULER)(num_inference_steps=50, sigmas=[14.0, 3.0, 0.0]), "custom-timesteps-ignored"),
    (SD(eta=1.0), "eta-ignored"),
    (PIXELS, "ddpm-variance-large ddpm-variance-as-deviation pixels-not-clipped range-taken-wrongly"),
    (SD.by("DDPM", clip_sample=False), "latents-clipped"),
    (SD.by("DDIM", thresholding=True, sample_max_value=1.5), "thresholding-lost thresholding-formula"),
    (SD.by("LCM")(num_inference_steps=4), "lcm-timesteps lcm-noise-at-the-end"),
    (SD.by("HeunDiscrete")(num_inference_steps=3), "heun-second-derivative heun-second-step-skipped"),
    (SD, "guidance-stronger guidance-lost guidance-swapped unconditional-zeros unconditional-length"),
    (SD(guidance_rescale=0.7), "guidance-rescale-ignored"),
    (TWO(guidance_rescale=0.7), "guidance-rescale-over-batch"),
    (TWO(negative_prompt=["red", "fox"]), "negative-prompt-ignored negative-prompt-of-the-first"),
    (TWO, "prompts-mixed-up last-image-of-another-seed one-generator-for-all one-noise-for-all"),
    (SD, "padding-masked causal-mask-lost last-norm-skipped last-layer-skipped activation-gelu positions-lost"),
    (SD, "padding-token"),
    (SD(prompt=PROMPTS[1]), "positions-rounded"),
    (SD(prompt="Panda"), "capitals-kept"),
    (SD(prompt=LONG), "long-prompt-not-cut long-prompt-without-end"),
    (SD, "scaling-factor-forgotten scaling-factor-of-the-class scaling-factor-rounded post-quant-conv-skipped"),
    (EDIT, "quant-conv-skipped encoding-ignores-generator encoding-takes-the-mean encoding-variance encoding-unscaled"),
    (replace(SD(height=96, width=96), vae=("tiling",)), "tiles-not-blended tiles-blended-wrongly vae-tiling-whole"),
    (replace(TWO, vae=("slicing",)), "slicing-decodes-the-first"),
    (SD, "upsampling-filter attention-scale attention-heads sine-and-cosine-swapped timestep-frequencies"),
    (SD, "downsampling-padding timestep-activated-twice"),
    (SD, "red-and-blue-swapped levels-cut-off levels-of-256 one-level-brighter range-not-stretched not-clipped"),
    (SD, "stretched-to-the-range width-and-height-swapped"),
    (EDIT, "resized-coarsely input-range"),
    (SD, "seed-plus-one generator-ignored noise-drawn-twice noise-in-bfloat16 noise-in-float64 noise-clipped"),
    (HALF.by(EULER), "euler-step-in-half"),
    (HALF.by(DPM), "dpmpp-step-in-half"),
    (SD, "attention-in-bfloat16 group-norm-in-bfloat16 timestep-embedding-in-float16 timestep-in-bfloat16"),
    (SD, "unet-in-autocast decoding-in-autocast"),
    (replace(SD, sliced=True), "attention-scores-in-bfloat16"),
    (EDIT, "strength-one-step-more strength-ignored image-noised-as-at-the-start image-noise-variance"),
    (EDIT.by("HeunDiscrete"), "strength-of-second-order"),
    (EDIT.by(DPM), "image-noise-alpha"),
    (FILL, "mask-inverted mask-smoothed mask-not-resized kept-part-noised-too-much kept-part-not-blended-at-the-end"),
    (FILL.by(EULER), "inpainting-scaled-twice"),
    (SD, "unet-layer-lost decoder-bias-lost text-layer-lost weights-rounded kernels-transposed loading-raises"),
    (SD, "text-encoder-in-its-own-type option-lost-on-load betas-lost-on-load configuration-lost-on-switching"),
    (HALF, "dtype-ignored"),
    (SD.by(DPM, use_karras_sigmas=True)(num_inference_steps=4), "scheduler-options-lost"),
    (SD(clip_skip=1), "clip-skip-works clip-skip-ignored"),
    (SD.by("UniPCMultistep", use_karras_sigmas=True), "karras-sigmas-raise"),
    (SD.by(DPM, algorithm_type="sde-dpmsolver++", solver_order=3)(num_inference_steps=5), "sde-of-order-3-raises"),
    (HALF.by("UniPCMultistep", solver_order=3)(num_inference_steps=5), "unipc-of-order-3-raises-in-half"),
    (replace(PIXELS, dtype="bfloat16")(output_type="pt"), "float32-noise-in-half"),
    (TWO.by(ANCESTRAL), "ancestral-generators-raise"),
    (replace(TWO, checked=True), "checker-skipped checker-blackens-all checker-flags-lost checker-sees-the-first"),
]  # fmt: skip

# Which case's counted work shows which faults.
CASE = {"scheduler": "euler", "steps": 2, "guidance": 5.0, "images": 2, "prompts": tuple(PROMPTS)}
COUNTED: list[tuple[dict[str, Any], str]] = [
    (CASE | {"guidance": 1.0}, "guidance-at-one"),
    (CASE, "step-looked-up timestep-fetched nan-check latents-fetched residual-blocks-contiguous residual-blocks-copy"),
    (CASE, "unet-image-by-image unet-called-twice prompt-encoded-in-every-step eager-attention decoded-twice"),
    (CASE | {"steps": 9}, "outputs-kept"),
    (CASE | {"optimizations": ("attention-slicing",)}, "sliced-attention-whole"),
    (CASE | {"optimizations": ("vae-slicing",)}, "vae-slicing-whole"),
    (CASE | {"dtype": "bfloat16"}, "group-norm-in-float32"),
]

Outcome = tuple[Any, ...]


def embedded(name: str) -> Model:
    return Model.model_validate({"name": name, "kind": KINDS[name], "source": "embedded"})


def load(model: str, dtype: str, optimizations: tuple[str, ...] = ()) -> LoadedPipeline:
    return load_pipeline(embedded(model), dtype, optimizations, Cpu(), CHECKPOINTS)


@functools.cache
def loaded_once(model: str, dtype: str, optimizations: tuple[str, ...] = ()) -> LoadedPipeline:
    return load(model, dtype, optimizations)


@functools.cache
def checker() -> tuple[Any, Any]:
    """A safety checker with random weights that flags one of the two pictures, and its image processor."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor

    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = small | {"image_size": 32, "patch_size": 8}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = StableDiffusionSafetyChecker(CLIPConfig(text_config=small, vision_config=vision, projection_dim=16))
        torch.nn.init.normal_(made.concept_embeds)
    extractor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    pictures = [Image.fromarray(array) for array in call(TWO, loaded_once("emoji-sd", "float32"))]
    with torch.no_grad():
        seen = made.vision_model(extractor(pictures, return_tensors="pt").pixel_values)[1]
        likeness = torch.nn.functional.cosine_similarity(
            made.visual_projection(seen)[:, None], made.concept_embeds[None], dim=-1
        )
    concept = int((likeness[0] - likeness[1]).abs().argmax())
    made.concept_embeds_weights.data.fill_(9.0)
    made.special_care_embeds_weights.data.fill_(9.0)
    made.concept_embeds_weights.data[concept] = likeness[:, concept].mean()
    return made.eval(), extractor


def ask(witness: Witness, loaded: LoadedPipeline) -> Outcome:
    """The picture's values, or what was raised."""
    try:
        for _ in range(witness.calls):
            array = call(witness, loaded)
    except Exception as error:
        return "raises", type(error).__name__
    return "pictures", array.tobytes()


def call(witness: Witness, loaded: LoadedPipeline) -> np.ndarray:
    components = dict(loaded.pipeline.components)
    if witness.model == "emoji-sd" and witness.checked:
        components["safety_checker"], components["feature_extractor"] = checker()
    optional = {"requires_safety_checker": False} if witness.model == "emoji-sd" else {}
    pipeline = getattr(diffusers, witness.pipeline)(**components, **optional)
    pipeline.set_progress_bar_config(disable=True)
    options: dict[str, Any] = {"clip_sample": False} if witness.scheduler == "DDIM" else {}
    made = getattr(diffusers, f"{witness.scheduler}Scheduler")
    pipeline.scheduler = made.from_config(loaded.scheduler_config, **options | dict(witness.options))
    generators = [torch.Generator().manual_seed(number) for number in range(witness.images)]
    arguments = {"generator": generators if witness.images > 1 else generators[0]} | dict(witness.arguments)
    if witness.model == "emoji-sd":
        for name in ("slicing", "tiling"):
            getattr(pipeline.vae, f"{'enable' if name in witness.vae else 'disable'}_{name}")()
        pipeline.unet.set_default_attn_processor()
        if witness.sliced:
            pipeline.enable_attention_slicing("max")
    result = pipeline(**{"output_type": "pil"} | arguments).images
    if isinstance(result, torch.Tensor):
        return result.float().numpy()
    return np.stack([np.asarray(image) for image in result])


def count(settings: dict[str, Any], loaded: LoadedPipeline) -> Outcome:
    case = Case(model=embedded("emoji-sd"), settings=Settings(**settings))
    return "work", count_work(loaded, case).to_json()


@dataclass(frozen=True)
class Shown:
    """The pipeline and the call that show a fault."""

    model: str
    dtype: str
    optimizations: tuple[str, ...]
    ask: Callable[[LoadedPipeline], Outcome]
    key: str


def shown_by_picture(witness: Witness) -> Shown:
    return Shown(witness.model, witness.dtype, (), functools.partial(ask, witness), repr(witness))


def shown_by_work(settings: dict[str, Any]) -> Shown:
    asked = functools.partial(count, settings)
    return Shown("emoji-sd", settings.get("dtype", "float32"), settings.get("optimizations", ()), asked, repr(settings))


SHOWN = {name: shown_by_picture(witness) for witness, names in PICTURES for name in names.split()} | {
    name: shown_by_work(settings) for settings, names in COUNTED for name in names.split()
}
WITHOUT_FAULT: dict[str, Outcome] = {}


@pytest.fixture(scope="module", autouse=True)
def one_thread_for_all() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    loaded_once.cache_clear()


def without_fault(shown: Shown) -> Outcome:
    if shown.key not in WITHOUT_FAULT:
        loaded = loaded_once(shown.model, shown.dtype, shown.optimizations)
        WITHOUT_FAULT[shown.key] = shown.ask(loaded)
    return WITHOUT_FAULT[shown.key]


def test_every_fault_has_a_call_that_shows_it() -> None:
    assert sorted(SHOWN) == sorted(FAULTS)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_takes_effect(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fault, shown = FAULTS[name], SHOWN[name]
    before = without_fault(shown)
    fault.apply(monkeypatch)
    try:
        loaded = (load if fault.at_load else loaded_once)(shown.model, shown.dtype, shown.optimizations)
    except Exception as error:
        after: Outcome = ("raises", type(error).__name__)
    else:
        after = shown.ask(loaded)
    assert after != before


@pytest.mark.parametrize("name", ["dpmpp-final-sigma", "generator-ignored", "quant-conv-skipped", "step-looked-up"])
def test_a_fault_ends_with_its_patches(name: str) -> None:
    shown = SHOWN[name]
    before = without_fault(shown)
    with pytest.MonkeyPatch.context() as patch:
        FAULTS[name].apply(patch)
    assert shown.ask(loaded_once(shown.model, shown.dtype, shown.optimizations)) == before


@pytest.mark.parametrize("fault", FAULTS.values(), ids=lambda fault: fault.name)
def test_a_fault_says_what_and_where(fault: Any) -> None:
    assert fault.what[0].isupper() or not fault.what[0].isalpha() or fault.what.split()[0].islower()
    assert fault.what.endswith(".")
    assert fault.source.startswith("https://github.com/")
