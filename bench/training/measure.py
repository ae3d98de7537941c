"""Do the checkpoints behave like the real thing? The figures of the model cards, measured through the suite itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from tqdm import tqdm

from bench.calls.device import Cpu
from bench.calls.pipelines import LoadedPipeline, load_pipeline
from bench.calls.sampling import generate
from bench.pictures.similarity import ssim
from bench.suite.case import Case, Model, Settings
from bench.suite.schedulers import DDPM, STABLE_DIFFUSION
from bench.training.architectures import DDPM_SIZE, SD_SIZE
from bench.training.emoji import Pair, Pictures, all_pairs, split_pairs
from bench.training.objectives import as_image

BATCH = 16
GUIDANCES = (1.0, 2.0, 3.0, 5.0, 7.5, 9.0, 12.0)
STEPS = (5, 10, 20, 50)
REFERENCE_STEPS = 200


@dataclass(frozen=True)
class PromptFigures:
    """Of ``count`` prompts: the share whose nearest picture is the prompted one, and mean SSIM to that picture."""

    count: int
    nearest: float
    mean_ssim: float


@dataclass(frozen=True)
class NearestFigures:
    """Mean SSIM of ``count`` pictures to the nearest training picture."""

    count: int
    mean_ssim: float


def to_tensor(images: Sequence[Image.Image]) -> torch.Tensor:
    """Pictures as (count, 3, height, width), float32 in [-1, 1]."""
    arrays = np.stack([np.asarray(image) for image in images])
    return torch.from_numpy(arrays).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_array(tensor: torch.Tensor) -> np.ndarray:
    return ((tensor.permute(1, 2, 0) + 1) * 127.5).round().clamp(0, 255).byte().numpy()


def nearest(pictures: torch.Tensor, among: torch.Tensor, edge: int = 16) -> torch.Tensor:
    """Index of the nearest picture for each, by Euclidean distance of pixels after area reduction to ``edge``."""
    small, all_small = (F.adaptive_avg_pool2d(part, edge).flatten(1) for part in (pictures, among))
    return torch.cdist(small, all_small).argmin(dim=1)


def image_model() -> Model:
    return Model(name="emoji-ddpm", kind=DDPM, source="embedded")


def text_case(prompts: Sequence[str], seed: int, **settings: Any) -> Case:
    chosen = {"scheduler": "dpmpp-2m", "steps": 50, "guidance": 7.5} | settings
    return Case(
        model=Model(name="emoji-sd", kind=STABLE_DIFFUSION, source="embedded"),
        settings=Settings(images=len(prompts), prompts=tuple(prompts), seed=seed, **chosen),
    )


def draw_prompts(loaded: LoadedPipeline, pairs: Sequence[Pair], bar: tqdm, **settings: Any) -> list[Image.Image]:
    """The pictures of the pairs' prompts; image number i has seed i whatever the batch."""
    images = []
    for start in range(0, len(pairs), BATCH):
        batch = pairs[start : start + BATCH]
        images += generate(loaded, text_case([pair.prompt for pair in batch], start, **settings))
        bar.update(len(batch))
    return images


def score_prompts(images: Sequence[Image.Image], pairs: Sequence[Pair], draw: Pictures) -> PromptFigures:
    candidates = all_pairs()
    found = nearest(to_tensor(images), draw.draw(candidates)).tolist()
    wanted = [Image.fromarray(to_array(picture)) for picture in draw.draw(list(pairs))]
    return PromptFigures(
        count=len(pairs),
        nearest=sum(candidates[index] == pair for index, pair in zip(found, pairs, strict=True)) / len(pairs),
        mean_ssim=mean_ssim(images, wanted),
    )


