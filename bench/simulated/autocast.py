"""``torch.autocast("sim")``: which operators run in the lower precision and which in float32, as on CUDA."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .arguments import replace
from .settings import TYPE

aten = torch.ops.aten

LOWER_PRECISION = (
    *("conv1d", "conv2d", "conv3d", "conv_tbc", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
    *("convolution", "prelu", "addmm", "addmv", "addr", "matmul", "einsum", "mm", "mv", "linalg_vecdot", "linear"),
    *("addbmm", "baddbmm", "bmm", "chain_matmul", "linalg_multi_dot", "scaled_dot_product_attention"),
)
FLOAT32 = (
    *("acos", "asin", "cosh", "erfinv", "exp", "expm1", "log", "log10", "log2", "log1p", "reciprocal", "rsqrt"),
    *("sinh", "tan", "pow", "softplus", "layer_norm", "native_layer_norm", "group_norm", "cosine_similarity"),
    *("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "nll_loss", "kl_div", "cdist", "norm", "softmax"),
    *("log_softmax", "cumprod", "cumsum", "prod", "sum"),
)
WIDEST = ("addcdiv", "addcmul", "atan2", "bilinear", "cat", "cross", "dot", "grid_sampler", "index_put", "stack")

_keys = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)


def _dtype() -> torch.dtype:
    return torch.get_autocast_dtype(TYPE)


def _floats(values: Any) -> set[torch.dtype]:
    found: set[torch.dtype] = set()
    replace(values, torch.Tensor, lambda tensor: found.add(tensor.dtype) if _is_cast(tensor) else None)
    return found


def _is_cast(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() and tensor.dtype != torch.float64 and tensor.device.type == TYPE


def _cast_to(op: Any, choose: Callable[[Any], torch.dtype | None]) -> Callable[..., Any]:
    """The operator, with the tensors of the device in the chosen dtype; ``None`` leaves them as they are."""

    def kernel(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(_keys):
            dtype = choose((args, kwargs))
            if dtype is not None:
                args, kwargs = replace(
                    (args, kwargs), torch.Tensor, lambda tensor: tensor.to(dtype) if _is_cast(tensor) else tensor
                )
            return op(*args, **kwargs)

    return kernel


def _widest(values: Any) -> torch.dtype | None:
    return torch.float32 if torch.float32 in _floats(values) else None


def register(library: torch.library.Library) -> None:
    """Registers all of them for the device."""
    rules: dict[str, Callable[[Any], torch.dtype | None]] = {
        **dict.fromkeys(LOWER_PRECISION, lambda values: _dtype()),
        **dict.fromkeys(FLOAT32, lambda values: torch.float32),
        **dict.fromkeys(WIDEST, _widest),
    }
    for full in torch._C._dispatch_get_all_op_names():
        namespace, _, name = full.partition("::")
        packet, _, overload = name.partition(".")
        if namespace == "aten" and packet in rules and "out" not in overload.split("_"):
            op = getattr(getattr(aten, packet), overload or "default")
            library.impl(name, _cast_to(op, rules[packet]), "AutocastPrivateUse1")
