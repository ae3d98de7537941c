"""Releases, the timeline over them and the bisection: made-up releases and pictures, real uv and git, no network."""

import contextlib
import itertools
import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version
from PIL import Image

from bench import timeline as timeline_command
from bench.calls.work import Work
from bench.history import (
    bisect,
    bisect_outcome,
    bisect_step,
    release_pictures,
    timeline,
    timeline_map,
    timeline_outcome,
)
from bench.history.bisect_outcome import BisectFound, read_bisect
from bench.history.bisect_step import StepRequest
from bench.history.choice import Mistake, cases_matching, parse_options, read_choice
from bench.history.commits import CommitsError, as_shell_command, find_commit, tag_of, worktree_at
from bench.history.neighbours import Neighbours
from bench.history.question import Answer, Judge, Question
from bench.history.release_pictures import Bench
from bench.history.search import BAD, GOOD, SKIP, Undecided, find_change
from bench.history.timeline_map import MARK_SHAPES, NOT_RUN, draw_map, save_map
from bench.history.timeline_outcome import MARKS, read_timeline, write_timeline
from bench.history.timeline_summary import happened_lines
from bench.installs.environments import Environment
from bench.installs.releases import ReleasesError, parse_range, releases_between
from bench.installs.sides import SideError
from bench.installs.uv import EnvironmentFailed
from bench.pictures.limits import STRICT, default_limits
from bench.report.from_timeline import story_of_timeline
from bench.suite.file import read_suite
from bench.upgrade.comparison import SideResult
from bench.upgrade.decision import Decision
from bench.upgrade.workers import WorkerBroken
from tests.installs.test_environments import git, write_wheel

LIMITS = default_limits("float32", STRICT)
CASE, OTHER = "emoji-ddpm/ddim-s20-fp32", "emoji-sd/pndm-s5-g7.5-fp32"


# the search


def judged(change, skipped=()):
    """A predicate over numbers that notes what it was asked: good before ``change``, bad from there on."""
    asked = []

    def judge(number):
        asked.append(number)
        return SKIP if number in skipped else BAD if number >= change else GOOD

    return judge, asked


@pytest.mark.parametrize("count", range(2, 40))
def test_every_position_of_the_change_is_found_in_few_looks(count):
    for change in range(1, count):
        judge, asked = judged(change)
        found = find_change(range(count), judge)
        assert (found.last_good, found.first_bad, found.between) == (change - 1, change, ())
        assert found.is_found
        assert len(asked) == len(set(asked)) == found.looks <= math.ceil(math.log2(count)) + 2


@pytest.mark.parametrize("change", range(1, 7))
def test_what_is_skipped_never_makes_the_answer_wrong(change):
    for size in range(6):
        for skipped in itertools.combinations(range(1, 6), size):
            judge, asked = judged(change, skipped)
            found = find_change(range(7), judge)
            assert found.last_good < change <= found.first_bad
            assert set(found.between) <= set(skipped)
            assert found.is_found == (not found.between)
            assert len(asked) == len(set(asked))


def test_a_skip_beside_the_middle_costs_one_more_look_only():
    judge, asked = judged(9, skipped=(8,))
    assert find_change(range(17), judge).between == (8,)
    assert len(asked) <= math.ceil(math.log2(17)) + 3


def test_nothing_changed_takes_two_looks():
    judge, asked = judged(99)
    found = find_change(range(30), judge)
    assert (found.last_good, found.first_bad, asked) == (29, None, [0, 29])
    assert not found.is_found


def test_a_change_at_the_first_step_of_two():
    judge, asked = judged(1)
    assert find_change(range(2), judge).first_bad == 1
    assert asked == [0, 1]


def test_what_cannot_be_told_ends_the_search_with_what_is_known():
    def judge(number):
        if number == 5:
            raise Undecided("too close")
        return BAD if number >= 7 else GOOD

    found = find_change(range(11), judge)
    assert (found.last_good, found.first_bad, found.undecided) == (0, 10, "too close")
    assert found.between == tuple(range(1, 10))

    def unsure(number):
        raise Undecided("too close")

    found = find_change(range(3), lambda number: unsure(number) if number else GOOD)
    assert (found.last_good, found.first_bad, found.undecided) == (0, None, "too close")


def test_ends_that_cannot_be_judged_are_refused():
    with pytest.raises(ValueError, match="begin with a good item, and 0"):
        find_change(range(3), lambda number: BAD)
    with pytest.raises(ValueError, match="end with an item that can be judged, and 2"):
        find_change(range(3), lambda number: SKIP if number == 2 else GOOD)


# releases


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [("0.34.0..0.42.1", "0.34.0", "0.42.1"), ("4.57..5.0", "4.57", "5.0"), ("1.0rc1..1.0", "1.0rc1", "1.0")],
)
def test_a_range_is_read(text, first, last):
    assert parse_range(text) == (Version(first), Version(last))


@pytest.mark.parametrize(
    "text", ["0.34.0", "0.34.0-0.42.1", "0.34.0..", "..", "a..b", "0.34...0.42", "0.42.1..0.34.0", "1..1"]
)
def test_a_malformed_range_is_one_sentence_with_an_example(text):
    with pytest.raises(ReleasesError, match=r"0\.34\.0\.\.0\.42\.1\.$") as raised:
        parse_range(text)
    assert f"'{text}'" in str(raised.value)
    assert "\n" not in str(raised.value)


