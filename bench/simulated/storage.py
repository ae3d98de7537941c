"""Tensors on a simulated device: plain ``torch.Tensor`` with a storage of its own, whose bytes are in host memory."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import threading
from collections.abc import Iterator, Sequence

import torch

from .devices import Device
from .devices import device as device_of
from .settings import SimulationError

# kDLExtDev, which torch takes for its PrivateUse1 devices.
_DLPACK_DEVICE_TYPE = 12
# Codes of DLPack's DLDataTypeCode.
_DLPACK_CODES = {
    **dict.fromkeys((torch.int8, torch.int16, torch.int32, torch.int64), 0),
    **dict.fromkeys((torch.uint8, torch.uint16, torch.uint32, torch.uint64), 1),
    **dict.fromkeys((torch.float16, torch.float32, torch.float64), 2),
    torch.bfloat16: 4,
    **dict.fromkeys((torch.complex32, torch.complex64, torch.complex128), 5),
    torch.bool: 6,
    torch.float8_e4m3fn: 10,
    torch.float8_e4m3fnuz: 11,
    torch.float8_e5m2: 12,
    torch.float8_e5m2fnuz: 13,
}
DTYPES = frozenset(_DLPACK_CODES)


class _DLDevice(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int32), ("index", ctypes.c_int32))


class _DLDataType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _DLDevice),
        ("ndim", ctypes.c_int32),
        ("dtype", _DLDataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _DLManagedTensor(ctypes.Structure):
    _fields_ = (("tensor", _DLTensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]

# torch copies everything but the deleter, which it looks up again when the storage dies. One structure that is never
# freed and has no deleter serves all tensors, so that none calls back into an interpreter that has ended.
_capsule_content = _DLManagedTensor()
ctypes.pythonapi.Py_IncRef(ctypes.py_object(_capsule_content))
_capsule_lock = threading.Lock()

# Addresses of storages without bytes: no processor has memory there, so that nothing reads them by mistake.
_no_address = itertools.count(1 << 60, 1 << 40)


class Weightless(Exception):
    """The tensor has a size and no bytes, so neither has what is computed from it."""


class Block:
    """The bytes behind a storage, or ``None`` where it has only a size; it lives as long as the storage."""

    def __init__(self, device: Device, nbytes: int, content: torch.UntypedStorage | None) -> None:
        device.memory.allocate(nbytes)
        self.device, self.nbytes, self.content = device, nbytes, content
        self.freed = device.memory.free

    def __del__(self) -> None:
        if hasattr(self, "freed"):
            self.freed(self.nbytes)


class _Mode(threading.local):
    weightless = False


_mode = _Mode()


@contextlib.contextmanager
def weightless() -> Iterator[None]:
    """New tensors of this thread have a size and no bytes inside the block.

    What is computed from them, there or later, has no bytes either: operators are counted and take their latency, but
    nothing is computed. ``item`` answers 0, a copy to the host holds zeros, and ``nonzero`` finds nothing.
    """
    before, _mode.weightless = _mode.weightless, True
    try:
        yield
    finally:
        _mode.weightless = before


def _extent(size: Sequence[int], stride: Sequence[int]) -> int:
    """Elements from the first to the last one."""
    return 0 if 0 in size else 1 + sum((n - 1) * step for n, step in zip(size, stride, strict=True))


def new_tensor(
    device: Device, size: Sequence[int], stride: Sequence[int], dtype: torch.dtype, *, absent: bool = False
) -> torch.Tensor:
    """An uninitialised tensor on the device; without bytes if ``absent``, or inside ``weightless``.

    Raises:
        torch.OutOfMemoryError: the device is full.
        SimulationError: DLPack has no code for the dtype.
    """
    if dtype not in _DLPACK_CODES:
        raise SimulationError(f"the simulated accelerator has no tensors of {dtype}.")
    device.queue.check()
    nbytes = _extent(size, stride) * dtype.itemsize
    absent = bool(nbytes) and (absent or _mode.weightless)
    block = Block(device, nbytes, None)
    if not absent:
        block.content = torch.UntypedStorage(nbytes)
    address = 0 if not nbytes else next(_no_address) if block.content is None else block.content.data_ptr()
    dims = ctypes.c_int64 * len(size)
    with _capsule_lock:
        _capsule_content.tensor = _DLTensor(
            address,
            _DLDevice(_DLPACK_DEVICE_TYPE, device.index),
            len(size),
            _DLDataType(_DLPACK_CODES[dtype], 8 * dtype.itemsize, 1),
            dims(*size),
            dims(*stride),
            0,
        )
        made = torch._C._from_dlpack(_new_capsule(ctypes.addressof(_capsule_content), b"dltensor", None))
    made.untyped_storage().block = block
    return made


def new_storage(nbytes: int, which: torch.device | str | int | None) -> torch.UntypedStorage:
    """A storage of so many uninitialised bytes on a device."""
    return new_tensor(device_of(which), (nbytes,), (1,), torch.uint8).untyped_storage()


def block_of(tensor: torch.Tensor) -> Block:
    """Raises:
    SimulationError: the storage of the tensor was not made by this package.
    """
    try:
        return tensor.untyped_storage().block
    except AttributeError:
        raise SimulationError("the storage of a tensor was not made by the simulated accelerator.") from None


def host_view(tensor: torch.Tensor) -> torch.Tensor:
    """A CPU tensor over the device's bytes: only for kernels, or after a wait.

    Raises:
        Weightless: there are no bytes.
    """
    content = block_of(tensor).content
    if content is None:
        raise Weightless
    return torch.empty(0, dtype=tensor.dtype, device="cpu").set_(
        content, tensor.storage_offset(), tensor.size(), tensor.stride()
    )


def is_weightless(tensor: torch.Tensor) -> bool:
    return block_of(tensor).content is None


def forget(tensor: torch.Tensor) -> None:
    """Takes away the bytes of the tensor's storage; it keeps its size."""
    block = block_of(tensor)
    if block.nbytes:
        block.content = None
