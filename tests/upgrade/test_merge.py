"""The shards of an upgrade check in one check."""

from __future__ import annotations

import pytest

from bench.upgrade.groups import upgrade_groups
from bench.upgrade.journal import Compared, different_origins, new_journal
from bench.upgrade.merge import UpgradeShard, different_check, merge_checks
from bench.upgrade.outcome import ComponentFound
from tests.upgrade import made_up


def component(name, verdict="same"):
    return ComponentFound(
        name=name,
        part="denoiser",
        pipeline="m in float32",
        shape=(1,),
        figure=made_up.figure(verdict),
        share=(0.1, 0.2),
        effect=(0.0, 0.0),
        cases=("m/ddim-s5",),
    )


def merged(*checks, order=()):
    return merge_checks([UpgradeShard(f"shard {n}/2", one) for n, one in enumerate(checks, start=1)], order)


def test_what_each_shard_spent_and_promised_adds_up():
    one = made_up.check([made_up.case("m/ddim-s5")], error_rate=0.01, questions=5)
    other = made_up.check([made_up.case("m/ddim-s6")], error_rate=0.01, questions=7)
    pictures = made_up.check([made_up.case("m/ddim-s7")])
    found = merged(one, other, pictures)
    assert (found.budget_s, found.error_rate, found.questions) == (180, 0.02, 12)
    assert merged(pictures, pictures).error_rate is None


def test_cases_are_in_the_order_of_the_complete_check():
    checks = [made_up.check([made_up.case(name)]) for name in ("m/ddim-s6", "m/ddim-s5")]
    assert [case.case for case in merged(*checks, order=("m/ddim-s5", "m/ddim-s6")).cases] == ["m/ddim-s5", "m/ddim-s6"]


def test_the_worst_import_time_counts():
    figures = [made_up.figure("same"), made_up.figure("slower"), made_up.figure("cannot tell")]
    checks = [made_up.check([made_up.case("m/ddim-s5")], import_time=figure) for figure in figures]
    import_time = merged(*checks).import_time
    assert import_time
    assert import_time.verdict == "slower"
    assert merged(made_up.check([])).import_time is None


def test_a_component_of_several_shards_is_one_of_each():
    checks = [
        made_up.check([], components=(component("denoiser"), component("decoder"))),
        made_up.check([], components=(component("denoiser", "slower"),)),
    ]
    found = merged(*checks)
    assert [one.name for one in found.components] == ["denoiser (shard 1/2)", "decoder", "denoiser (shard 2/2)"]
    assert [one.name for one in found.slower_components] == ["denoiser (shard 2/2)"]


def test_groups_are_computed_over_all_and_keep_what_shards_know():
    changed = [made_up.case(name, "changed", "changed: SSIM 0.5") for name in ("m/ddim-s5", "m/ddim-s6")]
    checks = []
    for case in changed:
        (group,) = upgrade_groups([case])
        note = f"starts in {case.case}"
        checks.append(made_up.check([case], groups=(group.model_copy(update={"notes": (note,)}),)))
    (group,) = merged(*checks).groups
    assert group.cases == ("m/ddim-s5", "m/ddim-s6")
    assert group.notes == ("starts in m/ddim-s5", "starts in m/ddim-s6")


@pytest.mark.parametrize(
    ("update", "why"),
    [
        ({"device_name": "another"}, "device name was a processor and is another"),
        ({"min_change": 0.1}, "min change was 0.03 and is 0.1"),
        ({"mode": "pictures"}, "mode was duet and is pictures"),
        ({"changes": ()}, "changes was ('diffusers 0.41.0 → 0.42.1',) and is ()"),
    ],
)
def test_a_difference_is_named(update, why):
    before = made_up.check([])
    assert different_check(before, before) is None
    assert different_check(before, before.model_copy(update=update)) == why
    other = made_up.check([], asked=("diffusers==0.41.0", "diffusers"))
    assert different_check(before, other) == "the candidate was diffusers==0.42.1 and is diffusers"


def test_checkouts_at_other_commits_are_another_check(tmp_path):
    compared = Compared(libraries=({}, {}), origins=({}, {"diffusers": "a"}), device="cpu", device_name="", threads=1)
    new_journal(tmp_path / "one", compared)
    new_journal(tmp_path / "other", compared.model_copy(update={"origins": ({}, {"diffusers": "b"})}))
    assert different_origins(tmp_path / "one", tmp_path / "one") is None
    assert different_origins(tmp_path / "one", tmp_path / "absent") is None
    why = "diffusers of the candidate was a and is b"
    assert different_origins(tmp_path / "one", tmp_path / "other") == why
