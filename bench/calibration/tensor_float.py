"""TF32 arithmetic on a processor: what a GPU's convolutions and matrix products do to their inputs.

TensorFloat-32 keeps the sign, the 8 bits of the exponent and 10 of the 23 bits of the mantissa of each input, and adds
the products in float32 (NVIDIA A100 whitepaper, "TensorFloat-32"). By default PyTorch uses it for convolutions on
NVIDIA GPUs, and on request for matrix products.
"""

from __future__ import annotations

from typing import Any

import torch

_DROPPED_BITS = 13
CONVOLUTIONS: tuple[type[torch.nn.Module], ...] = (torch.nn.Conv2d,)
CONVOLUTIONS_AND_PRODUCTS: tuple[type[torch.nn.Module], ...] = (torch.nn.Conv2d, torch.nn.Linear)


def round_to_tf32(values: torch.Tensor) -> torch.Tensor:
    """float32 values rounded to the nearest that TF32 can hold; half-way cases away from zero."""
    bits = values.contiguous().view(torch.int32)
    return ((bits + (1 << (_DROPPED_BITS - 1))) & -(1 << _DROPPED_BITS)).view(torch.float32)


def use_tf32(pipeline: Any, kinds: tuple[type[torch.nn.Module], ...]) -> int:
    """Makes layers of these kinds round their weights and inputs to TF32, permanently; returns how many."""
    parts = (getattr(pipeline, name, None) for name in ("text_encoder", "unet", "vae"))
    layers: list[Any] = [layer for part in parts if part is not None for layer in part.modules()]
    layers = [layer for layer in layers if isinstance(layer, kinds)]
    for layer in layers:
        layer.weight.data = round_to_tf32(layer.weight.data)
        layer.register_forward_pre_hook(lambda _, inputs: (round_to_tf32(inputs[0]), *inputs[1:]))
    return len(layers)
