"""The verdicts: a single list, consistent ranks, and a style for each one that is shown."""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.history.timeline_outcome import MARKS
from bench.verdicts import Kind, Rank, Verdict, verdict_of_errors, worst

BENCH = Path(__file__).parents[1] / "bench"
VERDICTS = BENCH / "verdicts.py"
REPORT = BENCH / "report"
WORDS = frozenset(verdict.value for verdict in Verdict)
OTHERS = sorted(path for path in BENCH.rglob("*.py") if path != VERDICTS)


def test_a_verdict_equals_its_word():
    for verdict in Verdict:
        assert Verdict(verdict.value) is verdict
        assert f"{verdict}" == str(verdict) == verdict == verdict.value
        assert json.loads(json.dumps(verdict)) == verdict
        assert {verdict: 1}[Verdict(str(verdict))] == 1
        assert verdict.value in frozenset({verdict})


def test_the_verdicts_need_only_the_standard_library():
    imported = {
        name.partition(".")[0]
        for node in ast.walk(ast.parse(VERDICTS.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names])
    }
    assert imported <= sys.stdlib_module_names
    assert not {"StrEnum", "Self"} & {
        node.id for node in ast.walk(ast.parse(VERDICTS.read_text())) if isinstance(node, ast.Name)
    }


# Ranks


def test_ranks_agree_with_what_passes_and_what_is_worse():
    for verdict in Verdict:
        if verdict.is_worse:
            assert verdict.rank >= Rank.COST, verdict
            assert verdict.fails, verdict
        if verdict.passes:
            assert verdict.kind is Kind.GOOD, verdict
            assert verdict.rank <= Rank.NO_WORSE, verdict
        if verdict.rank >= Rank.COST:
            assert verdict.fails, verdict
        if verdict.kind is Kind.UNSURE:
            assert verdict.rank is Rank.OPEN, verdict


def test_good_news_can_be_bad_for_a_case_with_a_golden():
    differ = {verdict for verdict in Verdict if verdict.kind is not verdict.kind_of_case}
    assert differ == {Verdict.WORKS_NOW, Verdict.LESS_WORK}
    assert {(verdict.kind, verdict.kind_of_case) for verdict in differ} == {(Kind.GOOD, Kind.BAD)}


def test_what_is_not_compared_neither_passes_nor_fails():
    assert [verdict for verdict in Verdict if not verdict.passes and not verdict.fails] == [
        Verdict.NOT_COMPARED, Verdict.FIRST, Verdict.REFERENCE, Verdict.CANNOT_TELL, Verdict.OTHER_CALLS, Verdict.WARNS,
    ]  # fmt: skip


def test_raising_ranks_with_changed_pictures():
    raising = (Verdict.RAISES_NOW, Verdict.WORKS_NOW, Verdict.RAISES_ELSE)
    assert {verdict.rank for verdict in raising} == {Verdict.CHANGED.rank}


def test_the_worst_of_several_is_the_first_of_the_highest_rank():
    assert worst([Verdict.IDENTICAL, Verdict.MORE_WORK]) is Verdict.MORE_WORK
    assert worst([Verdict.CHANGED, Verdict.MORE_WORK]) is Verdict.CHANGED
    assert worst([Verdict.BROKEN, Verdict.CHANGED]) is Verdict.BROKEN


def test_marks_are_reported_worst_first():
    ranks = [mark.rank for mark in MARKS]
    assert ranks == sorted(ranks, reverse=True)


@pytest.mark.parametrize(
    ("before", "now", "verdict"),
    [
        ("TypeError", "TypeError", Verdict.RAISES_AS_BEFORE),
        ("TypeError", "ValueError", Verdict.RAISES_ELSE),
        ("TypeError", None, Verdict.WORKS_NOW),
        (None, "TypeError", Verdict.RAISES_NOW),
    ],
)
def test_two_calls_that_raise_have_a_verdict(before, now, verdict):
    assert verdict_of_errors(before, now) is verdict


# One list


def texts(node: ast.expr | None) -> Iterator[str]:
    """The text of an expression that is one, or those of a tuple, a list or a set."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.Tuple | ast.List | ast.Set):
        for element in node.elts:
            yield from texts(element)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("frozenset", "set"):
        for argument in node.args:
            yield from texts(argument)


def is_a_verdict(node: ast.expr) -> bool:
    return (isinstance(node, ast.Attribute) and node.attr == "verdict") or (
        isinstance(node, ast.Name) and node.id == "verdict"
    )


def second_definitions(source: str) -> set[str]:
    """Words of verdicts in constants of a module, and where it gives a verdict or compares with one."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [name for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
            if any(name.id.isupper() or name.id == "verdict" for name in names):
                found |= set(texts(node.value))
        elif isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if any(map(is_a_verdict, sides)):
                found |= {text for side in sides for text in texts(side)}
        elif isinstance(node, ast.keyword) and node.arg == "verdict":
            found |= set(texts(node.value))
        elif isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            found |= {text for key, value in pairs if "verdict" in texts(key) for text in texts(value)}
    return found & WORDS


@pytest.mark.parametrize("path", OTHERS, ids=[str(path.relative_to(BENCH)) for path in OTHERS])
def test_no_other_module_defines_a_verdict(path):
    assert second_definitions(path.read_text(encoding="utf-8")) == set()


@pytest.mark.parametrize(
    "source",
    [
        'GONE = "missing"',
        'OLD, GONE = "stale", "missing"',
        'BAD = frozenset({"missing"})',
        'BAD: tuple[str, ...] = ("missing",)',
        'if found.verdict == "missing": pass',
        'if verdict in ("missing", "stale"): pass',
        'Record(verdict="missing")',
        'record = {"verdict": "missing"}',
    ],
)
def test_a_second_definition_is_found(source):
    assert "missing" in second_definitions(source)


# Styles


def marks_of(css: str) -> dict[str, str]:
    """The sign of each class that has one."""
    return dict(re.findall(r'\.([\w-]+)::before \{ content: "(.)"; \}', css))


def kinds_of(css: str) -> set[str]:
    return set(re.findall(r"\.chip\.([\w-]+)", css))


def asset(name: str) -> str:
    return (REPORT / name).read_text(encoding="utf-8")


def test_the_page_has_a_sign_for_each_mark():
    signs = marks_of(asset("page.css"))
    assert set(signs) == {mark.css_class for mark in MARKS}
    assert len(set(signs.values())) == len(MARKS)


def test_the_page_has_a_style_for_each_kind():
    assert kinds_of(asset("page.css")) == {kind.value for kind in Kind}
    assert len({kind.sign for kind in Kind}) == len(Kind)


def test_a_style_that_is_missing_is_found():
    css = asset("page.css")
    assert Verdict.MORE_WORK.css_class not in marks_of(css.replace(".more-work::", ".other::"))
    assert "note" not in kinds_of(css.replace(".chip.note", ".chip.other"))


@pytest.mark.parametrize("name", ["page.html.jinja", "summary.md.jinja", "page.js"])
def test_no_template_defines_a_verdict(name):
    quoted = {text for pair in re.findall(r'"([^"\n]*)"|\'([^\'\n]*)\'', asset(name)) for text in pair}
    assert not quoted & WORDS