def _every(pairs: list[Pair], count: int) -> list[Pair]:
    """``count`` pairs spread evenly over the list."""
    return [pairs[index * len(pairs) // count] for index in range(count)]


def measure_text_to_image(font: Path | None, count: int = 64) -> dict[str, Any]:
    """Prompts, guidance and steps of emoji-sd; all with float32, DPM++ 2M and guidance 7.5 unless said."""
    draw = Pictures(SD_SIZE, font)
    trained, held_out = (_every(pairs, count) for pairs in split_pairs())
    few = trained[:: max(1, count // BATCH)]
    loaded = load_pipeline(text_case(["panda"], 0).model, "float32", (), Cpu(), Path())
    total = 4 * count + len(GUIDANCES) * count + 2 * (len(STEPS) + 1) * len(few)
    with tqdm(total=total, desc="emoji-sd", unit="picture") as bar:

        def score(pairs: list[Pair], **settings: Any) -> dict[str, Any]:
            return asdict(score_prompts(draw_prompts(loaded, pairs, bar, **settings), pairs, draw))

        def converge(scheduler: str) -> dict[str, float]:
            reference = draw_prompts(loaded, few, bar, scheduler=scheduler, steps=REFERENCE_STEPS)
            return {
                str(steps): mean_ssim(draw_prompts(loaded, few, bar, scheduler=scheduler, steps=steps), reference)
                for steps in STEPS
            }

        return {
            "prompts": {
                f"{name}, {scheduler}": score(pairs, scheduler=scheduler)
                for scheduler in ("dpmpp-2m", "pndm")
                for name, pairs in (("trained", trained), ("never trained", held_out))
            },
            "guidance": {f"{scale:g}": score(trained, guidance=scale, steps=20) for scale in GUIDANCES},
            "steps": {scheduler: converge(scheduler) for scheduler in ("ddim", "dpmpp-2m")},
            "reference_steps": REFERENCE_STEPS,
        }


def mean_ssim(images: Sequence[Image.Image], others: Sequence[Image.Image]) -> float:
    pairs = zip(images, others, strict=True)
    return float(np.mean([ssim(np.asarray(image), np.asarray(other)) for image, other in pairs]))


def score_nearest(pictures: torch.Tensor, among: torch.Tensor) -> NearestFigures:
    found = nearest(pictures, among, edge=DDPM_SIZE).tolist()
    scores = [ssim(to_array(picture), to_array(among[index])) for picture, index in zip(pictures, found, strict=True)]
    return NearestFigures(len(scores), float(np.mean(scores)))


def measure_image(font: Path | None, count: int = 64, steps: int = 100) -> dict[str, Any]:
    """SSIM of emoji-ddpm's pictures to the nearest training picture, and the same of training pictures among others."""
    training = Pictures(DDPM_SIZE, font).draw(split_pairs()[0])
    loaded = load_pipeline(image_model(), "float32", (), Cpu(), Path())
    images: list[Image.Image] = []
    with tqdm(total=count, desc="emoji-ddpm", unit="picture") as bar:
        for seed in range(0, count, BATCH):
            settings = Settings(scheduler="ddpm", steps=steps, images=BATCH, seed=seed)
            images += generate(loaded, Case(model=image_model(), settings=settings))
            bar.update(BATCH)
    chosen = [index * len(training) // count for index in range(count)]
    others = [
        score_nearest(training[index : index + 1], torch.cat([training[:index], training[index + 1 :]])).mean_ssim
        for index in chosen
    ]
    noise = torch.rand(count, 3, DDPM_SIZE, DDPM_SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return {
        f"generated, {steps} steps": asdict(score_nearest(to_tensor(images), training)),
        "training pictures among the others": asdict(NearestFigures(count, float(np.mean(others)))),
        "noise": asdict(score_nearest(noise, training)),
    }


def sample_text_to_image(count: int = 32) -> Image.Image:
    """Prompts never trained, in rows of eight."""
    pairs = _every(split_pairs()[1], count)
    loaded = load_pipeline(text_case(["panda"], 0).model, "float32", (), Cpu(), Path())
    with tqdm(total=count, desc="samples", unit="picture") as bar:
        return as_image(to_tensor(draw_prompts(loaded, pairs, bar)), columns=8)


def sample_image(count: int = 32, steps: int = 200) -> Image.Image:
    loaded = load_pipeline(image_model(), "float32", (), Cpu(), Path())
    settings = Settings(scheduler="ddpm", steps=steps, images=count)
    return as_image(to_tensor(generate(loaded, Case(model=image_model(), settings=settings))), columns=8)
