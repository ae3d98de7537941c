"""The speed settings that take more than a call of the library to switch on."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

# Every how many calls of the UNet DeepCache computes its deep blocks (Ma et al. 2023, arXiv 2312.00858).
DEEP_EVERY = 3
# Share of the tokens that are merged (Bolya and Hoffman 2023, "Token Merging for Fast Stable Diffusion").
MERGED = 0.5


def in_context(
    module: torch.nn.Module, context: Callable[[], AbstractContextManager[Any]], entered: Callable[[], None]
) -> None:
    """Each call of the module happens within a context of its own."""
    forward = module.forward

    @functools.wraps(forward)
    def within(*args: Any, **kwargs: Any) -> Any:
        with context():
            entered()
            return forward(*args, **kwargs)

    module.forward = within


def watch_batch(unet: Any) -> None:
    """Counts in ``unet.batches_halved`` how often a call has half the batch of the one before."""
    unet.batches_halved = 0
    last: list[int] = [0]

    def look(_module: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        sample = arguments[0] if arguments else keywords["sample"]
        unet.batches_halved += 2 * len(sample) == last[0]
        last[0] = len(sample)

    unet.register_forward_pre_hook(look, with_kwargs=True)


def quantize(unet: torch.nn.Module, configuration: str) -> None:
    """Quantizes the linear layers with the configuration of torchao that has this name."""
    from torchao import quantization

    quantization.quantize_(unet, getattr(quantization, configuration)())


def offload(pipeline: Any, method: str) -> None:
    """Keeps the weights on the processor until they are needed."""
    device = pipeline.unet.device
    if method == "group":
        pipeline.to("cpu")
        pipeline.enable_group_offload(
            onload_device=device, offload_device=torch.device("cpu"), offload_type="leaf_level"
        )
        return
    pipeline.to("cpu")
    enable = pipeline.enable_model_cpu_offload if method == "model" else pipeline.enable_sequential_cpu_offload
    enable(device=device)


def merge_tokens(pipeline: Any) -> None:
    """Token merging, with the same tokens for each call: ``use_rand=False``."""
    import tomesd

    tomesd.apply_patch(pipeline, ratio=MERGED, use_rand=False)
    pipeline.unet.merged = 0
    match = tomesd.patch.merge.bipartite_soft_matching_random2d
    for module in pipeline.unet.modules():
        if type(module).__name__ == "ToMeBlock":
            _count_merges(pipeline.unet, module, match)


def _count_merges(unet: Any, block: Any, match: Callable[..., Any]) -> None:
    """Counts in ``unet.merged`` the calls of a block in which tokens are merged; small pictures have too few."""
    import tomesd

    forward = block.forward

    @functools.wraps(forward)
    def counted(*args: Any, **kwargs: Any) -> Any:
        def matching(*of: Any, **with_: Any) -> Any:
            unet.merged += 1
            return match(*of, **with_)

        tomesd.patch.merge.bipartite_soft_matching_random2d = matching
        try:
            return forward(*args, **kwargs)
        finally:
            tomesd.patch.merge.bipartite_soft_matching_random2d = match

    block.forward = counted


@dataclass
class DeepCache:
    """Counts the calls of the UNet that reused deep features.

    Attributes:
        helper: of the package DeepCache.
    """

    helper: Any
    reused: int = 0


def reuse_deep_features(pipeline: Any) -> None:
    """Computes the deep blocks of the UNet in one of ``DEEP_EVERY`` calls and reuses their output in the others."""
    from DeepCache import DeepCacheSDHelper

    helper = DeepCacheSDHelper(pipe=pipeline)
    helper.set_params(cache_interval=DEEP_EVERY, cache_branch_id=0)
    helper.enable()
    pipeline.deep_cache = cache = DeepCache(helper)
    original = helper.is_skip_step

    @functools.wraps(original)
    def counted(*args: Any, **kwargs: Any) -> bool:
        skips = original(*args, **kwargs)
        cache.reused += bool(skips)
        return skips

    helper.is_skip_step = counted