RELEASES = (
    "1.0.0",
    "1.0.1",
    "1.1.0",
    "1.1.1",
    "1.1.2",
    "1.2.0rc1",
    "1.2.0",
    "1.3.0.dev1",
    "1.10.0",
    "2.0.0",
    "2.0.1",
    "2.1.0b1",
)

FINALS = tuple(one for one in RELEASES if not Version(one).is_prerelease)


@pytest.fixture(scope="session")
def index(tmp_path_factory):
    """A folder of wheels, and an index without any: variables of uv."""
    folder = tmp_path_factory.mktemp("releases")
    for release in RELEASES:
        write_wheel(folder, "paint", release)
    write_wheel(folder, "easel", "1.0", ["paint==1.0.0"])
    return {
        "UV_DEFAULT_INDEX": tmp_path_factory.mktemp("no-index").as_uri(),
        "UV_FIND_LINKS": str(folder),
        "UV_CACHE_DIR": str(tmp_path_factory.mktemp("uv")),
    }


@pytest.fixture(autouse=True)
def _without_network(monkeypatch, index):
    for name in [name for name in os.environ if name.startswith(("UV_", "PIP_"))]:
        monkeypatch.delenv(name)
    for name, value in index.items():
        monkeypatch.setenv(name, value)


def between(text, name="paint", **options):
    return [str(one) for one in releases_between(name, *parse_range(text), **options)]


def test_the_newest_patch_of_each_minor_version_and_both_ends():
    assert between("1.0.0..2.0.1") == ["1.0.0", "1.0.1", "1.1.2", "1.2.0", "1.10.0", "2.0.1"]
    assert between("1.1.0..2.0.0") == ["1.1.0", "1.1.2", "1.2.0", "1.10.0", "2.0.0"]
    assert between("1.1.1..1.1.2") == ["1.1.1", "1.1.2"]


def test_all_releases_but_no_pre_releases():
    assert between("1.0.0..3", every=True) == list(FINALS)
    assert between("1.1.1..1.2.0rc1", every=True) == ["1.1.1", "1.1.2"]


def test_ends_need_not_be_releases():
    assert between("0.5..1.1.9") == ["1.0.0", "1.0.1", "1.1.2"]
    assert between("1.1.9..1.9.9") == ["1.2.0"]


def test_an_unknown_library_and_an_empty_range_are_one_sentence():
    with pytest.raises(ReleasesError, match="has no library 'pigment'; correct the name"):
        between("1.0..2.0", "pigment")
    with pytest.raises(ReleasesError, match=r"paint has no final release from 7\.0 to 8\.0 .* give another range"):
        between("7.0..8.0")
    with pytest.raises(ReleasesError, match="'pai nt' is no name"):
        between("1.0..2.0", "pai nt")


def test_an_index_that_does_not_answer_is_one_sentence(monkeypatch):
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.delenv("UV_FIND_LINKS")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(ReleasesError, match=r"^the releases of paint cannot be asked for: .*") as raised:
        between("1.0..2.0")
    assert "\n" not in str(raised.value)


