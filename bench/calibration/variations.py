"""Harmless variations: what may differ between two runs without anything being wrong.

Each runs in a separate process, which checks that the variation has an effect: one without effect is no evidence.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from bench.calibration.tensor_float import CONVOLUTIONS, CONVOLUTIONS_AND_PRODUCTS, use_tf32
from bench.calibration.twins import COARSE_ROUNDOFF, FLOAT32_ROUNDOFF, unit_roundoff
from bench.errors import BenchError
from bench.pictures.limits import OTHER, PORTABLE, STRICT, Tier
from bench.suite.optimizations import compiles
from bench.suite.scenarios import PLAIN

if TYPE_CHECKING:
    from bench.suite.case import Case

Patch = Literal["eager attention", "channels last", "images apart", "TF32 convolutions", "TF32 products"]
FLOAT32, HALF = frozenset({"float32"}), frozenset({"bfloat16", "float16"})
ALL = FLOAT32 | HALF
# MKL's own constants (mkl_types.h).
_MKL_ALL, _MKL_COMPATIBLE = 1, 3
TWINS, TF32_TWINS = "rounding twins", "TF32 twins"
# The half dtypes spread over orders of magnitude, so their limits need a larger sample; their calls are cheap.
TWINS_OF_FLOAT32, TWINS_OF_HALF = 16, 64


class NoEffect(BenchError):
    """A variation had no effect in its process."""


@dataclass(frozen=True)
class Variation:
    """One harmless difference.

    Attributes:
        tier: the narrowest tier that it is evidence for: what may differ on one machine may on others too.
        reason: why pictures made this way are as right as the golden.
        environment: variables of the process, set before torch is imported.
        threads: of torch; ``None`` for its default.
        onednn: whether torch may use oneDNN.
        patch: what is done to the ready pipeline or to the calls.
        dtypes: of the cases that it is run with.
        deterministic: whether torch is asked for deterministic kernels, as picture checks do.
        processors: whether it concerns only processors and their kernels.
        accelerators: whether it concerns only accelerators.
        twins: how many rounding twins are made of each case; 0 for a variation that is not one.
        roundoff: of the twins; ``None`` for the unit roundoff of the case's dtype.
        took_hold: raises ``NoEffect`` in the process, before anything is loaded, if the variation has no effect.
    """

    name: str
    tier: Tier
    reason: str
    environment: Mapping[str, str] = field(default_factory=dict)
    threads: int | None = None
    onednn: bool = True
    patch: Patch | None = None
    dtypes: frozenset[str] = ALL
    deterministic: bool = True
    processors: bool = False
    accelerators: bool = False
    twins: int = 0
    roundoff: float | None = None
    took_hold: Callable[[], None] = lambda: None

    def applies_to(self, case: Case) -> bool:
        """Cases with speed settings get no other patch of the pipeline: the two could conflict.

        Images are made apart if each has its own generator and no setting concerns the batch.
        """
        settings = case.settings
        if settings.dtype not in self.dtypes:
            return False
        if self.twins:
            return not compiles(settings.optimizations)
        if self.patch == "images apart":
            return settings.images > 1 and settings.scenario == PLAIN and not settings.call
        return self.patch is None or not settings.optimizations

    def roundoff_of(self, case: Case) -> float:
        """Largest relative change of a value of the denoiser's output in this variation's twins."""
        return self.roundoff or unit_roundoff(getattr(torch, case.settings.dtype))


def aten_is(wanted: str) -> Callable[[], None]:
    """A check that raises ``NoEffect`` unless torch's own kernels are those for these instructions."""

    def check() -> None:
        found = torch.backends.cpu.get_cpu_capability()
        if found != wanted:
            raise NoEffect(f"torch's own kernels are those for {found}.")

    return check


def onednn_is(wanted: str) -> Callable[[], None]:
    """A check that raises ``NoEffect`` unless oneDNN says that it uses these instructions."""

    def check() -> None:
        found = onednn_instructions()
        if found != wanted:
            raise NoEffect(f"oneDNN uses {found or 'kernels that it does not name'}.")

    return check


def mkl_is_compatible() -> None:
    """Raises ``NoEffect`` unless MKL uses its generic kernels, as it does on processors that it does not know."""
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
    branch = getattr(library, "mkl_serv_cbwr_get", None)
    if branch is None or branch(_MKL_ALL) != _MKL_COMPATIBLE:
        raise NoEffect("torch does not use the generic kernels of MKL.")


