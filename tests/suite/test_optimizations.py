"""Where each speed setting works, and with which others."""

from __future__ import annotations

import pytest

from bench.calls.optimizations import KNOBS
from bench.suite.optimizations import OPTIMIZATIONS, checked_after_call, compiles, why_not_here


def test_every_setting_has_a_knob():
    assert set(OPTIMIZATIONS) == set(KNOBS)


@pytest.mark.parametrize("name", OPTIMIZATIONS)
def test_what_excludes_another_one_is_excluded_by_it_or_says_so_alone(name):
    assert name not in OPTIMIZATIONS[name].excludes
    assert OPTIMIZATIONS[name].excludes <= set(OPTIMIZATIONS)


@pytest.mark.parametrize(
    ("names", "device", "dtype", "reason"),
    [
        (("channels-last", "fused-qkv"), "cpu", "float32", None),
        (("sdpa-cudnn",), "cpu", "float32", "'sdpa-cudnn' is for cuda, not for cpu"),
        (("sdpa-cudnn",), "mps", "float32", "'sdpa-cudnn' is for cuda, not for mps"),
        (("sdpa-cudnn",), "cuda", "float32", None),
        (("model-offload",), "cpu", "float32", "'model-offload' is for accelerator, not for cpu"),
        (("model-offload",), "xpu", "float32", None),
        (("tf32",), "cuda", "bfloat16", "'tf32' is for float32, not for bfloat16"),
        (("compile", "compile-regional"), "cpu", "float32", "'compile' and 'compile-regional' do not work together"),
    ],
)
def test_a_combination_that_cannot_work_has_a_reason(names, device, dtype, reason):
    assert why_not_here(names, device, dtype) == reason


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    reason = "'deepcache' needs the package deepcache, which is not installed"
    assert why_not_here(("deepcache",), "cpu", "float32") == reason


def test_what_is_checked_after_the_first_call():
    assert checked_after_call(("channels-last", "compile", "guidance-cutoff")) == ("compile", "guidance-cutoff")
    assert compiles(["channels-last", "compile-vae"])
