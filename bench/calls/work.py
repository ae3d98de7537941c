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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from bench.calls.device_work import DeviceWork, counted_on_device
from bench.calls.observe import before_call, replaced
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
SYNC_METHODS = ("cpu", "tolist")
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


def _tensors(values: Any) -> list[torch.Tensor]:
    """The tensors among an operator's arguments or results, which may be lists."""
    if isinstance(values, torch.Tensor):
        return [values]
    found: list[torch.Tensor] = []
    for value in values if isinstance(values, _SEVERAL) else ():
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, _SEVERAL):
            found += _tensors(value)
    return found


_SEVERAL = (tuple, list)


def _storages(arguments: Any) -> set[int]:
    return {tensor.untyped_storage()._cdata for tensor in _tensors(arguments)}


@dataclass(frozen=True)
class _Kind:
    """What counting needs to know about an operator; looked up once, since a call has thousands of operators.

    Attributes:
        composite: it is made of others, which are counted in its place.
        makes_tensors: none of its results is an argument, or part of one.
        flops: the FLOPs of a call, from its arguments and its result; ``None`` if it multiplies nothing.
    """

    name: str
    composite: bool
    makes_tensors: bool
    flops: Callable[[Any, Any, Any], int] | None


@functools.cache
def _kind_of(operator: Any) -> _Kind:
    name = operator._schema.name
    name = ATTENTION if name.startswith("aten::_scaled_dot_product_") else name
    return _Kind(
        name=name,
        composite=torch._C._dispatch_has_kernel_for_dispatch_key(operator.name(), COMPOSITE),
        makes_tensors=all(result.alias_info is None for result in operator._schema.returns),
        flops=_flops_of(operator, name),
    )


def _flops_of(operator: Any, name: str) -> Callable[[Any, Any, Any], int] | None:
    if name == ATTENTION:
        return lambda args, kwargs, made: sdpa_flop_count(*(tensor.shape for tensor in args[:3]))
    formula = flop_registry.get(operator.overloadpacket)
    if formula is None:
        return None
    if not hasattr(formula, "__wrapped__"):  # it needs more than the shapes
        return lambda args, kwargs, made: formula(*args, **kwargs, out_val=made)

    @functools.cache  # the steps of a call have the same shapes, and a formula takes as long as a small matrix product
    def of_shapes(*args: Any, made: Any, **kwargs: Any) -> int:
        return formula(*args, **kwargs, out_val=made)

    return lambda args, kwargs, made: of_shapes(
        *map(_shape, args), **{key: _shape(value) for key, value in kwargs.items()}, made=_shape(made)
    )


def _shape(argument: Any) -> Any:
    """The shape of a tensor; a list as a tuple, so that it can be looked up; other arguments as they are."""
    if isinstance(argument, torch.Tensor):
        return argument.shape
    return tuple(argument) if isinstance(argument, list) else argument


class _LivingBytes:
    """Bytes of the noted storages that are still alive, now and at their peak."""

    def __init__(self) -> None:
        self.now = self.peak = 0
        self._living: dict[int, weakref.ref[Any]] = {}

    def note(self, made: Any, arguments: Any) -> None:
        """Adds the storages of an operator's results; that of an argument is not new."""
        for tensor in _tensors(made):
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key in self._living or key in _storages(arguments):
                continue
            size = storage.nbytes()
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
        kind = _kind_of(operator)
        if kind.composite:
            with self:
                return operator._op_dk(COMPOSITE, *args, **kwargs)
        made = operator(*args, **kwargs)
        self._count(kind, args, kwargs, made)
        return made

    def _count(self, kind: _Kind, args: Any, kwargs: Any, made: Any) -> None:
        name = kind.name
        self.operators[name] += 1
        if name in SYNCS:
            self.host_syncs[name] += 1
        elif name in MASKED and any(index.dtype == torch.bool for index in _tensors(args[1])):
            self.host_syncs[MASKED[name]] += 1
        elif name in COPIES:
            self.copies += 1
            self.copied_bytes += made.numel() * made.element_size()
        if kind.flops:
            self.flops += kind.flops(args, kwargs, made)
        if kind.makes_tensors:
            self._memory.note(made, (args, tuple(kwargs.values())))


@contextlib.contextmanager
def _counted_methods() -> Iterator[Counter[str]]:
    """Yields a counter of the methods that wait for a value.

    The class is patched: a ``TorchFunctionMode`` would take the way of every other function through Python too.
    """
    counts: Counter[str] = Counter()

    def counting(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            counts[f"Tensor.{name}"] += 1
            return method(tensor, *args, **kwargs)

        return call

    with contextlib.ExitStack() as stack:
        for name in SYNC_METHODS:
            stack.enter_context(replaced(torch.Tensor, name, counting(name, getattr(torch.Tensor, name))))
        yield counts


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
    """Counts one call of the pipeline, which takes up to 1.5 times as long as a plain one; the first is like any other.

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
    operators = OperatorCounter()
    unet_calls: list[None] = []
    with (
        _no_collections(),
        torch.compiler.set_stance("force_eager") if compiled else contextlib.nullcontext(),
        before_call(call.pipeline.unet, lambda: unet_calls.append(None)),
        _counted_tokens(call.pipeline) as tokens,
        counted_on_device(call.pipeline) as on_device,
        _counted_methods() as method_syncs,
        operators,
    ):
        output = call()
    return output, Work(
        operators=dict(sorted(operators.operators.items())),
        host_syncs={} if on_device else dict(sorted((operators.host_syncs + method_syncs).items())),
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
