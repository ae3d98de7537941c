"""Ways of calling a pipeline other than the plain one: what users do with it, and what must make no difference.

``bench.calls.scenarios`` makes the calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from bench.suite.schedulers import DDPM, STABLE_DIFFUSION
from bench.suite.tasks import INPAINTING

PLAIN = "plain"

_SD = frozenset({STABLE_DIFFUSION})
_DDPM = frozenset({DDPM})


@dataclass(frozen=True)
class Scenario:
    """A way of calling a pipeline.

    Attributes:
        like_plain: makes the pictures of the plain call, and is compared with its golden.
        kinds: the pipelines that have it.
        task: the only task that has it; ``None`` if all have it.
        draws_on_device: the noise is not drawn on the CPU, so the pictures differ by type of device.
    """

    like_plain: bool = False
    kinds: frozenset[str] = _SD | _DDPM
    task: str | None = None
    draws_on_device: bool = False


SCENARIOS: Mapping[str, Scenario] = MappingProxyType(
    {
        PLAIN: Scenario(),
        "singles": Scenario(like_plain=True),
        "called-twice": Scenario(like_plain=True),
        "numpy-output": Scenario(like_plain=True),
        "saved-and-loaded": Scenario(like_plain=True),
        "stored-in-float32": Scenario(like_plain=True),
        "after-interruption": Scenario(like_plain=True, kinds=_SD),
        "callback": Scenario(like_plain=True, kinds=_SD),
        "callback-changes": Scenario(kinds=_SD),
        "prompt-embeddings": Scenario(like_plain=True, kinds=_SD),
        "given-latents": Scenario(like_plain=True, kinds=_SD),
        "decoded-apart": Scenario(like_plain=True, kinds=_SD),
        "safety-checker": Scenario(like_plain=True, kinds=_SD),
        "safety-checker-blackens": Scenario(kinds=_SD),
        "one-generator": Scenario(),
        "generator-of-two-calls": Scenario(),
        "global-seed": Scenario(draws_on_device=True),
        "interrupted": Scenario(kinds=_SD),
        "loaded-without-dtype": Scenario(),
        "soft-mask": Scenario(like_plain=True, kinds=_SD, task=INPAINTING),
        "cropped-to-mask": Scenario(kinds=_SD, task=INPAINTING),
        "from-pipe": Scenario(like_plain=True, kinds=_SD),
        "tiled-vae": Scenario(kinds=_SD),
        "free-u": Scenario(kinds=_SD),
        "ddim-pipeline": Scenario(kinds=_DDPM),
    }
)
