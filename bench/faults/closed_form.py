"""The schedulers in closed form as one more case, for faults that move pictures no further than another kernel does."""

from __future__ import annotations

import time

from bench.faults.outcomes import CLOSED_FORM, CaseOutcome
from bench.proofs.closed_form.goldens import read_goldens, read_limits
from bench.proofs.closed_form.outcomes import compare, outcome
from bench.proofs.closed_form.sampling import NotInDiffusers
from bench.proofs.closed_form.settings import all_settings
from bench.verdicts import Verdict


def check_schedulers() -> CaseOutcome:
    """Whether every setting still gives its golden; 10 to 15 s of processor time."""
    began = time.perf_counter()
    goldens, limits = read_goldens(), read_limits()
    changed = []
    for name, setting in all_settings().items():
        try:
            difference = compare(setting, outcome(setting), goldens[name], limits.get(name))
        except NotInDiffusers as missing:
            changed.append(f"{name}: {missing}")
            continue
        if difference:
            changed.append(f"{name}: {difference.sentence}")
    seconds = time.perf_counter() - began
    if not changed:
        return CaseOutcome(CLOSED_FORM, True, Verdict.IDENTICAL, seconds, {})
    message = f"{len(changed)} settings, first {changed[0]}"
    return CaseOutcome(CLOSED_FORM, False, Verdict.CHANGED, seconds, {CLOSED_FORM: None}, message)
