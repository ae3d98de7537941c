"""What one call of a case does, counted and not timed.

Counts need no quiet machine: they are the same on every run, with any number of threads, and on a processor with or
without units for bfloat16. Those of another device type differ (copies to and from it are work), so
they are compared on one type only.

What is counted are calls of torch's dispatcher, one level above kernels: a convolution is one operator whichever
library computes it. torch chooses among several fused attention operators by device and dtype; all of them are counted
under one name. Where a mode keeps composite operators together (``torch.inference_mode``), they are taken apart as they
are without it.

It also runs under old libraries, in the upgrade check's worker, so it imports little.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from bench.calls.device_work import DeviceWork, counted_on_device
from bench.calls.observe import before_call
from bench.calls.pipelines import LoadedPipeline
from bench.calls.sampling import prepared
from bench.suite.optimizations import compiles

if TYPE_CHECKING:
    from bench.suite.case import Case

COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd
ATTENTION = "aten::scaled_dot_product_attention"
COPIES = frozenset({"aten::clone", "aten::copy_", "aten::_to_copy"})
# Operators whose result is a number or a shape that Python waits for. On a CPU that costs nothing; a GPU runs idle.
SYNCS = frozenset(
    {
        "aten::_local_scalar_dense",
        "aten::_unique2",
        "aten::equal",
        "aten::masked_select",
        "aten::nonzero",
        "aten::unique_consecutive",
        "aten::unique_dim",
    }
)
# Methods that wait too, and that call no operator if the tensor is already on the CPU.
SYNC_METHODS = {torch.Tensor.cpu: "Tensor.cpu", torch.Tensor.tolist: "Tensor.tolist"}
MASKED = {"aten::index": "aten::index by mask", "aten::index_put_": "aten::index_put_ by mask"}


@dataclass(frozen=True)
class Work:
    """What one pipeline call did.

    Attributes:
        operators: how often each was called, by name, including views, which compute nothing.
        host_syncs: how often Python waited for a value of a tensor, by what it called, wherever that tensor was. Empty
            where ``on_device`` has what the host really waited for.
        copies: calls of operators that only copy or convert.
        copied_bytes: bytes that these wrote.
        peak_bytes: most bytes in use at one time by tensors that operators of this call made. Not included: weights,
            the scratch space of kernels, tensors made from Python's or NumPy's numbers.
        flops: of matrix products, convolutions and attention.
        tokens: passed to the text encoder, padding included.
        graphs, graph_breaks: see ``counted_call``; ``None`` where nothing is compiled.
        on_device: ``None`` where the device does not count.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    operators: Mapping[str, int]
    host_syncs: Mapping[str, int]
    copies: int
    copied_bytes: int
    peak_bytes: int
    unet_calls: int
    flops: int
    tokens: int
    graphs: int | None = None
    graph_breaks: int | None = None
    on_device: DeviceWork | None = None

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary, without the values that are ``None``."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Work:
        """The work that ``to_json`` wrote.

        Raises:
            ValueError: a key is missing or unknown, or a value is not a count.
        """
        from pydantic import TypeAdapter

        return TypeAdapter(cls).validate_json(json.dumps(document), strict=True)


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    """The tensors among an operator's arguments or results, which may be lists."""
    if isinstance(values, torch.Tensor):
        yield values
    elif isinstance(values, tuple | list):
        for value in values:
            yield from _tensors(value)
    elif isinstance(values, dict):
        yield from _tensors(tuple(values.values()))


@functools.cache
def _is_composite(operator: Any) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(operator.name(), COMPOSITE)


@functools.cache
def _makes_tensors(operator: Any) -> bool:
    return all(result.alias_info is None for result in operator._schema.returns)


@functools.cache
def _name(operator: Any) -> str:
    name = operator._schema.name
    return ATTENTION if name.startswith("aten::_scaled_dot_product_") else name


class _LivingBytes:
    """Bytes of the noted storages that are still alive, now and at their peak."""

    def __init__(self) -> None:
        self.now = self.peak = 0
        self._living: dict[int, weakref.ref[Any]] = {}

    def note(self, made: Any, arguments: Any) -> None:
        """Adds the storages of an operator's results; that of an argument is not new."""
        given: set[int] | None = None
        for tensor in _tensors(made):
            storage = tensor.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key in self._living:
                continue
            given = {one.untyped_storage()._cdata for one in _tensors(arguments)} if given is None else given
            if key in given:
                continue
            self._living[key] = weakref.ref(storage, functools.partial(self._end, key, size))
            self.now += size
        self.peak = max(self.peak, self.now)

    def _end(self, key: int, size: int, _reference: Any) -> None:
        del self._living[key]
        self.now -= size


