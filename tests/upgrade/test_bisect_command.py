"""The command that searches for the release that made a case worse."""

from __future__ import annotations

import shlex

import pytest

from bench.history.bisect import _parser as parser_of_bisect
from bench.upgrade.bisect_command import bisect_command
from tests.upgrade.made_up import case, check, figure

CHANGED = [
    case("emoji-sd/ddim-s50", "changed"),
    case("emoji-sd/ddim-s5", "changed"),
    case("emoji-sd/ddim-s1", "changed"),
    case("emoji-sd/ddim-s4", "changed", settings={"scenario": "called-twice"}),
]
SLOWER = [case("emoji-sd/lcm-s5", speed=figure("slower", 1.1))]
START = "tox run -e bisect -- diffusers 0.41.0..0.42.1"


def test_a_range_of_releases_is_searched_with_a_quick_ordinary_case():
    assert bisect_command(check(CHANGED)) == f"{START} --case emoji-sd/ddim-s5"


def test_a_slower_case_is_searched_by_speed():
    assert bisect_command(check(SLOWER)) == f"{START} --case emoji-sd/lcm-s5 --by speed"
    found = check(SLOWER).model_copy(update={"min_change": 0.01})
    assert bisect_command(found) == f"{START} --case emoji-sd/lcm-s5 --by speed --min-change 1%"


def test_pictures_come_before_speed():
    assert bisect_command(check([*SLOWER, *CHANGED])) == f"{START} --case emoji-sd/ddim-s5"


def test_what_both_sides_have_beside_the_library_goes_with_each_release():
    asked = ("diffusers==0.41.0 transformers==4.57.6", "diffusers==0.42.1 transformers==4.57.6")
    command = bisect_command(check(CHANGED, asked=asked), ("--device", "cpu", "--golden-dir", "golden"))
    assert command == f"{START} --with transformers==4.57.6 --case emoji-sd/ddim-s5 --device cpu"


def test_the_search_understands_its_command():
    asked = ("diffusers==0.41.0 transformers==4.57.6 torch==2.9", "diffusers==0.42.1")
    command = bisect_command(check(SLOWER, asked=asked), ("--suite", "my suite.toml"))
    assert command
    options = parser_of_bisect().parse_args(shlex.split(command.partition(" -- ")[2]))
    assert (options.library, options.span, options.by) == ("diffusers", "0.41.0..0.42.1", "speed")
    assert options.alongside == "transformers==4.57.6 torch==2.9"
    assert str(options.suite) == "my suite.toml"


@pytest.mark.parametrize(
    "changes",
    [
        (),
        ("diffusers 0.41.0 → 0.42.1 (git 0123abcde)",),
        ("diffusers 0.42.1 (editable file:///x) → 0.42.1",),
        ("diffusers (new) 0.42.1",),
        ("diffusers 0.41.0 → (removed)",),
        ("diffusers 0.42.1 → 0.41.0",),
    ],
)
def test_anything_but_newer_releases_of_one_library_has_no_search(changes):
    assert bisect_command(check(CHANGED, changes)) is None


def test_dependencies_may_change_with_the_library_but_nothing_else_that_was_asked_for():
    changes = ("diffusers 0.41.0 → 0.42.1", "httpx (new) 0.28.1", "torch 2.9 → 2.10")
    assert bisect_command(check(CHANGED, changes)) == f"{START} --case emoji-sd/ddim-s5"
    assert bisect_command(check(CHANGED, changes, ("current", "diffusers torch"))) is None
    assert bisect_command(check(CHANGED, changes[:2], ("current", "diffusers torch==2.9"))) == (
        f"{START} --with torch==2.9 --case emoji-sd/ddim-s5"
    )


@pytest.mark.parametrize("side", ["-r no-such-file.txt", "git+https://example.org/diffusers@main", "./no.whl"])
def test_a_side_from_elsewhere_has_no_search(side):
    assert bisect_command(check(CHANGED, asked=("current", side))) is None


def test_nothing_worse_that_a_search_finds_has_no_search():
    restless = case("emoji-sd/ddim-s5", "not repeatable")
    assert bisect_command(check([case("emoji-sd/ddim-s5")])) is None
    assert bisect_command(check([restless])) is None
    assert bisect_command(check([case("emoji-sd/ddim-s5", memory=figure("more", 1.2))])) is None
