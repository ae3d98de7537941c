"""Other processors, imitated: each setting must have an effect, and a failed check must be named."""

from __future__ import annotations

import os
import subprocess

import pytest

from bench.proofs import processors
from bench.proofs.processors import PROCESSORS, Processor, look, run_all, why_without_effect


@pytest.fixture
def codes(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """``codes["pictures"] = 1`` makes the pictures fail; nothing is really run."""
    found: dict[str, int] = {}

    def run(arguments, environment, *, capture=False):
        check = next((name for name, of_check in processors.CHECKS.items() if of_check == arguments), "look")
        return subprocess.CompletedProcess(arguments, found.get(check, 0), stdout="torch's own kernels are others.\n")

    monkeypatch.setattr(processors, "_python", run)
    return found


def test_all_green_is_zero(codes):
    lines: list[str] = []
    assert run_all(PROCESSORS, lines.append) == 0
    assert lines[-1] == "3 of 3 processors imitated, 0 checks failed"


def test_a_failed_check_is_named_with_the_way_to_run_it_again(codes):
    codes["pictures"] = 1
    lines: list[str] = []
    assert run_all(PROCESSORS[1:2], lines.append) == 1
    assert "failed: pictures on a processor with AVX2: run again with ATEN_CPU_CAPABILITY=avx2" in lines[-2]


def test_a_run_without_any_setting_is_not_a_success(codes):
    codes["look"] = 1
    lines: list[str] = []
    assert run_all(PROCESSORS[:1], lines.append) == 1
    assert "  left out: torch's own kernels are others." in lines


@pytest.mark.skipif(os.uname().machine not in ("x86_64", "amd64"), reason="only for x86 processors")
def test_a_setting_is_checked_in_a_process_that_has_it():
    assert why_without_effect(PROCESSORS[0]) == ""


def test_a_process_without_the_setting_says_what_it_has_instead(monkeypatch, capsys):
    never = Processor("never", {}, (processors.aten_is("NO SUCH INSTRUCTIONS"),))
    monkeypatch.setattr(processors, "PROCESSORS", (never,))
    with pytest.raises(SystemExit, match="1"):
        look(0)
    assert "torch's own kernels are those for" in capsys.readouterr().out