class OperatorCounter(TorchDispatchMode):
    """Counts what runs while it is on; attributes as in ``Work``."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: Counter[str] = Counter()
        self.host_syncs: Counter[str] = Counter()
        self.copies = self.copied_bytes = self.flops = 0
        self._memory = _LivingBytes()

    @property
    def peak_bytes(self) -> int:
        return self._memory.peak

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _is_composite(operator):
            with self:
                return operator._op_dk(COMPOSITE, *args, **kwargs)
        made = operator(*args, **kwargs)
        self._count(operator, args, kwargs, made)
        return made

    def _count(self, operator: Any, args: Any, kwargs: Any, made: Any) -> None:
        name = _name(operator)
        self.operators[name] += 1
        if name in SYNCS:
            self.host_syncs[name] += 1
        elif name in MASKED and any(index.dtype == torch.bool for index in _tensors(args[1])):
            self.host_syncs[MASKED[name]] += 1
        elif name in COPIES:
            self.copies += 1
            self.copied_bytes += made.numel() * made.element_size()
        if name == ATTENTION:
            self.flops += sdpa_flop_count(*(tensor.shape for tensor in args[:3]))
        elif operator.overloadpacket in flop_registry:
            self.flops += flop_registry[operator.overloadpacket](*args, **kwargs, out_val=made)
        if _makes_tensors(operator):
            self._memory.note(made, (args, kwargs))


class _MethodCounter(TorchFunctionMode):
    """Counts the methods that wait for a value while it is on."""

    def __init__(self) -> None:
        super().__init__()
        self.host_syncs: Counter[str] = Counter()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in SYNC_METHODS:
            self.host_syncs[SYNC_METHODS[function]] += 1
        return function(*args, **(kwargs or {}))


@contextlib.contextmanager
def _counted_tokens(pipeline: Any) -> Iterator[list[int]]:
    """Yields a list that gets the number of tokens of each call of the text encoder."""
    tokens: list[int] = []
    encoder = getattr(pipeline, "text_encoder", None)
    if encoder is None:
        yield tokens
        return

    def note(_module: Any, args: Any, kwargs: Any) -> None:
        tokens.append((args[0] if args else kwargs["input_ids"]).numel())

    hook = encoder.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield tokens
    finally:
        hook.remove()


@contextlib.contextmanager
def _no_collections() -> Iterator[None]:
    """Stops the garbage collector, whose timing depends on what ran before and would change the peak."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def compiled_graphs() -> tuple[int, int]:
    """Graphs that this process has compiled so far, and graph breaks."""
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())


def forget_compiled() -> None:
    """Makes this process one that has compiled nothing yet: the next call of a compiled case compiles it again."""
    from torch._dynamo.utils import counters

    torch.compiler.reset()
    counters.clear()


def count_work(loaded: LoadedPipeline, case: Case) -> Work:
    """The work of ``counted_call``."""
    return counted_call(loaded, case)[1]


def counted_call(loaded: LoadedPipeline, case: Case) -> tuple[Any, Work]:
    """Counts one call of the pipeline, which takes about twice as long as a plain one; the first counts like any other.

    Compiled code hides its operators, so a compiled case is counted as it is before compilation. Its graphs and graph
    breaks are those of the process so far: call the case once before, in a process that compiles nothing else
    (``forget_compiled``).

    Returns:
        The pipeline's output, and the work. The output equals that of a plain call bit for bit, except for a
        compiled case, whose compiled code did not run.
    """
    call = prepared(loaded, case)
    compiled = compiles(tuple(case.settings.optimizations))
    graphs, graph_breaks = compiled_graphs() if compiled else (None, None)
    operators, methods = OperatorCounter(), _MethodCounter()
    unet_calls: list[None] = []
    with (
        _no_collections(),
        torch.compiler.set_stance("force_eager") if compiled else contextlib.nullcontext(),
        before_call(call.pipeline.unet, lambda: unet_calls.append(None)),
        _counted_tokens(call.pipeline) as tokens,
        counted_on_device(call.pipeline) as on_device,
        methods,
        operators,
    ):
        output = call()
    return output, Work(
        operators=dict(sorted(operators.operators.items())),
        host_syncs={} if on_device else dict(sorted((operators.host_syncs + methods.host_syncs).items())),
        copies=operators.copies,
        copied_bytes=operators.copied_bytes,
        peak_bytes=operators.peak_bytes,
        unet_calls=len(unet_calls),
        flops=operators.flops,
        tokens=sum(tokens),
        graphs=graphs,
        graph_breaks=graph_breaks,
        on_device=on_device[0] if on_device else None,
    )
