"""What a side makes of its cases: pictures, work, warnings, errors, and in which process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bench.calls.sampling import generate
from bench.suite.schedulers import DDPM, STABLE_DIFFUSION
from bench.upgrade.side_results import PictureProcesses, picture_in, picture_of
from bench.upgrade.workers import SIDES, Sides
from tests.upgrade.helpers import KINDS, UNET_CALLS, all_gone, descendants


@KINDS
def test_two_equal_sides_make_the_pictures_of_the_suite_itself(kind, sides, request_of, tiny_case, load_tiny):
    results = [picture_of(side, request_of(kind)) for side in sides]
    case = tiny_case(kind)
    expected = [image.tobytes() for image in generate(load_tiny(case), case)]
    assert [result.error for result in results] == [None, None]
    assert [result.unet_calls for result in results] == [UNET_CALLS[kind]] * 2
    assert [[image.tobytes() for image in result.images] for result in results] == [expected] * 2


def test_warnings_of_load_and_call_come_with_the_pictures(sides, request_of, tiny_sd_folder, tmp_path):
    folder = tmp_path / "old"
    shutil.copytree(tiny_sd_folder, folder)
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"steps_offset": 0}))
    request = request_of(STABLE_DIFFUSION) | {"folder": str(folder)}
    request["settings"]["prompts"] = ["red fox " * 60, "blue whale"]
    noticed = picture_of(sides[0], request)
    assert noticed.error is None
    assert any("FutureWarning" in text and "steps_offset" in text for text in noticed.warnings)
    assert any("truncated" in text for text in noticed.warnings)
    assert picture_of(sides[0], request_of(STABLE_DIFFUSION)).warnings == ()


def as_sentinel(request: dict[str, Any]) -> dict[str, Any]:
    return request | {"settings": request["settings"] | {"sentinel": True}}


def test_sentinels_of_one_process_have_their_own_warnings(lasting_sides, request_of):
    long = request_of(STABLE_DIFFUSION)
    long["settings"]["prompts"] = ["red fox " * 60, "blue whale"]
    plain, other = request_of(STABLE_DIFFUSION), request_of(DDPM)
    requests = {"long": long, "plain": plain, "long again": long, "another pipeline": other}
    with PictureProcesses(lasting_sides.process) as processes:
        found, children = {}, []
        for case, request in requests.items():
            found[case] = processes.result(SIDES[0], as_sentinel(request))
            children += descendants(lasting_sides.take()[0])
        alone = processes.result(SIDES[0], plain)
    truncated = {case: [text for text in result.warnings if "truncated" in text] for case, result in found.items()}
    assert [len(texts) for texts in truncated.values()] == [1, 0, 1, 0]
    assert found["plain"].images == alone.images
    assert len(children) == len(requests)
    assert len(set(children)) == 1


def test_a_sentinel_that_fails_or_dies_costs_only_itself(lasting_sides, request_of, tmp_path):
    requests = {name: as_sentinel(request_of(DDPM)) for name in ("fails", "works", "dies", "comes after")}
    requests["fails"]["folder"] = str(tmp_path)
    found, children = {}, {}
    with PictureProcesses(lasting_sides.process) as processes:
        for case, request in requests.items():
            found[case] = processes.result(SIDES[0], request)
            children[case] = descendants(lasting_sides.take()[0])
            if case == "works":
                os.kill(children[case][0], signal.SIGKILL)
    assert "model_index.json" in (found["fails"].error or "")
    assert found["works"].error is None
    assert children["fails"] == children["works"]
    assert "was killed by SIGKILL" in (found["dies"].error or "")
    assert found["comes after"].error is None
    assert children["comes after"] != children["works"]


def test_an_interrupted_sentinel_is_not_waited_for(fake_python):
    def interrupted(sides: Sides) -> None:
        with PictureProcesses(sides.process) as processes:
            request = {"settings": {"sentinel": True, "optimizations": ()}}
            assert all(processes.result(side, request).error for side in SIDES)  # these libraries load nothing
            children.extend(child for worker in sides.take() for child in descendants(worker))
            for child in children:
                os.kill(child, signal.SIGSTOP)
            raise KeyboardInterrupt

    children: list[int] = []
    with Sides(dict.fromkeys(SIDES, fake_python()), 20) as sides:
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            interrupted(sides)
        assert time.monotonic() - began < 10
        assert len(children) == len(SIDES)
        assert all_gone(children)


def test_a_side_that_cannot_be_restarted_is_no_error_of_the_other(request_of, fake_python):
    pythons = {"baseline": Path(sys.executable), "candidate": fake_python(diffusers="raise ImportError('gone')\n")}
    with Sides(pythons, 60) as sides, PictureProcesses(sides.process) as processes:
        before, after = (processes.result(side, request_of(DDPM)) for side in SIDES)
    assert before.error is None
    assert after.error == "ImportError: gone"


class NotedProcess:
    """A worker that answers everything and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def ask(self, do: str, **_: Any) -> tuple[dict[str, Any], tuple[bytes, ...]]:
        self.asked.append(do)
        work = {"operators": {}, "host_syncs": {}, "copies": 0, "copied_bytes": 0, "peak_bytes": 0, "unet_calls": 4}
        header = {"sizes": [], "unet_calls": 4, "warnings": [], "checksum": f"of {do}", "segments": [], "shapes": {}}
        return header | {"work": work | {"flops": 0, "tokens": 0, "graphs": None, "graph_breaks": None}}, ()


@pytest.mark.parametrize(
    ("optimizations", "asked"),
    [((), ["load", "counted_picture"]), (("compile",), ["load", "picture", "counted_picture"])],
)
def test_a_compiled_case_shows_its_compiled_pictures_since_counting_is_eager(optimizations, asked, request_of):
    process: Any = NotedProcess()
    result = picture_in(process, request_of(DDPM, optimizations=optimizations))
    assert process.asked == asked
    assert result.checksum == f"of {asked[1]}"
    assert result.work
    assert result.work.unet_calls == 4
