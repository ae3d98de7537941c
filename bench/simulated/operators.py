"""Any operator of torch: queued, with a result of known size; or awaited, where a real accelerator waits too."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from . import random_state
from .arguments import on_cpu, replace, tensors_in
from .devices import Device
from .placement import check_written, common_device
from .prediction import on_meta, predict
from .settings import TYPE
from .storage import Weightless, forget, host_view, new_tensor

aten = torch.ops.aten

# The size of their result depends on values, or they return a value: CUDA waits in each of them.
_WAITING = {
    "_unique2",
    "bincount",
    "equal",
    "masked_select",
    "nonzero",
    "repeat_interleave",
    "unique_consecutive",
    "unique_dim",
}
# CUDA takes indices from the CPU in these alone, and copies them.
_INDEXING = {"index", "_unsafe_index", "index_put_", "_index_put_impl_"}


@dataclass(frozen=True)
class _Signature:
    """What the schema of an operator says.

    Attributes:
        name: without namespace and overload.
        written: position and name of each argument that the operator writes.
        returned: for each result the place in ``written`` that it is, or ``None`` for a new tensor.
        draws: whether the operator takes a generator.
    """

    name: str
    written: tuple[tuple[int, str], ...]
    returned: tuple[int | None, ...]
    draws: bool

    @property
    def makes_tensors(self) -> bool:
        return None in self.returned

    def new_in(self, results: Any) -> list[torch.Tensor]:
        """The tensors among the results that are no arguments of the operator."""
        parts = (results,) if len(self.returned) == 1 else results or ()
        return list(tensors_in([part for place, part in zip(self.returned, parts, strict=True) if place is None]))


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
        name=schema.name.partition("::")[2],
        written=tuple((place, argument.name) for place, argument in written),
        returned=tuple(
            aliases.index(result.alias_info.before_set)
            if result.alias_info is not None and result.alias_info.before_set in aliases
            else None
            for result in schema.returns
        ),
        draws=any(argument.name == "generator" for argument in schema.arguments),
    )


@dataclass(frozen=True)
class _Call:
    """An operator with its arguments, on the device of its tensors."""

    op: Any
    args: Sequence[Any]
    kwargs: dict[str, Any]
    signature: _Signature
    device: Device

    @property
    def written(self) -> list[Any]:
        """The arguments that the operator writes; some are lists of tensors."""
        return [
            self.kwargs[name] if name in self.kwargs else self.args[place] for place, name in self.signature.written
        ]

    def new_like(self, tensor: torch.Tensor) -> torch.Tensor:
        return new_tensor(self.device, tensor.size(), tensor.stride(), tensor.dtype)

    def on_host(self) -> tuple[Sequence[Any], dict[str, Any]]:
        """The arguments for the CPU's kernel.

        Raises:
            Weightless: a tensor has no bytes.
        """
        return on_cpu(replace((self.args, self.kwargs), torch.Tensor, _bytes_of))

    def results(self, computed: Any, make: Callable[[torch.Tensor], torch.Tensor]) -> Any:
        """What the operator returns: the arguments that it wrote, and tensors made from the computed ones."""
        returned = self.signature.returned
        if not returned:
            return None
        parts = (computed,) if len(returned) == 1 else computed if computed is not None else (None,) * len(returned)
        written = self.written
        results = [
            replace(part, torch.Tensor, make) if place is None else written[place]
            for place, part in zip(returned, parts, strict=True)
        ]
        return results[0] if len(results) == 1 else tuple(results)


def run(op: Any, *args: Any, **kwargs: Any) -> Any:
    """Gives an operator to the device of its tensors; the kernel for all operators without one of their own.

    Raises:
        RuntimeError: the tensors are on several devices, or do not fit the operator.
        torch.OutOfMemoryError: the device has no memory for the result.
        torch.AcceleratorError: a kernel failed, and its error was raised before.
    """
    signature = _signature(op)
    indexes = signature.name in _INDEXING
    device = common_device(signature.name, args, kwargs, tensors_in(args[1]) if indexes else ())
    if signature.draws:
        kwargs = {**kwargs, "generator": random_state.generator_for(device, kwargs.get("generator"))}
    if indexes:
        args = (args[0], replace(args[1], torch.Tensor, lambda index: index.to(device.torch_device)), *args[2:])
    call = _Call(op, args, kwargs, signature, device)
    check_written(signature.name, tensors_in(call.written), device)
    if signature.name in _WAITING or (indexes and _counts_a_mask(args)):
        return _run_now(call, signature.name)
    try:
        predicted = _predict(call)
    except NotImplementedError:
        if signature.makes_tensors:
            return _run_now(call, f"{signature.name} (no meta kernel)")
        predicted = None
    return _enqueue(call, call.results(predicted, call.new_like))


def _bytes_of(tensor: torch.Tensor) -> torch.Tensor:
    """What the kernel reads or writes; a number from the CPU is read when the kernel is launched."""
    return host_view(tensor) if tensor.device.type == TYPE else tensor.clone()


def _counts_a_mask(args: Sequence[Any]) -> bool:
    """Whether an index is a mask, whose number of elements only the device knows.

    One value for all places is filled in without knowing it.
    """
    indices = list(tensors_in(args[1]))
    fills = len(args) > 2 and args[2].numel() == 1 and len(indices) == 1
    return not fills and any(index.dtype in (torch.bool, torch.uint8) for index in indices)


def _predict(call: _Call) -> Any:
    """The result on the meta device, after ``out`` tensors got their sizes.

    Raises:
        NotImplementedError: the operator has no meta kernel.
    """
    args, kwargs = on_meta(call.args, call.kwargs)
    predicted = predict(call.op, args, kwargs)
    for _, name in call.signature.written:
        for real, like in zip(tensors_in(call.kwargs.get(name)), tensors_in(kwargs.get(name)), strict=True):
            if real.shape != like.shape:
                real.resize_(like.shape)
    return predicted


def _enqueue(call: _Call, results: Any) -> Any:
    op, signature = call.op, call.signature
    made = signature.new_in(results)
    try:
        args, kwargs = call.on_host()
        targets = [host_view(tensor) for tensor in made]
    except Weightless:
        call.device.launch(lambda: None)
        for tensor in (*tensors_in(call.written), *made):
            forget(tensor)
        return results

    # It must hold no tensor of the device: memory would depend on how far the host is ahead.
    def kernel() -> None:
        computed = op(*args, **kwargs)
        for target, value in zip(targets, signature.new_in(computed), strict=True):
            if target.shape != value.shape:
                raise AssertionError(f"{op}: the meta kernel says {target.shape}, the CPU kernel {value.shape}.")
            target.copy_(value)

    call.device.launch(kernel)
    return results


def _run_now(call: _Call, cause: str) -> Any:
    """Runs an operator after waiting for the device: the size of the result is known only then."""
    call.device.launch(lambda: None)
    call.device.wait(cause)

    def keep(computed: torch.Tensor) -> torch.Tensor:
        made = call.new_like(computed)
        host_view(made).copy_(computed)
        return made

    try:
        args, kwargs = call.on_host()
    except Weightless:
        for tensor in tensors_in(call.written):
            forget(tensor)
        return _nothing_found(call)
    return call.results(call.op(*args, **kwargs), keep)


def _nothing_found(call: _Call) -> Any:
    """The answer about a tensor without values: not equal, and no element is chosen."""
    name, tensor = call.signature.name, next(tensors_in(call.args))
    if name == "equal":
        return False
    if not call.signature.makes_tensors:
        return call.results(None, call.new_like)
    shapes = {"nonzero": (0, tensor.dim()), "masked_select": (0,), "index": (0, *tensor.shape[1:])}
    if name not in shapes:
        raise RuntimeError(f"{name} needs values, and the tensor has a size and no bytes (weightless).")
    dtype = torch.int64 if name == "nonzero" else tensor.dtype
    return call.new_like(torch.empty(shapes[name], dtype=dtype, device="meta"))
