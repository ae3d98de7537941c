"""What one call of a case does, counted and not timed, and how that compares with what it did before.

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
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from bench.calls.observe import before_call
from bench.calls.pipelines import LoadedPipeline
from bench.calls.sampling import prepared
from bench.suite.optimizations import compiles
from bench.verdicts import Verdict

if TYPE_CHECKING:
    from bench.suite.case import Case

COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd
ATTENTION = "aten::scaled_dot_product_attention"
MULTIPLYING = frozenset({"aten::addmm", "aten::baddbmm", "aten::bmm", "aten::convolution", "aten::mm", ATTENTION})
# Named last among the operators that made the difference: they compute nothing.
VIEWS = frozenset(
    {
        "aten::_unsafe_view",
        "aten::alias",
        "aten::as_strided",
        "aten::chunk",
        "aten::detach",
        "aten::expand",
        "aten::lift_fresh",
        "aten::permute",
        "aten::select",
        "aten::slice",
        "aten::split",
        "aten::split_with_sizes",
        "aten::squeeze",
        "aten::t",
        "aten::transpose",
        "aten::unbind",
        "aten::unsqueeze",
        "aten::view",
    }
)
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
        host_syncs: how often Python waited for a value of a tensor, by what it called.
        copies: calls of operators that only copy or convert.
        copied_bytes: bytes that these wrote.
        peak_bytes: most bytes in use at one time by tensors that operators of this call made. Not included: weights,
            the scratch space of kernels, tensors made from Python's or NumPy's numbers.
        flops: of matrix products, convolutions and attention.
        tokens: passed to the text encoder, padding included.
        graphs, graph_breaks: see ``count_work``; ``None`` where nothing is compiled.
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
        methods,
        operators,
    ):
        output = call()
    return output, Work(
        operators=dict(sorted(operators.operators.items())),
        host_syncs=dict(sorted((operators.host_syncs + methods.host_syncs).items())),
        copies=operators.copies,
        copied_bytes=operators.copied_bytes,
        peak_bytes=operators.peak_bytes,
        unet_calls=len(unet_calls),
        flops=operators.flops,
        tokens=sum(tokens),
        graphs=graphs,
        graph_breaks=graph_breaks,
    )


@dataclass(frozen=True)
class WorkVerdict:
    """How the work compares with the golden's.

    Attributes:
        verdict: ``same work``, ``more work`` or ``less work``.
        more, less: each quantity that grew or shrank beyond its margin, as a sentence.
    """

    verdict: Verdict
    more: tuple[str, ...] = ()
    less: tuple[str, ...] = ()

    @property
    def message(self) -> str:
        """The verdict as a sentence, what is more first."""
        changes = "; ".join((*self.more, *self.less))
        return f"{self.verdict}: {changes}" if changes else self.verdict


@dataclass(frozen=True)
class _Quantity:
    """One number of the counted work.

    Attributes:
        margin: relative change that is ignored.
        parts: the counts behind it by name, to say which of them changed.
        by_step: a change of one or more per step is also reported per step.
    """

    label: str
    amount: Callable[[Work], int | None]
    margin: float = 0.0
    parts: Callable[[Work], Mapping[str, int]] = lambda work: {}
    by_step: bool = False


def _calls_of(names: Collection[str]) -> Callable[[Work], Mapping[str, int]]:
    return lambda work: {name: count for name, count in work.operators.items() if name in names}


_QUANTITIES = (
    _Quantity(
        "value reads", lambda work: sum(work.host_syncs.values()), parts=lambda work: work.host_syncs, by_step=True
    ),
    _Quantity("UNet calls", lambda work: work.unet_calls),
    _Quantity("tokens encoded", lambda work: work.tokens, by_step=True),
    _Quantity("FLOPs", lambda work: work.flops, 0.001, _calls_of(MULTIPLYING)),
    _Quantity("copied bytes", lambda work: work.copied_bytes, 0.001, _calls_of(COPIES)),
    _Quantity("peak bytes", lambda work: work.peak_bytes, 0.01),
    _Quantity("operators", lambda work: sum(work.operators.values()), 0.01, lambda work: work.operators, by_step=True),
    _Quantity("graphs", lambda work: work.graphs),
    _Quantity("graph breaks", lambda work: work.graph_breaks),
)


def compare_work(work: Work, golden: Work) -> WorkVerdict:
    """Whether a case does more than its golden, less, or the same.

    Any change of value reads, UNet calls, tokens, graphs and graph breaks counts. FLOPs and copied bytes
    must change by more than 0.1 %, peak bytes and operators by more than 1 %. The number of copies alone decides
    nothing: a step copies many single numbers.

    More of one quantity is ``more work``, even if there is less of another: on another device the saving may not cover
    the cost. ``less work`` is less of some and more of none. Both are always reported.

    The margins come from 8 cases of the embedded models under 8 releases of diffusers, 0.36.0 to 0.42.1. Where nothing
    relevant had changed, FLOPs, copied and peak bytes were exactly the same (FLOPs even with diffusers 0.30.3 and
    torch 2.9), and so were value reads except for one a call that ``DDPMPipeline`` saves since 0.41.0; operators
    changed by 0.4 % at most. The real regression among them, copies in ResNet blocks up to 0.36.0, was +17.8 % of the
    copied bytes in a call of 5 steps, +2.4 % in one of 50, and +453 % in channels-last.
    """
    more: list[str] = []
    less: list[str] = []
    for quantity in _QUANTITIES:
        before, after = quantity.amount(golden), quantity.amount(work)
        if before is None or after is None or abs(after - before) <= quantity.margin * before:
            continue
        (more if after > before else less).append(_sentence(quantity, work, golden, before, after))
    verdict = Verdict.MORE_WORK if more else Verdict.LESS_WORK if less else Verdict.SAME_WORK
    return WorkVerdict(verdict, tuple(more), tuple(less))


def _sentence(quantity: _Quantity, work: Work, golden: Work, before: int, after: int) -> str:
    """Such as ``value reads 21 → 42 (+100.0 %, +1 per step): aten::_local_scalar_dense +21``."""
    change = after - before
    amounts = [f"{100 * change / before:+,.1f} %"] if before else []
    if quantity.by_step and work.unet_calls == golden.unet_calls <= abs(change):
        amounts.append(f"{change / work.unet_calls:+,.1f}".removesuffix(".0") + " per step")
    text = f"{quantity.label} {before:,} → {after:,}" + (f" ({', '.join(amounts)})" if amounts else "")
    now, then = quantity.parts(work), quantity.parts(golden)
    changes = {name: now.get(name, 0) - then.get(name, 0) for name in sorted({*now, *then})}
    causes = [name for name in changes if changes[name] * change > 0]
    causes.sort(key=lambda name: (name in VIEWS, -abs(changes[name])))
    if causes:
        return f"{text}: {', '.join(f'{name} {changes[name]:+,}' for name in causes[:3])}"
    if changes and not any(changes.values()):
        return f"{text}: as many calls on {'larger' if change > 0 else 'smaller'} tensors"
    return text
