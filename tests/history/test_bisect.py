"""Bisection over made-up releases, as the command runs it."""

import math
import subprocess

import pytest
from packaging.version import Version

from bench.history import (
    bisect,
)
from bench.history.question import Judge
from bench.installs.uv import EnvironmentFailed
from bench.upgrade.outcome import Figure
from bench.upgrade.workers import WorkerBroken
from tests.history.helpers import CASE, pictures, raising, set_from
from tests.installs.helpers import FINALS


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--case", "emoji-ddpm/ddim-s99-fp32"], "none of the"),
        (["--case", "ddim-s20-g7.5"], "do you mean emoji-sd/ddim-s20-g7.5-fp32"),
        (["--case", CASE, "--repo", "."], "has no tag v1.0.0 or 1.0.0; fetch its tags"),
        (["--case", CASE, "--repo", "/"], "give a git checkout of paint"),
    ],
)
def test_a_mistake_in_a_bisection_is_one_sentence(capsys, tmp_path, monkeypatch, more, said):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    monkeypatch.chdir(tmp_path)
    assert bisect.main(["paint", "1.0.0..2.0.1", *more]) == 4
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert said in error


@pytest.mark.parametrize(
    "arguments", [["--min-change", "3"], ["--min-change", "0%"], ["--budget", "long"], ["--by", "taste"]]
)
def test_a_value_that_makes_no_sense_is_refused(capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        bisect.main(["paint", "1.0.0..2.0.1", "--case", CASE, *arguments])
    assert ended.value.code == 4
    assert arguments[0] in capsys.readouterr().err


@pytest.mark.parametrize("change", FINALS[1:])
def test_the_first_release_that_changed_a_case_is_found(bisected, script, capsys, tmp_path, change):
    set_from(script, change, pictures(noise=250))
    code, found = bisected()
    assert code == 0
    assert found.first_bad == change
    assert found.last_good == FINALS[FINALS.index(change) - 1]
    assert f"paint {change} is the first release that changed {CASE} (changed: SSIM" in found.sentence
    assert len(script.asked) <= math.ceil(math.log2(len(FINALS))) + 2
    assert len(set(script.asked)) == len(script.asked)
    printed = capsys.readouterr().out
    assert f"{found.sentence}." in printed
    kept = sorted(path.name for path in (tmp_path / "latest" / "grids" / "emoji-ddpm").iterdir())
    assert kept == [f"ddim-s20-fp32.{role}.png" for role in ("after", "before", "difference")]


def test_nothing_changed_takes_both_ends_only(bisected, script):
    code, found = bisected()
    assert (code, found.first_bad, script.asked) == (0, None, ["1.0.0", "2.0.1"])
    assert found.sentence.startswith(f"nothing changed: {CASE} is the same under paint 1.0.0 and 2.0.1 (identical)")


def test_a_case_that_raises_now_and_one_that_is_fixed(bisected, script):
    set_from(script, "1.2.0", raising("TypeError: no"))
    assert "1.2.0 is the first release" in bisected()[1].sentence
    script.releases = {one: {CASE: raising()} for one in FINALS}
    set_from(script, "1.10.0", pictures())
    sentence = bisected()[1].sentence
    assert "1.10.0 is the first release" in sentence
    assert "works now" in sentence


def test_a_difference_within_the_limits_counts_only_if_asked_for(bisected, script):
    slightly = pictures()
    red, green, blue = slightly.images[0].getpixel((5, 5))
    slightly.images[0].putpixel((5, 5), (red + 1, green, blue))
    set_from(script, "1.1.0", slightly)
    assert bisected()[1].first_bad is None
    assert bisected("--exact")[1].first_bad == "1.1.0"


def test_a_release_that_cannot_be_tried_is_skipped(bisected, script):
    set_from(script, "1.2.0", pictures(noise=250))
    script.releases["1.1.1"] = EnvironmentFailed("'paint==1.1.1': no wheel.")
    script.releases["1.1.2"] = WorkerBroken("ImportError: no brush", alive=True, side="paint")
    _, found = bisected()
    assert (found.last_good, found.first_bad, found.between) == ("1.1.0", "1.2.0", ("1.1.1", "1.1.2"))
    assert "1.1.1, 1.1.2 could not be tried" in found.sentence
    assert {step.answer.answer for step in found.steps if step.item in found.between} == {"skip"}


@pytest.mark.parametrize(
    "broken", [EnvironmentFailed("'paint': no wheel."), WorkerBroken("ImportError: no brush", alive=True, side="paint")]
)
def test_being_broken_is_the_change_where_an_end_is_broken(bisected, script, broken):
    set_from(script, "1.2.0", broken)
    _, found = bisected()
    assert (found.by, found.last_good, found.first_bad, found.between) == ("usable", "1.1.2", "1.2.0", ())
    assert str(broken) in found.sentence
    script.releases = dict.fromkeys(FINALS, broken)
    set_from(script, "1.1.1", pictures())
    _, found = bisected()
    assert (found.by, found.first_bad) == ("usable", "1.1.1")
    assert "can be installed and imported" in found.sentence


def test_two_broken_ends_are_a_mistake(bisected, script, capsys):
    set_from(script, "1.0.0", EnvironmentFailed("'paint': no wheel."))
    assert bisected() == (4, None)
    assert "neither end of paint 1.0.0..2.0.1 can be used" in capsys.readouterr().err


def figure(verdict, min_change):
    more = 40 if verdict == "cannot tell" else None
    return Figure(verdict=verdict, ratio=1.1, low=1.09, high=1.11, min_change=min_change, pairs=6, more_pairs=more)


@pytest.fixture
def speeds(monkeypatch):
    """The verdict of each release against the first one."""
    verdicts: dict[str, str] = {}
    monkeypatch.setattr(
        Judge, "_measured", lambda self, sides: figure(verdicts[sides[1].python.name], self.question.min_change)
    )
    return verdicts


def test_the_first_slower_release_is_found(bisected, speeds):
    speeds |= {one: "slower" if Version(one) >= Version("1.1.2") else "same" for one in FINALS}
    speeds["1.0.1"] = "faster"
    code, found = bisected("--by", "speed", "--min-change", "5%")
    assert (code, found.by, found.first_bad) == (0, "speed", "1.1.2")
    assert "slowed" in found.sentence
    assert "slower +10.0% (+9.0 … +11.0 %, 6 starts)" in found.sentence
    assert found.steps[-1].answer.speed.min_change == 0.05


def test_what_is_not_slower_at_the_end_has_not_slowed(bisected, speeds):
    speeds |= dict.fromkeys(FINALS, "faster")
    assert bisected("--by", "speed")[1].first_bad is None


def test_an_undecided_speed_ends_the_search_with_what_is_known(bisected, speeds):
    speeds |= dict.fromkeys(FINALS, "slower") | {"1.1.2": "cannot tell", "1.1.1": "cannot tell"}
    code, found = bisected("--by", "speed")
    assert code == 1
    assert (found.last_good, found.first_bad) == ("1.0.0", "2.0.1")
    assert "the search stopped there: whether 'paint==1.1" in found.sentence
    assert "about 40 more (--budget)" in found.sentence
    speeds["2.0.1"] = "cannot tell"
    code, found = bisected("--by", "speed")
    assert code == 1
    assert found.sentence.startswith(f"nothing is known about {CASE} from paint 1.0.0 to 2.0.1: whether")


def test_an_end_that_raises_has_no_speed(bisected, script, capsys):
    script.releases["2.0.1"] = {CASE: raising()}
    assert bisected("--by", "speed")[0] == 4
    assert "has no speed under paint 2.0.1: ValueError: no" in capsys.readouterr().err


KILLED = "its process was killed by SIGKILL (out of memory?) (tried twice)"
LOST = [raising(KILLED), WorkerBroken(KILLED, alive=False, side="paint")]


def given(lost):
    return lost if isinstance(lost, WorkerBroken) else {CASE: lost}


@pytest.mark.parametrize("lost", LOST)
def test_a_release_whose_process_is_lost_is_skipped_not_bad(bisected, script, lost):
    set_from(script, "1.2.0", pictures(noise=250))
    script.releases["1.1.1"] = script.releases["1.1.2"] = given(lost)
    _, found = bisected()
    assert (found.last_good, found.first_bad, found.between) == ("1.1.0", "1.2.0", ("1.1.1", "1.1.2"))
    skipped = [step.answer for step in found.steps if step.item in found.between]
    assert {(answer.answer, answer.message) for answer in skipped} == {("skip", f"skipped: {KILLED}")}


@pytest.mark.parametrize("lost", LOST)
@pytest.mark.parametrize("end", ["1.0.0", "2.0.1"])
def test_an_end_whose_process_is_lost_is_refused(bisected, script, capsys, end, lost):
    script.releases[end] = given(lost)
    assert bisected()[0] == 4
    assert f"nothing is known about {CASE} under paint {end}: {KILLED}; run again" in capsys.readouterr().err


def test_a_lost_case_is_no_broken_release_where_an_end_cannot_be_imported(bisected, script):
    set_from(script, "1.2.0", WorkerBroken("ImportError: no brush", alive=True, side="paint"))
    script.releases["1.1.2"] = given(LOST[0])
    script.releases["1.1.1"] = given(LOST[1])
    _, found = bisected()
    assert (found.by, found.last_good, found.first_bad) == ("usable", "1.1.2", "1.2.0")
