"""How the counted work of a case compares with what it did before."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from bench.calls.device_work import DeviceWork
from bench.calls.work import ATTENTION, COPIES, Work
from bench.simulated.counters import TO_DEVICE, TO_HOST
from bench.verdicts import Verdict

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


def _of_device(counts: Callable[[DeviceWork], Mapping[str, int]]) -> Callable[[Work], Mapping[str, int]]:
    return lambda work: counts(work.on_device) if work.on_device else {}


def _sum_of_device(counts: Callable[[DeviceWork], Mapping[str, int]]) -> Callable[[Work], int | None]:
    return lambda work: sum(counts(work.on_device).values()) if work.on_device else None


def _waits(work: DeviceWork) -> Mapping[str, int]:
    return work.waits


def _through_host(counts: Mapping[str, int]) -> Mapping[str, int]:
    """Copies to and from the host; those within a device count as copied bytes of operators."""
    return {direction: count for direction, count in counts.items() if direction in (TO_DEVICE, TO_HOST)}


def _transfers(work: DeviceWork) -> Mapping[str, int]:
    return _through_host(work.copies)


def _transferred_bytes(work: DeviceWork) -> Mapping[str, int]:
    return _through_host(work.copied_bytes)


_QUANTITIES = (
    _Quantity("waits for the device", _sum_of_device(_waits), parts=_of_device(_waits), by_step=True),
    _Quantity("transfers", _sum_of_device(_transfers), parts=_of_device(_transfers), by_step=True),
    _Quantity("transferred bytes", _sum_of_device(_transferred_bytes), 0.001, _of_device(_transferred_bytes)),
    _Quantity("kernels", lambda work: work.on_device.kernels if work.on_device else None, 0.01, by_step=True),
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

    Any change of value reads, waits for the device, transfers between it and the host, UNet calls, tokens, graphs and
    graph breaks counts. FLOPs, copied and transferred bytes must change by more than 0.1 %, peak bytes, operators and
    kernels by more than 1 %. The number of copies alone decides nothing: a step copies many single numbers.

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
