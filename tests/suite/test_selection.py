"""Which cases an expression chooses."""

import argparse
import shlex

import pytest

from bench.errors import UsageError
from bench.suite.file import read_suite
from bench.suite.selection import add_case_option, case_matching, cases_matching

CASE = "emoji-ddpm/ddpm-s100-bf16"


@pytest.fixture(scope="module")
def suite():
    return read_suite()


def matching(suite, expression):
    return {case.id for case in cases_matching(suite.cases, expression)}


def test_an_expression_chooses_cases_as_pytest_does(suite):
    ids = {case.id for case in suite.cases}
    assert matching(suite, "") == ids
    assert matching(suite, "EMOJI-DDPM") == {one for one in ids if "emoji-ddpm" in one}
    expected = {one for one in ids if ("emoji-sd" in one and "s20" not in one) or "ddim" in one}
    assert matching(suite, "emoji-sd and not s20 or ddim") == expected
    assert matching(suite, "emoji-sd and not (s20 or ddim)") == {
        one for one in ids if "emoji-sd" in one and "s20" not in one and "ddim" not in one
    }


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("nothing-like-this", "none of the"),
        ("ddim and", "joined by and, or, not"),
        ("and ddim", "joined by and, or, not"),
        ("(ddim", "joined by and, or, not"),
        ("ddim pndm", "joined by and, or, not"),
        ("ddim & pndm", "joined by and, or, not"),
        ("ddim (pndm)", "joined by and, or, not"),
        ("()", "joined by and, or, not"),
    ],
)
def test_an_expression_that_cannot_be_read_is_one_sentence(suite, expression, said):
    with pytest.raises(UsageError, match=said) as raised:
        cases_matching(suite.cases, expression)
    assert "\n" not in str(raised.value)


def test_a_full_id_chooses_only_that_case(suite):
    assert matching(suite, "emoji-sd/ddim-s20-g7.5-fp32") == {"emoji-sd/ddim-s20-g7.5-fp32"}
    assert len(matching(suite, "ddim-s20-g7.5-fp32")) > 1


def test_one_case_is_chosen_by_its_id_or_by_a_unique_part(suite):
    assert case_matching(suite.cases, CASE).id == CASE
    assert case_matching(suite.cases, CASE.removeprefix("emoji-")).id == CASE
    with pytest.raises(UsageError, match=r"^--case ddim: \d+ cases match; do you mean emoji-") as several:
        case_matching(suite.cases, "ddim")
    assert str(several.value).count("emoji-") == 5
    with pytest.raises(UsageError, match="none of the"):
        case_matching(suite.cases, "nothing-like-this")


@pytest.mark.parametrize("line", ["--case ddim", "-k ddim", "--case=ddim", ""])
def test_every_command_has_the_same_option(line):
    parser = argparse.ArgumentParser()
    add_case_option(parser)
    assert parser.parse_args(shlex.split(line)).case == ("ddim" if line else "")
