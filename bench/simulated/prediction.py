"""What an operator will return, by torch's kernels for the meta device: sizes, strides and dtypes, but no values."""

from __future__ import annotations

from typing import Any

import torch

from .arguments import replace

aten = torch.ops.aten


def _on_meta(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device="meta")


def _is_channels_last(tensor: torch.Tensor) -> bool:
    return tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()


def on_meta(args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The arguments on the meta device, without a generator."""
    args, kwargs = replace((args, kwargs), torch.Tensor, _on_meta)
    kwargs = replace(kwargs, torch.device, lambda _: torch.device("meta"))
    return args, {name: value for name, value in kwargs.items() if not isinstance(value, torch.Generator)}


def predict(op: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The result on the meta device, from arguments that are there too.

    Raises:
        NotImplementedError: the operator has no meta kernel, for example because its result depends on values.
    """
    predicted = op(*args, **kwargs)
    # cuDNN answers in the layout of its inputs; the meta kernel of torch does not know it.
    if op is aten.convolution.default and predicted.dim() == 4 and any(map(_is_channels_last, args[:2])):
        return predicted.to(memory_format=torch.channels_last)
    return predicted
