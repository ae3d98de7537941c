"""Any operator of torch: queued, with a result of known size; or awaited, where a real accelerator waits too."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from . import random_state
from .arguments import on_cpu, replace, tensors_in
from .devices import TYPE, Device
from .placement import check_written, common_device
from .prediction import on_meta, predict
from .storage import Weightless, forget, host_view, new_tensor

aten = torch.ops.aten

# The size of their result depends on values, or they return a value: CUDA waits in each of them.
_WAITING = {
    "aten::_unique2",
    "aten::bincount",
    "aten::equal",
    "aten::masked_select",
    "aten::nonzero",
    "aten::repeat_interleave",
    "aten::unique_consecutive",
    "aten::unique_dim",
}
# CUDA takes indices from the CPU in these alone, and copies them.
_INDEXING = {"aten::index", "aten::_unsafe_index", "aten::index_put_", "aten::_index_put_impl_"}


@dataclass(frozen=True)
class _Signature:
    """What the schema of an operator says.

    Attributes:
        written: position and name of each argument that the operator writes.
        returned: for each result the place in ``written`` that it is, or ``None`` for a new tensor.
        draws: whether the operator takes a generator.
    """

    written: tuple[tuple[int, str], ...]
    returned: tuple[int | None, ...]
    draws: bool


@functools.cache
def _signature(op: Any) -> _Signature:
    schema = op._schema
    written = [
        (place, argument)
        for place, argument in enumerate(schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    aliases = [argument.alias_info.before_set for _, argument in written]
    return _Signature(
        written=tuple((place, argument.name) for place, argument in written),
        returned=tuple(
            aliases.index(result.alias_info.before_set)
            if result.alias_info is not None and result.alias_info.before_set in aliases
            else None
            for result in schema.returns
        ),
        draws=any(argument.name == "generator" for argument in schema.arguments),
    )


def run(op: Any, *args: Any, **kwargs: Any) -> Any:
    """Gives an operator to the device of its tensors; the kernel for all operators without one of their own.

    Raises:
        RuntimeError: the tensors are on several devices, or do not fit the operator.
        torch.OutOfMemoryError: the device has no memory for the result.
        torch.AcceleratorError: a kernel failed, and its error was raised before.
    """
    signature, name = _signature(op), op._schema.name
    device = common_device(name, args, kwargs, tensors_in(args[1]) if name in _INDEXING else ())
    if signature.draws:
        kwargs = {**kwargs, "generator": random_state.generator_for(device, kwargs.get("generator"))}
    if name in _INDEXING:
        args = (args[0], replace(args[1], torch.Tensor, lambda index: index.to(device.torch_device)), *args[2:])
    written = [kwargs[name] if name in kwargs else args[place] for place, name in signature.written]
    check_written(name, tensors_in(written), device)
    if name in _WAITING or _has_mask(name, args):
        return _run_now(op, device, args, kwargs, written, cause=name.removeprefix("aten::"))
    try:
        meta_args, meta_kwargs = on_meta(args, kwargs)
        predicted = predict(op, meta_args, meta_kwargs)
    except NotImplementedError:
        if None in signature.returned:
            return _run_now(op, device, args, kwargs, written, cause=f"{name.removeprefix('aten::')} (no meta kernel)")
        predicted = None
    else:
        _give_sizes(op, signature, kwargs, meta_kwargs)
    results = _assemble(
        signature, written, predicted, lambda like: new_tensor(device, like.size(), like.stride(), like.dtype)
    )
    made = list(tensors_in(_new_only(signature, results)))
    try:
        host_args, host_kwargs = _on_host(args, kwargs)
        targets = [host_view(tensor) for tensor in made]
    except Weightless:
        device.launch(lambda: None)
        for tensor in (*tensors_in(written), *made):
            forget(tensor)
        return results

    def kernel() -> None:
        computed = op(*host_args, **host_kwargs)
        for target, value in zip(targets, tensors_in(_new_only(signature, computed)), strict=True):
            if target.shape != value.shape:
                raise AssertionError(f"{op}: the meta kernel says {target.shape}, the CPU kernel {value.shape}.")
            target.copy_(value)

    device.launch(kernel)
    return results


def _has_mask(name: str, args: Any) -> bool:
    """Whether an index is a mask, whose number of elements only the device knows.

    One value for all places is filled in without knowing it.
    """
    if name not in _INDEXING:
        return False
    masks = [index for index in tensors_in(args[1]) if index.dtype in (torch.bool, torch.uint8)]
    fills = len(args) > 2 and args[2].numel() == 1 and len(list(tensors_in(args[1]))) == 1
    return bool(masks) and not fills


def _host(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes for a kernel; a number from the CPU is read when the kernel is launched."""
    return host_view(tensor) if tensor.device.type == TYPE else tensor.clone()


