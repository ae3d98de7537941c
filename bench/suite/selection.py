"""Which cases a run or a command takes from the suite."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from bench.errors import UsageError
from bench.suite.case import Case, Model
from bench.suite.file import Suite, SuiteError
from bench.suite.scenarios import SCENARIOS

SLOW = "slow (-m slow)"
_WORD = re.compile(r"[()]|[^\s()]+")
_OPERATORS = frozenset({"and", "or", "not", "(", ")"})
_EXPRESSION = (ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.Constant)


@dataclass(frozen=True)
class Selection:
    """The cases to run, in order, and how many were left out for which reason."""

    cases: tuple[Case, ...]
    left_out: dict[str, int]


def model_named(suite: Suite, name: str) -> Model:
    """Raises:
    SuiteError: the name is not in the suite.
    """
    known = {model.name: model for model in suite.models}
    if name not in known:
        raise SuiteError(f"--model {name}: not in {suite.file}; known: {', '.join(sorted(known))}.")
    return known[name]


def select_cases(
    suite: Suite, models: tuple[str, ...], slow_dtypes: frozenset[str], slow: bool, device_type: str = "cpu"
) -> Selection:
    """Embedded and local models unless models are named; slow cases only on request.

    Args:
        device_type: if not ``cpu``, cases that draw their noise on the device are left out: their pictures differ.

    Raises:
        SuiteError: a name is not in the suite.
    """
    for name in models:
        model_named(suite, name)
    left_out: dict[str, int] = {}
    chosen = []
    for case in suite.cases:
        reason = _left_out(case, models, slow_dtypes, slow, device_type)
        if reason:
            left_out[reason] = left_out.get(reason, 0) + 1
        else:
            chosen.append(case)
    return Selection(tuple(chosen), left_out)


def is_slow(case: Case, slow_dtypes: frozenset[str]) -> bool:
    """Sentinels take few steps for one small picture, which is quick in any dtype."""
    return case.settings.slow or (case.settings.dtype in slow_dtypes and not case.settings.sentinel)


def _left_out(
    case: Case, models: tuple[str, ...], slow_dtypes: frozenset[str], slow: bool, device_type: str
) -> str | None:
    if models and case.model.name not in models:
        return "of other models"
    if not models and case.model.source == "hub":
        return "of hub models (--model NAME)"
    if not slow and is_slow(case, slow_dtypes):
        return SLOW
    if device_type != "cpu" and SCENARIOS[case.settings.scenario].draws_on_device:
        return "drawing their noise on the device"
    return None


def add_case_option(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    """``--case`` and ``-k``: an expression for ``cases_matching``, empty by default."""
    parser.add_argument(
        "--case",
        "-k",
        required=required,
        default="",
        metavar="EXPR",
        help="cases by id, such as emoji-ddpm/ddpm-s100-bf16, or by parts of it, as pytest -k: 'ddim and not bf16'",
    )


def cases_matching(cases: Sequence[Case], expression: str) -> tuple[Case, ...]:
    """The cases that ``--case`` chooses: all for an empty expression, and a single one for its full id.

    Any other expression, such as ``emoji-sd and not (s50 or bf16)``, describes ids as pytest's ``-k`` does.

    Raises:
        UsageError: the expression is invalid, or no case matches.
    """
    if not expression.strip():
        return tuple(cases)
    option = f"--case {shlex.quote(expression)}"
    named = tuple(case for case in cases if case.id == expression.strip())
    try:
        found = named or tuple(case for case in cases if _matches(expression, case.id))
    except SyntaxError:
        raise UsageError(f"{option}: give parts of ids joined by and, or, not and parentheses.") from None
    if not found:
        raise UsageError(f"{option}: none of the {len(cases)} cases matches; their ids are in golden/.")
    return found


def case_matching(cases: Sequence[Case], expression: str) -> Case:
    """The only case that ``--case`` chooses.

    Raises:
        UsageError: the expression is invalid, or no case matches, or several do.
    """
    found = cases_matching(cases, expression)
    if len(found) > 1:
        near = ", ".join(case.id for case in found[:5])
        raise UsageError(f"--case {shlex.quote(expression)}: {len(found)} cases match; do you mean {near}?")
    return found[0]


def _matches(expression: str, case_id: str) -> bool:
    """Raises:
    SyntaxError: the expression is invalid.
    """
    words = [word if word in _OPERATORS else str(word.lower() in case_id.lower()) for word in _WORD.findall(expression)]
    tree = ast.parse(" ".join(words), mode="eval")
    if not all(isinstance(node, _EXPRESSION) for node in ast.walk(tree)):
        raise SyntaxError
    return bool(eval(compile(tree, "--case", "eval")))
