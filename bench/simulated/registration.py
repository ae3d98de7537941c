"""Makes the simulated accelerator known to torch, once in a process."""

from __future__ import annotations

import atexit
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from . import (
    accelerator,
    autocast,
    copies,
    devices,
    kernels,
    operators,
    random_state,
    storage,
    streams,
    tensor_data,
    torch_sim,
)
from .settings import TYPE, Settings

aten = torch.ops.aten
KEY = "PrivateUse1"

OWN_KERNELS: dict[str, Callable[..., Any]] = {
    "empty.memory_format": kernels.empty,
    "empty_strided": kernels.empty_strided,
    "resize_": kernels.resize,
    "scaled_dot_product_attention": kernels.attention,
    "_scaled_dot_product_fused_attention_overrideable": kernels.fused_attention,
    "_copy_from": copies.copy_from,
    "_copy_from_and_resize": copies.copy_from,
    "_local_scalar_dense": copies.item,
    "_to_copy": copies.to_copy,
    "record_stream": lambda tensor, stream: None,
}
METADATA_ONLY = (
    "_reshape_alias",
    "as_strided",
    "set_.source_Storage",
    "set_.source_Storage_storage_offset",
    "set_.source_Tensor",
    "unfold",
    "view",
)
# torch would choose a library for them that this device does not have.
ONE_KERNEL = ("convolution", "convolution_backward")
COMPOSITE = ("CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional", "CompositeImplicitAutograd")

# A registration lasts as long as its library.
_libraries: list[torch.library.Library] = []


def _operator(name: str) -> Any:
    packet, _, overload = name.partition(".")
    return getattr(getattr(aten, packet), overload or "default")


def _register_operators() -> None:
    fallback, library = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    _libraries.extend((fallback, library))
    fallback.fallback(operators.run, KEY)
    for name, kernel in OWN_KERNELS.items():
        library.impl(name, kernel, KEY)
    for name in METADATA_ONLY:
        library.impl(name, kernels.metadata_only(_operator(name)), KEY)
    for name in ONE_KERNEL:
        library.impl(name, functools.partial(operators.run, _operator(name)), KEY)
    # Where gradients are recorded torch would take attention apart before this device is asked.
    library.impl("scaled_dot_product_attention", kernels.attention, "AutogradPrivateUse1")
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    # What is one kernel on the CPU is one kernel here, and not the several that a composite would take it apart into.
    for full in torch._C._dispatch_get_all_op_names():
        namespace, _, name = full.partition("::")
        if namespace != "aten" or not has(full, "CPU") or has(full, KEY):
            continue
        if any(has(full, key) for key in COMPOSITE):
            library.impl(name, functools.partial(operators.run, _operator(name)), KEY)
    library.impl("is_pinned", copies.is_pinned, "CPU")
    library.impl("_pin_memory", copies.pin_memory, "CPU")
    fallback.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    autocast.register(library)


def _take_over_classes() -> None:
    """Classes of torch that ask the device in C++, where it cannot answer."""
    torch.Generator, torch.Stream, torch.Event = random_state.Generator, streams.Stream, streams.Event
    make = torch._C.StorageBase.__new__

    def new(cls: type, *args: Any, device: Any = None, **kwargs: Any) -> Any:
        if device is None or torch.device(device).type != TYPE:
            return make(cls, *args, **kwargs, **({} if device is None else {"device": device}))
        (nbytes,) = args or (0,)
        return storage.new_storage(nbytes, device)

    torch.UntypedStorage.__new__ = staticmethod(new)


def register(settings: Settings) -> None:
    """Starts the devices and registers them; their threads stop when the process ends."""
    devices.start(settings)
    atexit.register(devices.stop)
    _setup_privateuseone_for_python_backend(TYPE, backend_module=torch_sim)
    accelerator.take_over()
    tensor_data.take_over()
    _take_over_classes()
    _register_operators()