def _on_host(args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return on_cpu(replace((args, kwargs), torch.Tensor, _host))


def _give_sizes(op: Any, signature: _Signature, kwargs: dict[str, Any], meta_kwargs: dict[str, Any]) -> None:
    """Resizes ``out`` tensors to what the meta kernel made of theirs."""
    for _, name in signature.written:
        for real, like in zip(tensors_in(kwargs.get(name)), tensors_in(meta_kwargs.get(name)), strict=True):
            if real.shape != like.shape:
                real.resize_(like.shape)


def _assemble(signature: _Signature, written: list[Any], computed: Any, make: Callable[[torch.Tensor], torch.Tensor] | None
) -> Any:
    """The operator's results: the arguments that it wrote, and new tensors made like the computed ones."""
    count = len(signature.returned)
    if count == 0:
        return None
    parts = (computed,) if count == 1 else computed if computed is not None else (None,) * count
    results = [
        replace(part, torch.Tensor, make) if place is None else written[place]
        for place, part in zip(signature.returned, parts, strict=True)
    ]
    return results[0] if count == 1 else tuple(results)


def _new_only(signature: _Signature, results: Any) -> list[Any]:
    """The results that are no arguments of the operator."""
    parts = (results,) if len(signature.returned) == 1 else results or ()
    return [part for place, part in zip(signature.returned, parts, strict=True) if place is None]


def _run_now(op: Any, device: Device, args: Any, kwargs: dict[str, Any], written: list[Any], cause: str) -> Any:
    """Runs an operator after waiting for the device: the size of the result is known only then."""
    device.launch(lambda: None)
    device.wait(cause)
    signature = _signature(op)

    def keep(computed: torch.Tensor) -> torch.Tensor:
        made = new_tensor(device, computed.size(), computed.stride(), computed.dtype)
        host_view(made).copy_(computed)
        return made

    try:
        host_args, host_kwargs = _on_host(args, kwargs)
    except Weightless:
        for tensor in tensors_in(written):
            forget(tensor)
        return _nothing_found(op, signature, device, args, written)
    return _assemble(signature, written, op(*host_args, **host_kwargs), keep)


def _nothing_found(op: Any, signature: _Signature, device: Device, args: Any, written: list[Any]) -> Any:
    """The answer about a tensor without values: not equal, and no element is chosen."""
    if op is aten.equal.default:
        return False
    if None not in signature.returned:
        return _assemble(signature, written, None, None)
    tensor = next(tensors_in(args))
    if op._schema.name == "aten::nonzero":
        return new_tensor(device, (0, tensor.dim()), (max(tensor.dim(), 1), 1), torch.int64)
    if op._schema.name in ("aten::masked_select", *_INDEXING):
        shape = (0, *tensor.shape[1:]) if op._schema.name in _INDEXING else (0,)
        like = torch.empty(shape, device="meta")
        return new_tensor(device, like.size(), like.stride(), tensor.dtype)
    raise RuntimeError(f"{op._schema.name} needs values, and the tensor has a size and no bytes (weightless).")