def _onednn_off() -> None:
    if torch._C._get_mkldnn_enabled():
        raise NoEffect("torch still uses oneDNN.")


def _default_kernels() -> None:
    if torch.are_deterministic_algorithms_enabled():
        raise NoEffect("torch still uses deterministic kernels.")


def onednn_instructions() -> str:
    """The instructions that oneDNN chose here, in its own words, from the header of its log; empty if it names none.

    The log goes to file descriptor 1, not through ``sys.stdout``.
    """
    sys.stdout.flush()
    stdout = os.dup(1)
    with tempfile.TemporaryFile() as log:
        try:
            os.dup2(log.fileno(), 1)
            with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON), torch.no_grad():
                torch.nn.functional.conv2d(torch.ones(8, 64, 32, 32), torch.ones(64, 64, 3, 3))
            ctypes.CDLL(None).fflush(None)
        finally:
            os.dup2(stdout, 1)
            os.close(stdout)
        log.seek(0)
        lines = log.read().decode(errors="replace").splitlines()
    return next((line.partition("cpu,isa:")[2] for line in lines if "cpu,isa:" in line), "")


ANOTHER_PROCESS = Variation("another process", STRICT, "the same again, at other memory addresses")

VARIATIONS: tuple[Variation, ...] = (
    ANOTHER_PROCESS,
    Variation("1 thread", STRICT, "sums are split among threads in another way", threads=1, processors=True),
    Variation("2 threads", STRICT, "sums are split among threads in another way", threads=2, processors=True),
    Variation(
        "images apart",
        STRICT,
        "each image has its own generator, so a batch is no more than its images; kernels depend on the batch's size",
        patch="images apart",
    ),
    Variation(
        "default kernels",
        STRICT,
        "benchmarks leave the kernels to torch, picture checks ask for deterministic ones; both have the same goldens",
        deterministic=False,
        accelerators=True,
        took_hold=_default_kernels,
    ),
    Variation("eager attention", STRICT, "the same sums without the fused kernel", patch="eager attention"),
    Variation("channels last", STRICT, "the same convolutions by other kernels", patch="channels last"),
    Variation(
        TWINS,
        STRICT,
        "the last digit of the denoiser's output depends on the kernel",
        threads=1,
        twins=TWINS_OF_FLOAT32,
        roundoff=FLOAT32_ROUNDOFF,
        dtypes=FLOAT32,
    ),
    Variation(
        TWINS,
        STRICT,
        "the last digit of the denoiser's output depends on the kernel",
        threads=1,
        twins=TWINS_OF_HALF,
        dtypes=HALF,
    ),
    # In the half dtypes AVX-512 is the least: oneDNN emulates bfloat16 on AVX2, far too slowly, and torch held to AVX2
    # raises where oneDNN packs weights for AVX-512 (pack_vnni2).
    Variation(
        "oneDNN off",
        PORTABLE,
        "processors without oneDNN",
        onednn=False,
        dtypes=FLOAT32,
        processors=True,
        took_hold=_onednn_off,
    ),
    Variation(
        "MKL for any processor",
        PORTABLE,
        "processors of other makers",
        {"MKL_CBWR": "COMPATIBLE"},
        dtypes=FLOAT32,
        processors=True,
        took_hold=mkl_is_compatible,
    ),
    Variation(
        "torch with AVX2",
        PORTABLE,
        "processors without AVX-512",
        {"ATEN_CPU_CAPABILITY": "avx2"},
        dtypes=FLOAT32,
        processors=True,
        took_hold=aten_is("AVX2"),
    ),
    Variation(
        "torch without AVX",
        PORTABLE,
        "processors without AVX2",
        {"ATEN_CPU_CAPABILITY": "default"},
        dtypes=FLOAT32,
        processors=True,
        took_hold=aten_is("DEFAULT"),
    ),
    Variation(
        "oneDNN with AVX2",
        PORTABLE,
        "processors without AVX-512",
        {"ONEDNN_MAX_CPU_ISA": "AVX2"},
        dtypes=FLOAT32,
        processors=True,
        took_hold=onednn_is("Intel AVX2"),
    ),
    Variation(
        "oneDNN with AVX-512",
        PORTABLE,
        "processors with AVX-512 and neither bfloat16 nor AMX",
        {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
        processors=True,
        took_hold=onednn_is("Intel AVX-512 with AVX512BW, AVX512VL, and AVX512DQ extensions"),
    ),
    Variation(
        TF32_TWINS,
        OTHER,
        "TF32 and float16 arithmetic rounds the denoiser's output more coarsely",
        threads=1,
        twins=TWINS_OF_FLOAT32,
        roundoff=COARSE_ROUNDOFF,
        dtypes=FLOAT32,
    ),
    Variation(
        "TF32 convolutions",
        OTHER,
        "what PyTorch does on NVIDIA GPUs by default",
        threads=1,
        patch="TF32 convolutions",
        dtypes=FLOAT32,
    ),
    Variation(
        "TF32 convolutions and products",
        OTHER,
        "what PyTorch does on NVIDIA GPUs with float32_matmul_precision='high'",
        threads=1,
        patch="TF32 products",
        dtypes=FLOAT32,
    ),
)


def variations_here(device_type: str, threads: int) -> tuple[tuple[Variation, ...], tuple[str, ...]]:
    """The variations that can run on this machine, and why the others cannot.

    Args:
        threads: torch's default here, with which other processes run.
    """
    run, left_out = [], []
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    for variation in VARIATIONS:
        if variation.processors and device_type != "cpu":
            why = "only for CPUs"
        elif variation.accelerators and device_type == "cpu":
            why = "only for accelerators"
        elif variation.processors and variation.threads == threads:
            why = "the default here"
        elif variation.environment and not x86:
            why = "only for x86 processors"
        else:
            run.append(variation)
            continue
        left_out.append(f"{variation.name}: {why}")
    return tuple(run), tuple(left_out)


def take_hold(variation: Variation) -> None:
    """Sets what must be set in the process after torch was imported, and checks that the variation has an effect.

    Raises:
        NoEffect: it has none.
    """
    if variation.threads:
        torch.set_num_threads(variation.threads)
    if not variation.onednn:
        torch._C._set_mkldnn_enabled(False)
    variation.took_hold()


def apply_patch(pipeline: Any, patch: Patch | None) -> None:
    """Changes a ready pipeline.

    Raises:
        NoEffect: nothing was changed.
    """
    if patch == "eager attention":
        _eager_attention(pipeline)
    elif patch == "TF32 convolutions":
        _tf32(pipeline, CONVOLUTIONS)
    elif patch == "TF32 products":
        _tf32(pipeline, CONVOLUTIONS_AND_PRODUCTS)
    elif patch == "channels last":
        from bench.calls.optimizations import NotApplied, apply_optimizations

        try:
            apply_optimizations(pipeline, ("channels-last",))
        except NotApplied as error:
            raise NoEffect(str(error)) from None


def _eager_attention(pipeline: Any) -> None:
    from diffusers.models.attention_processor import Attention, AttnProcessor

    changed = 0
    for part in (pipeline.unet, getattr(pipeline, "vae", None)):
        for module in part.modules() if part is not None else ():
            if isinstance(module, Attention):
                module.set_processor(AttnProcessor())
                changed += 1
    encoder: Any = getattr(pipeline, "text_encoder", None)
    if hasattr(encoder, "set_attn_implementation"):
        encoder.set_attn_implementation("eager")
        changed += encoder.config._attn_implementation == "eager"
    if not changed:
        raise NoEffect("no attention was found in the pipeline.")


def _tf32(pipeline: Any, kinds: tuple[type[torch.nn.Module], ...]) -> None:
    if not use_tf32(pipeline, kinds):
        raise NoEffect("no layer was found in the pipeline that rounds to TF32.")


def calls_of(case: Case, patch: Patch | None) -> list[Case]:
    """The case itself, or one case per image."""
    if patch != "images apart":
        return [case]
    return [_one_image(case, number) for number in range(case.settings.images)]


def _one_image(case: Case, number: int) -> Case:
    settings = case.settings
    alone: dict[str, Any] = {"images": 1, "seed": settings.seed + number}
    if settings.prompts:
        alone["prompts"] = (settings.prompts[number],)
    return case.model_copy(update={"settings": settings.model_copy(update=alone)})