# cases and options


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
    with pytest.raises(Mistake, match=said) as raised:
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
    assert ended.value.code == 2
    assert "unrecognized arguments: stray" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["paint", "1.2.0..1.9"], "only one release from 1.2.0 to 1.9"),
        (["paint", "1.0-2.0"], "is no range"),
        (["pigment", "1.0..2.0"], "no library 'pigment'"),
        (["paint", "1.0..2.0", "--with", "paint==1.0"], "names paint itself"),
        (["paint", "1.0..2.0", "--with", "brush=1"], "brush=1"),
        (["paint", "1.0..2.0", "--device", "tpu9"], "tpu9"),
        (["paint", "1.0..2.0", "--suite", "nowhere.toml"], "nowhere.toml"),
    ],
)
@pytest.mark.parametrize("command", [timeline_command, bisect])
def test_a_users_mistake_is_one_sentence_and_exit_code_2(capsys, command, arguments, said, tmp_path):
    more = ["--results", str(tmp_path), *(["--case", CASE] if command is bisect else [])]
    assert command.main([*arguments, *more]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert said in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--case", "emoji-ddpm/ddim-s99-fp32"], "the suite has no such case"),
        (["--case", "ddim-s20-g7.5"], "do you mean emoji-sd/ddim-s20-g7.5-fp32"),
        (["--case", CASE, "--repo", "."], "has no tag v1.0.0 or 1.0.0; fetch its tags"),
        (["--case", CASE, "--repo", "/"], "give a git checkout of paint"),
    ],
)
def test_a_mistake_in_a_bisection_is_one_sentence(capsys, tmp_path, monkeypatch, more, said):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    monkeypatch.chdir(tmp_path)
    assert bisect.main(["paint", "1.0.0..2.0.1", *more]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert said in error


@pytest.mark.parametrize(
    "arguments", [["--min-change", "3"], ["--min-change", "0%"], ["--budget", "long"], ["--by", "taste"]]
)
def test_a_value_that_makes_no_sense_is_refused(capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        bisect.main(["paint", "1.0.0..2.0.1", "--case", CASE, *arguments])
    assert ended.value.code == 2
    assert arguments[0] in capsys.readouterr().err


# neighbours


WORK = Work(
    operators={"aten::mm": 100},
    host_syncs={},
    copies=3,
    copied_bytes=9000,
    peak_bytes=1,
    unet_calls=4,
    flops=1,
    tokens=9,
)


def pictures(level=100, *, count=2, notices=(), calls=20, noise=0, copied=9000):
    images = []
    for number in range(count):
        image = Image.radial_gradient("L").resize((64, 64)).convert("RGB").point(lambda value: value // 2)
        if noise:
            image.paste((level, noise, noise), (number, 0, number + 24, 24))
        images.append(image)
    return SideResult(tuple(images), calls, tuple(notices), work=replace(WORK, copied_bytes=copied))


def raising(reason="ValueError: no"):
    return SideResult(error=reason)


def told(*results):
    """What is said of one case over releases 1, 2, …; ``None`` for one that did not run."""
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
    (one,) = told(pictures(notices=["odd"]))
    assert (one.verdict, one.compared_with, one.marks, one.new_notices) == ("first", None, (), ())
    (one,) = told(raising())
    assert (one.verdict, one.error, one.marks) == ("raises", "ValueError: no", ())


def test_pictures_that_stay_and_pictures_that_change():
    _, same, other, again = told(pictures(), pictures(), pictures(noise=250), pictures(noise=250))
    assert (same.verdict, same.compared_with, same.ssim_worst_tile, same.marks) == ("identical", "1.0", 1.0, ())
    assert (other.verdict, other.compared_with, other.marks) == ("changed", "2.0", ("changed",))
    assert other.ssim_worst_tile < 0.99
    assert other.max_diff > 100
    assert again.verdict == "identical"


def test_a_release_that_did_not_run_is_stepped_over():
    *_, after = told(pictures(), None, pictures(noise=250))
    assert (after.verdict, after.compared_with) == ("changed", "1.0")


def test_a_case_that_raises_and_works_again_is_compared_with_the_last_pictures():
    _first, now, still, works = told(
        pictures(notices=["old"]), raising(), raising(), pictures(noise=250, notices=["old", "new"], calls=21)
    )
    assert (now.verdict, now.compared_with, now.error, now.marks) == (
        "raises now",
        "1.0",
        "ValueError: no",
        ("raises now",),
    )
    assert (now.new_notices, now.unet_calls_before) == ((), None)
    assert (still.verdict, still.marks) == ("raises as before", ())
    assert (works.verdict, works.compared_with, works.pictures_compared_with) == ("works now", "3.0", "1.0")
    assert works.max_diff > 100
    assert "not those of 1.0 (changed:" in works.message
    assert works.new_notices == ("new",)
    assert works.marks == ("works now", "other number of UNet calls", "new warning")
    *_, works = told(pictures(), raising(), pictures())
    assert "still those of 1.0 (identical)" in works.message
    assert (works.max_diff, works.marks) == (0, ("works now",))


def test_a_case_that_never_worked_before_has_no_pictures_to_compare_with():
    _, works = told(raising(), pictures(notices=["a"]))
    assert (works.verdict, works.pictures_compared_with, works.ssim_worst_tile) == ("works now", None, None)
    assert works.marks == ("works now",)


def test_another_error_another_number_of_pictures_and_a_dead_process():
    _, other = told(raising(), raising("TypeError: no"))
    assert (other.verdict, other.marks) == ("raises something else", ("raises something else",))
    _, fewer = told(pictures(), pictures(count=1))
    assert fewer.marks == ("broken",)
    _, dead = told(pictures(), raising("its process was killed by SIGKILL"))
    assert dead.marks == ("broken",)


def test_calls_and_warnings_are_marked_beside_equal_pictures():
    _, more = told(pictures(calls=20, notices=["a"]), pictures(calls=21, notices=["a", "b"]))
    assert more.verdict == "identical"
    assert more.marks == ("other number of UNet calls", "new warning")
    assert more.new_notices == ("b",)
    _, fewer = told(pictures(notices=["a"]), pictures())
    assert fewer.marks == ()


def test_more_and_less_work_is_marked_beside_equal_pictures_and_said_in_numbers():
    _, more, less, same = told(pictures(), pictures(copied=12000), pictures(), pictures())
    assert [one.verdict for one in (more, less, same)] == ["identical"] * 3
    assert [one.marks for one in (more, less, same)] == [("more work",), ("less work",), ()]
    assert "copied bytes 9,000 → 12,000" in more.work_message
    *_, works = told(pictures(), raising(), pictures(copied=12000))
    assert works.marks == ("works now", "more work")
    _, uncounted = told(pictures(), replace(pictures(), work=None, work_reason="it is compiled"))
    assert (uncounted.work, uncounted.marks) == (None, ())


# one release


class Worker:
    """Stands for a worker whose process ends with a case that is told so."""

    def __init__(self, ends_with):
        self.ends_with = ends_with
        self.processes = []
        self.process = self
        self.ended = None

    def poll(self):
        return self.ended


def run_cases(monkeypatch, cases, *, ends_with=(), starts=9):
    """Which cases have pictures, the cases of each fresh process by worker, and how many were told to be done.

    Cases in capitals are sentinels; the last worker that may start cannot.
    """
    workers: list[Worker] = []

    @contextlib.contextmanager
    def started(name, python, timeout_s, *, forks):
        if len(workers) == starts:
            raise WorkerBroken("ImportError: no brush", alive=True, side="paint")
        workers.append(Worker(ends_with))
        yield workers[-1]

    def pictures_in_one_process(worker, requests):
        worker.processes.append("")
        for case in requests:
            assert worker.poll() is None
            worker.processes[-1] += case
            if case in worker.ends_with:
                worker.ended = -9
                yield case, raising("its process was killed by SIGKILL")
                return
            yield case, pictures()

    monkeypatch.setattr(release_pictures, "started_worker", started)
    monkeypatch.setattr(release_pictures, "pictures_of", pictures_in_one_process)
    told: list[int] = []
    requests = {case: {"settings": {"sentinel": case.isupper()}} for case in cases}
    bench = Bench(Path("unused"), True, print)
    results = bench._cases(Path("python"), "paint==1.0", requests, told.append)
    return {case: bool(result.images) for case, result in results.items()}, [one.processes for one in workers], told


def test_one_worker_does_all_cases_of_a_release(monkeypatch):
    assert run_cases(monkeypatch, "abc") == ({"a": True, "b": True, "c": True}, [["a", "b", "c"]], [1, 2, 3])


def test_sentinels_share_a_process_and_timed_cases_have_one_of_their_own(monkeypatch):
    found, processes, told = run_cases(monkeypatch, "aSTbcU")
    assert processes == [["a", "ST", "b", "c", "U"]]
    assert (set(found.values()), told) == ({True}, [1, 2, 3, 4, 5, 6])


def test_sentinels_after_one_that_takes_its_process_along_get_another_one(monkeypatch):
    found, processes, _ = run_cases(monkeypatch, "STUb", ends_with="T")
    assert found == {"S": True, "T": False, "U": True, "b": True}
    assert processes == [["ST"], ["U", "b"]]


def test_a_case_that_takes_its_worker_along_costs_only_itself(monkeypatch):
    found, processes, _ = run_cases(monkeypatch, "abc", ends_with="a")
    assert (found, processes) == ({"a": False, "b": True, "c": True}, [["a"], ["b", "c"]])


def test_libraries_that_cannot_be_imported_again_leave_the_other_cases_without_pictures(monkeypatch):
    found, _, _ = run_cases(monkeypatch, "abc", ends_with="a", starts=1)
    assert found == {"a": False, "b": False, "c": False}
    with pytest.raises(WorkerBroken, match="no brush"):
        run_cases(monkeypatch, "abc", starts=0)


# a timeline over made-up releases

SCRIPT = {
    "1.0.0": {CASE: pictures(), OTHER: pictures(notices=["old"])},
    "1.0.1": {CASE: pictures(), OTHER: raising()},
    "1.1.2": EnvironmentFailed("'paint==1.1.2': no wheel."),
    "1.2.0": WorkerBroken("ImportError: no brush", alive=True, side="paint"),
    "1.10.0": {CASE: pictures(noise=250), OTHER: raising("TypeError: else")},
    "2.0.1": {CASE: pictures(noise=250, notices=["new"], calls=21), OTHER: pictures(notices=["old"])},
}


@dataclass
class Script:
    """Stands for environments and workers: what each release gives, and what was asked of it."""

    releases: dict
    asked: list

    def environment_of(self, side, cache, announce):
        release = side.text.split()[0].partition("==")[2]
        self.asked.append(release)
        if isinstance(self.releases[release], EnvironmentFailed):
            raise self.releases[release]
        return Environment(Path(release), {"paint": release, "brush": "1.0"})

    def cases(self, python, requests, tell):
        found = self.releases[python.name]
        if isinstance(found, WorkerBroken):
            raise found
        for number in range(len(requests)):
            tell(number + 1)
        return {case: found[case] for case in requests}


@pytest.fixture
def script(monkeypatch):
    script = Script(dict(SCRIPT), [])
    monkeypatch.setattr(release_pictures, "environment_of", script.environment_of)
    monkeypatch.setattr(
        Bench, "_cases", lambda self, python, side, requests, tell: script.cases(python, requests, tell)
    )
    return script


@pytest.fixture
def survey(script, tmp_path):
    """Runs a timeline, as the command does; its exit code and its folder."""

    def survey(*arguments):
        expression = "ddim-s20-fp32 or pndm-s5-g7.5-fp32"
        code = timeline_command.main(
            ["paint", "1.0.0..2.0.1", "-k", expression, "--device", "cpu", "--results", str(tmp_path), *arguments]
        )
        return code, (tmp_path / "latest").resolve()

    return survey


def test_a_timeline_goes_on_where_a_release_does_not_run(survey, capsys):
    code, folder = survey()
    assert code == 0
    found = read_timeline(folder / "timeline.json")
    assert [one.status for one in found.releases] == ["ran", "ran", "not installed", "not imported", "ran", "ran"]
    assert found.releases[2].reason == "'paint==1.1.2': no wheel."
    assert found.releases[3].reason == "ImportError: no brush"
    assert found.releases[3].libraries == {"paint": "1.2.0", "brush": "1.0"}
    assert found.releases[4].changes == ("paint 1.0.1 → 1.10.0",)
    told = [(release.release, case.case, case.marks) for release, case in found.happenings()]
    assert told == [
        ("1.0.1", OTHER, ("raises now",)),
        ("1.10.0", OTHER, ("raises something else",)),
        ("1.10.0", CASE, ("changed",)),
        ("2.0.1", OTHER, ("works now",)),
        ("2.0.1", CASE, ("other number of UNet calls", "new warning")),
    ]
    assert next(case for case in found.releases[4].cases if case.case == CASE).compared_with == "1.0.1"
    kept = sorted(path.relative_to(folder / "grids").as_posix() for path in folder.rglob("grids/**/*.png"))
    assert [one for one in kept if one.startswith("1.10.0/")] == [
        f"1.10.0/{CASE}.{role}.png" for role in ("after", "before", "difference")
    ]
    printed = capsys.readouterr().out
    assert "[3/6] paint 1.1.2: not installed: 'paint==1.1.2': no wheel." in printed
    assert "min left" in printed
    assert f"1.10.0  changed: {CASE}\n" in printed
    assert "without pictures: 1.1.2 not installed, 1.2.0 not imported\n" in printed
    results, report = printed.splitlines()[-2:]
    assert results == f"results: {folder}"
    assert report.startswith(f"report: {folder / 'report.html'} (")


def test_what_was_written_is_read_back_and_fits_the_schema(survey, tmp_path):
    _, folder = survey()
    found = read_timeline(folder / "timeline.json")
    write_timeline(tmp_path / "again.json", found)
    assert read_timeline(tmp_path / "again.json") == found
    assert (tmp_path / "again.json").read_bytes() == (folder / "timeline.json").read_bytes()
    assert json.loads((folder / "timeline.json").read_text())["schema"] == 1


def test_the_schema_files_are_up_to_date():
    for module in (timeline_outcome, bisect_outcome):
        assert module.SCHEMA_FILE.read_text() == module.schema(), f"run python -m {module.__name__}"


def test_a_crash_loses_only_the_release_that_was_running(survey, script, tmp_path):
    script.releases["1.10.0"] = {}  # a fault of the suite, not of a user
    with pytest.raises(KeyError):
        survey()
    assert len(read_timeline(tmp_path / "latest" / "timeline.json").releases) == 4


def test_an_interrupted_timeline_keeps_what_was_done(survey, script, monkeypatch, tmp_path):
    usual = script.environment_of

    def interrupted(side, cache, announce):
        if "1.10.0" in side.text:
            raise KeyboardInterrupt
        return usual(side, cache, announce)

    monkeypatch.setattr(release_pictures, "environment_of", interrupted)
    code, folder = survey()
    assert code == 130
    found = read_timeline(folder / "timeline.json")
    assert len(found.releases) == 4
    assert not found.is_complete
    assert "in 4 of 6 releases" in (folder / "summary.md").read_text()
    assert (folder / "timeline.png").exists()


def test_the_file_is_written_after_each_release(survey, script, monkeypatch):
    lengths = []
    usual = timeline.write_timeline

    def noted(path, found):
        usual(path, found)
        lengths.append(len(read_timeline(path).releases))

    monkeypatch.setattr(timeline, "write_timeline", noted)
    survey()
    assert lengths == [1, 2, 3, 4, 5, 6]


def test_the_summary_says_what_happened_where(survey):
    _, folder = survey("--with", "easel==1.0")
    text = (folder / "summary.md").read_text()
    assert "in 6 releases" in text
    assert "easel==1.0" in text
    assert "- 1.2.0: not imported: ImportError: no brush" in text
    assert "in 1.10.0 |" in text
    assert "21 UNet calls instead of 20" in text


def test_many_cases_of_one_kind_are_counted_and_warnings_told_once():
    rows = [f"emoji-sd/case-{number}" for number in range(6)]
    neighbours = Neighbours(dict.fromkeys(rows, LIMITS))
    columns = []
    for release, result in (("1.0", pictures()), ("2.0", pictures(notices=["careful"], copied=6000))):
        results = dict.fromkeys(rows, result)
        cases = neighbours.compare(results)
        neighbours.remember(release, results)
        columns.append(timeline_outcome.ReleaseFound(release=release, status="ran", seconds=1, cases=cases))
    found = timeline_outcome.TimelineFound(
        library="paint", span="1.0..2.0", alongside="", planned=("1.0", "2.0"), cases=tuple(rows), device="cpu",
        device_name="x", releases=tuple(columns),
    )  # fmt: skip
    assert happened_lines(found) == ["2.0  less work, new warning: 6 cases"]
    story = story_of_timeline(found, Path("run"))
    assert story.remarks == (
        "2.0: 6 cases with less work: copied bytes 9,000 → 6,000 (-33.3 %) (emoji-sd/case-0)",
        "2.0: new warning in 6 cases: careful",
    )
    assert story.entries == ()


def test_the_summary_is_no_markup_of_the_libraries(survey, script):
    script.releases["1.2.0"] = WorkerBroken("Error: <b>a|b</b>", alive=True, side="paint")
    _, folder = survey()
    assert r"Error: &lt;b&gt;a\|b&lt;/b&gt;" in (folder / "summary.md").read_text()


# the map


def drawn(figure, gid):
    return [one for axes in figure.axes for one in axes.collections if one.get_gid() == gid]


@pytest.fixture
def everything():
    """A timeline in which each mark is set once, in a row of its own."""
    rows = [f"emoji-sd/case-{number}" for number in range(len(MARKS))]
    befores = [pictures()] * len(MARKS)
    afters = {
        "raises now": raising(),
        "broken": pictures(count=1),
        "raises something else": raising("TypeError: else"),
        "works now": pictures(),
        "changed": pictures(noise=250),
        "other number of UNet calls": pictures(calls=9),
        "new warning": pictures(notices=["careful"]),
        "more work": pictures(copied=12000),
        "less work": pictures(copied=6000),
    }
    befores[MARKS.index("raises something else")] = befores[MARKS.index("works now")] = raising()
    neighbours = Neighbours(dict.fromkeys(rows, LIMITS))
    columns = []
    for release, results in (("1.0", befores), ("2.0", [afters[mark] for mark in MARKS])):
        by_case = dict(zip(rows, results, strict=True))
        cases = neighbours.compare(by_case)
        neighbours.remember(release, by_case)
        columns.append(timeline_outcome.ReleaseFound(release=release, status="ran", seconds=1, cases=cases))
    columns.insert(1, timeline_outcome.ReleaseFound(release="1.5", status="not imported", reason="x", seconds=1))
    return timeline_outcome.TimelineFound(
        library="paint", span="1.0..2.0", alongside="", planned=("1.0", "1.5", "2.0"), cases=tuple(rows), device="cpu",
        device_name="x", releases=tuple(columns),
    )  # fmt: skip


def test_each_kind_of_mark_is_drawn_in_its_cell_with_its_own_shape(everything):
    figure = draw_map(everything)
    assert set(MARK_SHAPES) == set(MARKS)
    assert len({mark.shape for mark in MARK_SHAPES.values()}) == len(MARKS)
    for row, kind in enumerate(MARKS):
        (marks,) = drawn(figure, kind)
        ((x, y),) = marks.get_offsets()
        assert (math.floor(x), math.floor(y)) == (2, row), kind
    legend = {text.get_text() for text in figure.legends[0].get_texts()}
    assert {kind for kind in MARKS if kind != "changed"} <= legend
    assert "changed beyond the limits" in legend


def test_the_map_has_a_column_for_what_did_not_run_and_a_number_in_what_moved(everything):
    figure = draw_map(everything)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1.0", "1.5", "2.0"]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(everything.cases)
    (blocked,) = drawn(figure, NOT_RUN)
    (path,) = blocked.get_paths()
    assert path.get_extents().bounds == (1, 0, 1, len(MARKS))
    assert blocked.get_hatch()
    texts = [text.get_text() for text in axes.texts]
    assert "not imported" in texts
    changed = everything.releases[2].cases[MARKS.index("changed")]
    assert str(changed.max_diff) in texts
    (moved,) = drawn(figure, "moved")
    assert list(moved.get_array()) == [pytest.approx(math.log10(1 - changed.ssim_worst_tile))]


def test_the_scale_tells_a_ten_thousandth_from_nothing(everything):
    changed = everything.releases[2].cases[MARKS.index("changed")]
    scores = (0.9999999, 0.99995, 0.9995, 0.995, 0.95, 0.2)
    cases = [changed.model_copy(update={"ssim_worst_tile": score, "max_diff": 1}) for score in scores]
    release = everything.releases[2]
    cases = [one.model_copy(update={"case": row}) for one, row in zip(cases, everything.cases, strict=False)]
    found = everything.model_copy(update={"releases": (release.model_copy(update={"cases": tuple(cases)}),)})
    figure = draw_map(found)
    (moved,) = drawn(figure, "moved")
    figure.canvas.draw()
    colours = [tuple(colour) for colour in moved.get_facecolors()]
    assert len(set(colours)) == len(scores)
    brightness = [0.3 * red + 0.59 * green + 0.11 * blue for red, green, blue, _ in colours]
    assert brightness == sorted(brightness, reverse=True)


def test_of_very_many_cases_those_that_never_moved_are_not_drawn(everything, monkeypatch):
    whole = everything.model_copy(update={"cases": (*everything.cases, "emoji-sd/quiet")})
    texts = [label.get_text() for label in draw_map(whole).axes[0].get_yticklabels()]
    assert texts == list(whole.cases)
    monkeypatch.setattr(timeline_map, "MOST_ROWS", 3)
    axes = draw_map(whole).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(everything.cases)
    assert axes.get_xlabel() == "not shown: 1 cases to which nothing happened"
    quiet = whole.model_copy(update={"releases": whole.releases[:1]})
    assert timeline_map.shown_cases(quiet) == whole.cases[:3]


def test_a_map_of_one_column_and_one_of_many_are_drawn(everything, tmp_path):
    save_map(everything.model_copy(update={"releases": everything.releases[:1]}), tmp_path / "one.png")
    many = tuple(everything.releases[2].model_copy(update={"release": f"1.{number}.0"}) for number in range(40))
    save_map(everything.model_copy(update={"releases": many}), tmp_path / "many.png")
    with Image.open(tmp_path / "one.png") as one, Image.open(tmp_path / "many.png") as more:
        assert more.width > 2 * one.width


# bisection over made-up releases


@pytest.fixture
def bisected(script, tmp_path):
    """Runs a bisection, as the command does; its exit code and what it wrote."""

    def bisected(*arguments, span="1.0.0..2.0.1"):
        places = ["--results", str(tmp_path), "--environments", str(tmp_path / "cache")]
        code = bisect.main(["paint", span, "--case", CASE, "--device", "cpu", *places, *arguments])
        path = tmp_path / "latest" / "bisect.json"
        return code, read_bisect(path) if path.exists() else None

    script.releases = {one: {CASE: pictures()} for one in FINALS}
    return bisected


def set_from(script, release, result):
    """From this release on the case gives this."""
    finals = list(script.releases)
    for one in finals[finals.index(release) :]:
        script.releases[one] = {CASE: result} if isinstance(result, SideResult) else result


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
    assert found.sentence.startswith(f"nothing changed: {CASE} under paint 2.0.1 is as under 1.0.0 (identical)")


def test_a_case_that_raises_now_and_one_that_is_mended(bisected, script):
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
    assert bisected() == (2, None)
    assert "neither end of paint 1.0.0..2.0.1 can be used" in capsys.readouterr().err


def decided(verdict, ratio=1.1):
    return Decision(verdict, ratio, ratio - 0.01, ratio + 0.01, 6, 40 if verdict == "cannot tell" else None)


@pytest.fixture
def speeds(monkeypatch):
    """The verdict of each release against the first one."""
    verdicts: dict[str, str] = {}
    monkeypatch.setattr(Judge, "_measured", lambda self, pythons: decided(verdicts[pythons[1].name]))
    return verdicts


def test_the_first_slower_release_is_found(bisected, speeds):
    speeds |= {one: "slower" if Version(one) >= Version("1.1.2") else "same" for one in FINALS}
    speeds["1.0.1"] = "faster"
    code, found = bisected("--by", "speed", "--min-change", "5%")
    assert (code, found.by, found.first_bad) == (0, "speed", "1.1.2")
    assert "slowed" in found.sentence
    assert "slower +10.0% (+9.0 … +11.0 %, 6 process pairs)" in found.sentence
    assert found.steps[-1].answer.speed.min_change == 0.05


def test_what_is_not_slower_at_the_end_has_not_slowed(bisected, speeds):
    speeds |= dict.fromkeys(FINALS, "faster")
    assert bisected("--by", "speed")[1].first_bad is None


def test_a_speed_that_cannot_be_told_ends_the_search_with_what_is_known(bisected, speeds):
    speeds |= dict.fromkeys(FINALS, "slower") | {"1.1.2": "cannot tell", "1.1.1": "cannot tell"}
    code, found = bisected("--by", "speed")
    assert code == 1
    assert (found.last_good, found.first_bad) == ("1.0.0", "2.0.1")
    assert "the search stopped there: whether 'paint==1.1" in found.sentence
    assert "about 40 more (--budget)" in found.sentence
    speeds["2.0.1"] = "cannot tell"
    code, found = bisected("--by", "speed")
    assert code == 1
    assert found.sentence.startswith(f"nothing is known of {CASE} from paint 1.0.0 to 2.0.1: whether")


def test_an_end_that_raises_has_no_speed(bisected, script, capsys):
    script.releases["2.0.1"] = {CASE: raising()}
    assert bisected("--by", "speed")[0] == 2
    assert "has no speed under paint 2.0.1: ValueError: no" in capsys.readouterr().err


def test_a_bisection_is_read_back(bisected, tmp_path):
    _, found = bisected()
    bisect_outcome.write_bisect(tmp_path / "again.json", found)
    assert bisect_outcome.read_bisect(tmp_path / "again.json") == found
    assert isinstance(found, BisectFound)


# commits


def commit(repo, text, name):
    (repo / "paint.py").write_text(text)
    git(repo, "add", ".")
    git(repo, "commit", "-qm", name)
    return git(repo, "rev-parse", "HEAD")


@pytest.fixture
def repo(tmp_path):
    """Releases 1.0 and 2.0 of a package with eight commits between them, and a work tree that is being worked on."""
    repo = tmp_path / "paint"
    repo.mkdir()
    git(repo, "init", "-q", "-b", "main")
    commit(repo, "shade = 0\n", "first")
    git(repo, "tag", "v1.0")
    names = [commit(repo, f"shade = {number}\n", f"shade {number}") for number in range(1, 9)]
    git(repo, "tag", "2.0")
    (repo / "paint.py").write_text("half done\n")
    (repo / "new.txt").write_text("not added\n")
    return repo, names


def shade_command(tmp_path, body):
    """A predicate on the worktree's ``paint.py``, run in another folder, as the real one is."""
    program = tmp_path / "judge.py"
    program.write_text(
        f"import re, sys\nshade = int(re.search(r'\\d+', open(sys.argv[1] + '/paint.py').read())[0])\n{body}"
    )

    def command(worktree):
        return as_shell_command(tmp_path, [sys.executable, str(program), str(worktree)])

    return command


def status(repo):
    return [
        git(repo, "status", "--porcelain"),
        git(repo, "rev-parse", "HEAD"),
        git(repo, "branch", "-a"),
        git(repo, "worktree", "list"),
    ]


@pytest.mark.parametrize("change", [1, 4, 8])
def test_git_finds_the_commit_and_the_work_tree_stays(repo, tmp_path, change):
    repo, names = repo
    before = status(repo)
    command = shade_command(tmp_path, f"print('  shade', shade)\nsys.exit(shade >= {change})")
    said: list[str] = []
    good, bad = tag_of(repo, "paint", "1.0"), tag_of(repo, "paint", "2.0")
    assert (good, bad) == ("v1.0", "2.0")
    with worktree_at(repo, bad) as worktree:
        found = find_commit(worktree, good, bad, command(worktree), said.append)
        assert (repo / "paint.py").read_text() == "half done\n"
    assert found.first_bad
    assert found.first_bad.name == names[change - 1]
    assert found.first_bad.subject == f"shade {change}"
    assert any(line.startswith("  shade") for line in said)
    assert status(repo) == before
    assert not worktree.exists()


def test_commits_that_cannot_be_built_are_skipped(repo, tmp_path):
    repo, names = repo
    command = shade_command(tmp_path, "sys.exit(125 if shade in (4, 5) else shade >= 5)")
    with worktree_at(repo, "2.0") as worktree:
        found = find_commit(worktree, "v1.0", "2.0", command(worktree), print)
    assert found.first_bad is None
    assert {one.name for one in found.possible} == set(names[3:6])


def test_a_predicate_that_stops_ends_the_search_with_its_words(repo, tmp_path):
    repo, _ = repo
    command = shade_command(tmp_path, "print('  too close', flush=True)\nsys.exit(128)")
    before = status(repo)
    with worktree_at(repo, "2.0") as worktree:
        found = find_commit(worktree, "v1.0", "2.0", command(worktree), print)
    assert (found.first_bad, found.possible) == (None, ())
    assert "128" in found.words
    assert status(repo) == before


def test_the_worktree_goes_also_when_something_fails(repo):
    repo, _ = repo
    before = status(repo)
    with pytest.raises(ZeroDivisionError), worktree_at(repo, "2.0") as worktree:
        raise ZeroDivisionError
    assert not worktree.exists()
    assert status(repo) == before


def test_variables_of_git_do_not_lead_to_another_repository(repo, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert tag_of(repo[0], "paint", "1.0") == "v1.0"


def test_a_checkout_without_the_tag_is_one_sentence(repo):
    with pytest.raises(CommitsError, match=r"has no tag v3\.0 or 3\.0; fetch its tags"):
        tag_of(repo[0], "paint", "3.0")


@pytest.fixture
def step(repo, tmp_path, monkeypatch):
    """Runs a step on a worktree, with a judge that answers as told; its exit code."""
    names = {"case": CASE, "request": {}, "limits": LIMITS, "reference": "paint==1.0.0", "by": "pictures"}
    asked = Question(**names, exact=False, min_change=0.03, budget_s=1, device="cpu", environments=tmp_path)

    def step(answer):
        def told(self, side):
            if isinstance(answer, Exception):
                raise answer
            return Answer(answer=answer, message=f"{side} has {sorted(path.name for path in worktree.iterdir())}")

        monkeypatch.setattr(Judge, "answer", told)
        with worktree_at(repo[0], "2.0") as worktree:
            (worktree / "build").mkdir()
            (worktree / "build" / "old.py").touch()
            request = StepRequest(question=asked, worktree=worktree, alongside="brush==1.0", steps=tmp_path / "steps")
            (tmp_path / "request.json").write_text(request.model_dump_json())
            return bisect_step.main([str(tmp_path / "request.json")])

    return step


@pytest.mark.parametrize(("answer", "code"), [(GOOD, 0), (BAD, 1), (SKIP, 125)])
def test_a_step_tells_git_its_answer_and_notes_it(step, repo, tmp_path, answer, code):
    assert step(answer) == code
    (noted,) = bisect_outcome.read_steps(tmp_path / "steps")
    assert (noted.item, noted.answer.answer) == (repo[1][-1], answer)
    assert noted.answer.message.endswith(" brush==1.0 has ['.git', 'paint.py']")  # nothing built of another commit


def test_a_step_that_cannot_be_built_is_skipped_and_what_is_unknown_is_not_called_bad(step, capsys):
    assert step(SideError("no checkout")) == 125
    assert step(Undecided("too close")) == 128
    assert step(RuntimeError("a fault of the suite")) == 128
    assert "stopped: RuntimeError: a fault of the suite" in capsys.readouterr().out


def test_a_whole_bisection_goes_on_over_the_commits(script, bisected, monkeypatch, tmp_path):
    """The real step, in its own process, on commits whose pictures are made up by a stand-in for the workers."""
    repo = tmp_path / "paint"
    repo.mkdir()
    git(repo, "init", "-q", "-b", "main")
    for number, release in enumerate(FINALS):
        for part in range(2):
            name = commit(repo, f"shade = {2 * number + part}\n", f"{release} part {part}")
            if (release, part) == ("1.2.0", 1):
                wanted = name
        git(repo, "tag", f"v{release}")
    set_from(script, "1.2.0", pictures(noise=250))
    stand_in = tmp_path / "stand_in"
    stand_in.mkdir()
    threshold = 2 * FINALS.index("1.2.0") + 1
    (stand_in / "sitecustomize.py").write_text(STAND_IN.format(threshold=threshold))
    monkeypatch.setenv("PYTHONPATH", str(stand_in))
    code, found = bisected("--repo", str(repo))
    assert code == 0
    assert found.first_bad == "1.2.0"
    assert (found.commits.good_tag, found.commits.bad_tag) == ("v1.1.2", "v1.2.0")
    assert found.commits.first_bad == f"{wanted[:10]} (1.2.0 part 1)"
    assert found.sentence.endswith(f"its first such commit is {found.commits.first_bad}")
    assert [(step.item == wanted, step.answer.answer) for step in found.commits.steps] == [(False, "good")]
    made_in = Path(found.commits.steps[0].answer.message)
    assert made_in.parent == tmp_path / "cache"
    assert not made_in.exists()  # environments of commits are not kept
    assert git(repo, "status", "--porcelain") == ""


# Read by each new interpreter; only in a step it replaces the judge, by one that reads a number in the worktree.
STAND_IN = """
import re, sys
if "bench.history.bisect_step" in sys.orig_argv:
    sys.path.insert(0, "")
    from bench.history import question

    def answer(self, side):
        shade = int(re.search(r"\\d+", open(side + "/paint.py").read())[0])
        bad = shade >= {threshold}
        return question.Answer(answer="bad" if bad else "good", message=str(self.question.environments))

    question.Judge.answer = answer
"""
