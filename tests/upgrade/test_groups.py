"""Which cases an upgrade makes worse in the same way."""

from __future__ import annotations

import pytest

from bench.pictures.limits import STRICT, default_limits
from bench.upgrade.groups import groups_in, upgrade_groups
from bench.upgrade.outcome import read_upgrade, write_upgrade
from bench.upgrade.pictures import compare_pictures, error_of
from bench.upgrade.side_results import SideResult
from tests.upgrade.made_up import case, check, figure, work

ERROR = "ValueError: step must be greater than zero"
PASSING = [case(f"emoji-sd/{scheduler}-s{steps}") for scheduler in ("ddim", "lcm") for steps in (1, 2, 5)]


def test_thirteen_cards_are_one_sentence():
    name = "emoji-sd/dpmpp-singlestep-s{}"
    failing = [case(name.format(steps), "raises now", f"raises now: {ERROR}") for steps in range(1, 13)]
    before = "RuntimeError: another (one)"
    failing.append(
        case(name.format(13), "raises something else", f"raises something else: {ERROR} (baseline: {before})")
    )
    (group,) = upgrade_groups([*PASSING, *failing])
    assert group.sentence == f'all 13 cases with scheduler dpmpp-singlestep raise "{ERROR}"; no other case does'


@pytest.mark.parametrize(
    ("baseline", "candidate", "error"),
    [
        (None, ERROR, ERROR),
        ("TypeError: no (baseline: x)", ERROR, ERROR),
        (None, "its process was killed by SIGKILL", "its process was killed by SIGKILL"),
    ],
)
def test_the_error_is_read_from_the_sentence_on_the_pictures(baseline, candidate, error):
    sides = (SideResult(error=baseline), SideResult(error=candidate))
    assert error_of(compare_pictures(*sides, default_limits("float32", STRICT))) == error


def test_a_case_that_raises_on_both_sides_has_no_pictures_that_could_have_changed():
    changed = [case(f"emoji-sd/euler-s{steps}", "changed") for steps in (1, 2)]
    raising = [case("emoji-sd/euler-s5", "raises as before", f"raises on both sides: {ERROR}")]
    (group,) = upgrade_groups([*PASSING, *changed, *raising])
    assert group.sentence == "both cases with scheduler euler give changed pictures; no other case does"


def test_sentinels_are_no_cases_that_kept_their_speed():
    slower = [case(f"emoji-sd/euler-s{steps}", speed=figure("slower", 1 + steps / 100)) for steps in (5, 10)]
    timed = [case("emoji-sd/pndm-s5", speed=figure())]
    (group,) = upgrade_groups([*PASSING, *timed, *slower])
    assert group.sentence == "both cases with scheduler euler take longer (+5.0 % to +10.0 %); no other case does"


def test_more_work_with_the_same_counts_is_one_group():
    message = "more work: value reads {} → {} (+100.0 %): aten::item +{}"
    more = [case(f"emoji-sd/euler-s{n}", work=work(message.format(n, 2 * n, n))) for n in (5, 10)]
    others = [case(f"emoji-sd/lcm-s{n}", work=work("more work: operators 100 → 200")) for n in (7, 8)]
    same = [case("emoji-sd/ddim-s5", work=work()), case("emoji-sd/ddim-s6", work=work("less work: FLOPs 9 → 5"))]
    sentences = [group.sentence for group in upgrade_groups([*more, *others, *same])]
    assert sentences == [
        "both cases with scheduler euler do more work (value reads); no other case does",
        "both cases with scheduler lcm do more work (operators); no other case does",
    ]


def test_more_memory_is_a_group_too():
    more = [case(f"emoji-sd/euler-s{n}", memory=figure("more", 1.2)) for n in (5, 10)]
    (group,) = upgrade_groups([*more, case("emoji-sd/ddim-s5", memory=figure())])
    assert group.sentence == "both cases with scheduler euler use more memory (+20.0 %); no other case does"


def test_groups_are_kept_in_the_file_and_made_for_a_file_without_them(tmp_path):
    cases = [*PASSING, *(case(f"emoji-sd/euler-s{steps}", "changed") for steps in (1, 2))]
    groups = upgrade_groups(cases)
    path = tmp_path / "upgrade.json"
    write_upgrade(path, check(cases, groups=groups))
    assert read_upgrade(path).groups == groups
    write_upgrade(path, check(cases))
    assert groups_in(read_upgrade(path)) == groups
