"""What a command over releases works on: its options, its cases, and one sentence for each mistake."""

from dataclasses import replace

import pytest
from packaging.version import Version

from bench import timeline as timeline_command
from bench.errors import UsageError
from bench.history import (
    bisect,
)
from bench.history.choice import parse_options, read_choice
from bench.suite.file import read_suite
from bench.suite.selection import cases_matching
from tests.history.helpers import CASE


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
    ],
)
def test_an_expression_that_cannot_be_read_is_one_sentence(suite, expression, said):
    with pytest.raises(UsageError, match=said) as raised:
        cases_matching(suite.cases, expression)
    assert "\n" not in str(raised.value)


def options_of(*arguments):
    return parse_options(timeline_command._parser, ["paint", "1.0.0..2.0.1", *arguments])


def test_a_choice_has_its_releases_and_sides():
    choice = read_choice(options_of("--with", "easel==1.0", "--device", "cpu"), every=False)
    assert list(map(str, choice.releases)) == ["1.0.0", "1.0.1", "1.1.2", "1.2.0", "1.10.0", "2.0.1"]
    assert choice.side_of(choice.releases[0]) == "paint==1.0.0 easel==1.0"
    assert replace(choice, alongside="").side_of(Version("2.0.1")) == "paint==2.0.1"


@pytest.mark.parametrize("command", [timeline_command, bisect])
@pytest.mark.parametrize(
    "arguments",
    [
        ["paint", "1.0..2.0", "--with", "easel==1.0", "brush<3"],
        ["paint", "1.0..2.0", "--with", "easel==1.0", "brush<3", "--device", "cpu"],
        ["paint", "1.0..2.0", "--with", "easel==1.0 brush<3"],
        ["--with", "easel==1.0 brush<3", "paint", "1.0..2.0"],
        ["--with=easel==1.0 brush<3", "paint", "1.0..2.0"],
    ],
    ids=["words", "words-and-option", "quoted", "quoted-first", "equals"],
)
def test_with_takes_words_or_one_quoted_text(command, arguments):
    more = ["--case", CASE] if command is bisect else []
    options = parse_options(command._parser, [*more, *arguments])
    assert (options.library, options.span, options.alongside) == ("paint", "1.0..2.0", "easel==1.0 brush<3")


@pytest.mark.parametrize("command", [timeline_command, bisect])
def test_a_stray_word_is_no_requirement(command, capsys):
    more = ["--case", CASE] if command is bisect else []
    with pytest.raises(SystemExit) as ended:
        parse_options(command._parser, ["paint", "1.0..2.0", "stray", *more, "--with", "easel==1.0"])
    assert ended.value.code == 4
    assert "unrecognized arguments: stray" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["paint", "1.2.0..1.9"], "only one release from 1.2.0 to 1.9"),
        (["paint", "1.0-2.0"], "is not a range"),
        (["pigment", "1.0..2.0"], "no library 'pigment'"),
        (["paint", "1.0..2.0", "--with", "paint==1.0"], "names paint itself"),
        (["paint", "1.0..2.0", "--with", "brush=1"], "brush=1"),
        (["paint", "1.0..2.0", "--device", "tpu9"], "tpu9"),
        (["paint", "1.0..2.0", "--suite", "nowhere.toml"], "nowhere.toml"),
    ],
)
@pytest.mark.parametrize("command", [timeline_command, bisect])
def test_a_users_mistake_is_one_sentence_and_exit_code_4(capsys, command, arguments, said, tmp_path):
    more = ["--results", str(tmp_path), *(["--case", CASE] if command is bisect else [])]
    assert command.main([*arguments, *more]) == 4
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert said in error
    assert list(tmp_path.iterdir()) == []
