"""A case under one release against the releases before."""

from dataclasses import replace
from typing import Any

from bench.history.neighbours import Neighbours
from tests.history.helpers import CASE, LIMITS, pictures, raising


def over_releases(*results):
    """The results of one case over releases 1, 2, …; ``None`` for one that did not run."""
    neighbours = Neighbours({CASE: LIMITS})
    said: list[Any] = []
    for number, result in enumerate(results, start=1):
        if result is None:
            said.append(None)
            continue
        said.append(neighbours.compare({CASE: result})[0])
        neighbours.remember(f"{number}.0", {CASE: result})
    return said


def test_the_first_release_has_nothing_before_it():
    (one,) = over_releases(pictures(warnings=["odd"]))
    assert (one.verdict, one.compared_with, one.marks, one.new_warnings) == ("first", None, (), ())
    (one,) = over_releases(raising())
    assert (one.verdict, one.error, one.marks) == ("raises", "ValueError: no", ())


def test_pictures_that_stay_and_pictures_that_change():
    _, same, other, again = over_releases(pictures(), pictures(), pictures(noise=250), pictures(noise=250))
    assert (same.verdict, same.compared_with, same.ssim_worst_tile, same.marks) == ("identical", "1.0", 1.0, ())
    assert (other.verdict, other.compared_with, other.marks) == ("changed", "2.0", ("changed",))
    assert other.ssim_worst_tile < 0.99
    assert other.max_diff > 100
    assert again.verdict == "identical"


def test_a_release_that_did_not_run_is_stepped_over():
    *_, after = over_releases(pictures(), None, pictures(noise=250))
    assert (after.verdict, after.compared_with) == ("changed", "1.0")


def test_a_case_that_works_again_is_compared_with_its_last_pictures():
    _first, now, still, works = over_releases(
        pictures(warnings=["old"]), raising(), raising(), pictures(noise=250, warnings=["old", "new"], calls=21)
    )
    assert (now.verdict, now.compared_with, now.error, now.marks) == (
        "raises now",
        "1.0",
        "ValueError: no",
        ("raises now",),
    )
    assert (now.new_warnings, now.unet_calls_before) == ((), None)
    assert (still.verdict, still.marks) == ("raises as before", ())
    assert (works.verdict, works.compared_with, works.pictures_compared_with) == ("works now", "3.0", "1.0")
    assert works.max_diff > 100
    assert "not those of 1.0 (changed:" in works.message
    assert works.new_warnings == ("new",)
    assert works.marks == ("works now", "other number of UNet calls", "new warning")
    *_, works = over_releases(pictures(), raising(), pictures())
    assert "still those of 1.0 (identical)" in works.message
    assert (works.max_diff, works.marks) == (0, ("works now",))


def test_a_case_that_never_worked_before_has_no_pictures():
    _, works = over_releases(raising(), pictures(warnings=["a"]))
    assert (works.verdict, works.pictures_compared_with, works.ssim_worst_tile) == ("works now", None, None)
    assert works.marks == ("works now",)


def test_another_error_fewer_pictures_and_a_dead_process():
    _, other = over_releases(raising(), raising("TypeError: no"))
    assert (other.verdict, other.marks) == ("raises something else", ("raises something else",))
    _, fewer = over_releases(pictures(), pictures(count=1))
    assert fewer.marks == ("broken",)
    _, dead = over_releases(pictures(), raising("its process was killed by SIGKILL"))
    assert dead.marks == ("broken",)


def test_calls_and_warnings_are_marked_with_equal_pictures():
    _, more = over_releases(pictures(calls=20, warnings=["a"]), pictures(calls=21, warnings=["a", "b"]))
    assert more.verdict == "identical"
    assert more.marks == ("other number of UNet calls", "new warning")
    assert more.new_warnings == ("b",)
    _, fewer = over_releases(pictures(warnings=["a"]), pictures())
    assert fewer.marks == ()


def test_more_and_less_work_is_marked_with_equal_pictures():
    _, more, less, same = over_releases(pictures(), pictures(copied=12000), pictures(), pictures())
    assert [one.verdict for one in (more, less, same)] == ["identical"] * 3
    assert [one.marks for one in (more, less, same)] == [("more work",), ("less work",), ()]
    assert "copied bytes 9,000 → 12,000" in more.work_message
    *_, works = over_releases(pictures(), raising(), pictures(copied=12000))
    assert works.marks == ("works now", "more work")
    _, uncounted = over_releases(pictures(), replace(pictures(), work=None, work_reason="it is compiled"))
    assert (uncounted.work, uncounted.marks) == (None, ())
