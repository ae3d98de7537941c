"""How near the pictures of a setting are to those of the reference."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from PIL import Image

from bench.pictures.similarity import ssim
from bench.tune.errors import TuneError

Images = Sequence[Image.Image]
# Pictures, those of the reference, and the prompts (empty for DDPM); larger is better, 1 the best.
Measure = Callable[[Images, Images, Sequence[str]], float]


@dataclass(frozen=True)
class Likeness:
    """Of each picture to that of the reference; the quality is one number for all of them.

    Attributes:
        flip: mean FLIP error (Andersson et al. 2020, "FLIP: A Difference Evaluator for Alternating Images"), in [0, 1],
            for a screen at the distance that its authors assume.
    """

    ssim: tuple[float, ...]
    flip: tuple[float, ...]
    quality: float


def mean_ssim(images: Images, references: Images, _prompts: Sequence[str] = ()) -> float:
    return fmean(ssim(np.asarray(one), np.asarray(other)) for one, other in zip(images, references, strict=True))


def mean_flip(image: Image.Image, reference: Image.Image) -> float:
    """Mean FLIP error of a picture, 0 for the same picture."""
    import flip_evaluator

    one, other = (np.asarray(picture, np.float32) / 255 for picture in (image, reference))
    _, error, _ = flip_evaluator.evaluate(other, one, "LDR", applyMagma=False)
    return float(error)


def likeness(images: Images, references: Images, prompts: Sequence[str], measure: Measure) -> Likeness:
    """Raises:
    TuneError: the measure returned no number.
    """
    quality = measure(images, references, prompts)
    if not isinstance(quality, int | float) or not np.isfinite(quality):
        raise TuneError(f"--quality returned {quality!r}; it must return a number.")
    pairs = list(zip(images, references, strict=True))
    return Likeness(
        ssim=tuple(mean_ssim([one], [other]) for one, other in pairs),
        flip=tuple(mean_flip(one, other) for one, other in pairs),
        quality=float(quality),
    )


def measure_named(name: str | None) -> Measure:
    """The measure ``module:function``; mean SSIM without a name.

    Raises:
        TuneError: there is no such function.
    """
    if not name:
        return mean_ssim
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise TuneError(f"--quality {name}: {error}; give it as module:function.") from None
    if not callable(found):
        raise TuneError(f"--quality {name}: not a function.")
    return found
