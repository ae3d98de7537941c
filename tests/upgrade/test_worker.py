"""What a real worker answers."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bench.suite.schedulers import DDPM
from bench.upgrade.side_results import picture_of
from bench.upgrade.worker import LibraryWarnings, modules_of, move_weights
from bench.upgrade.workers import WorkerBroken, fresh
from tests.upgrade.helpers import KINDS, UNET_CALLS, all_gone, ask_after, descendants, psutil

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def library_warnings() -> Iterator[LibraryWarnings]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield LibraryWarnings()


def test_warnings_are_kept_once_each_and_in_order(library_warnings):
    logger = logging.getLogger("tests.warnings")
    library_warnings.watch("tests.warnings")
    for _ in range(2):
        logger.warning("first")
        warnings.warn("second", FutureWarning, stacklevel=1)
    logger.info("not this")
    logger.removeHandler(library_warnings)
    assert list(library_warnings.texts) == ["tests.warnings: first", "FutureWarning: second"]


@pytest.mark.parametrize("by_block", [False, True])
def test_waiting_for_the_other_side_is_not_counted(by_block, sides, request_of):
    wait = 0.1 if by_block else 0.4
    with fresh(sides[0]) as process:
        loaded, _ = process.ask("load", **request_of(DDPM))
        process.ask("picture")
        process.send(do="call", move_weights=False, by_block=by_block, known="")
        reply, waits = process.reply()[0], Counter[bool]()
        while "segments" not in reply:
            assert reply["halted"]
            waits[reply["within"]] += 1
            time.sleep(wait)
            process.send(cores=[])
            reply = process.reply()[0]
    assert waits[False] == 5
    assert waits[True] == (4 * len(loaded["blocks"]) if by_block else 0)
    assert sum(seconds for _, seconds in reply["segments"]) < wait * waits.total() / 2
    assert len(reply["segments"]) == 9


@pytest.mark.skipif(sys.platform != "linux", reason="cores are chosen on Linux only")
def test_a_side_computes_on_the_cores_that_it_is_told(sides, request_of):
    last = max(os.sched_getaffinity(0))
    with fresh(sides[0]) as process:
        process.ask("load", **request_of(DDPM))
        (child,) = descendants(sides[0])
        process.ask("picture", cores=[last])
        threads = [int(task.name) for task in Path(f"/proc/{child}/task").iterdir()]
        assert {frozenset(os.sched_getaffinity(thread)) for thread in threads} == {frozenset({last})}
    assert os.sched_getaffinity(sides[0].process.pid) == os.sched_getaffinity(0)


def test_peak_memory_is_at_least_what_the_process_holds_now(sides, request_of):
    with fresh(sides[0]) as process:
        process.ask("load", **request_of(DDPM))
        process.ask("picture")
        (child,) = descendants(sides[0])
        held = psutil.Process(child).memory_info().rss
        peak = process.ask("memory")[0]["peak_bytes"]
    assert peak >= held > 100 * 2**20


def test_weights_of_a_variant_alone_are_loaded(sides, request_of, tiny_folders, tmp_path):
    folder = Path(shutil.copytree(tiny_folders[DDPM], tmp_path / "variant"))
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".fp16.safetensors"))
    request = request_of(DDPM) | {"folder": str(folder)}
    with fresh(sides[0]) as process, pytest.raises(WorkerBroken):
        process.ask("load", **request)
    with fresh(sides[0]) as process:
        assert process.ask("load", **request | {"variant": "fp16"})[0]["load_s"] > 0


def test_after_a_load_that_failed_another_one_works(sides, request_of, tmp_path):
    with fresh(sides[0]) as process:
        with pytest.raises(WorkerBroken, match=r"^\w+Error: .*model_index\.json") as caught:
            process.ask("load", **(request_of(DDPM) | {"folder": str(tmp_path)}))
        assert caught.value.alive
        process.ask("load", **request_of(DDPM))
        assert process.ask("picture")[0]["unet_calls"] == UNET_CALLS[DDPM]
    result = picture_of(sides[0], request_of(DDPM) | {"folder": str(tmp_path)})
    assert "model_index.json" in (result.error or "")
    assert result.images == ()
    assert sides[0].process.poll() is None


@KINDS
def test_moved_weights_are_the_same_weights_elsewhere(kind, tiny_case, load_tiny):
    pipeline = load_tiny(tiny_case(kind, optimizations=("channels-last",))).pipeline
    parts = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    weights = [weight for part in parts for weight in part.parameters()]
    before = [(weight.data_ptr(), weight.stride(), weight.detach().clone()) for weight in weights]
    move_weights(modules_of(pipeline))
    after = [weight for part in parts for weight in part.parameters()]
    assert all(one is other for one, other in zip(after, weights, strict=True))
    assert len(before) > 20
    for weight, (address, stride, values) in zip(weights, before, strict=True):
        assert weight.data_ptr() != address
        assert weight.stride() == stride
        assert torch.equal(weight, values)


def test_after_a_child_killed_within_a_call_new_workers_work(lasting_sides, request_of):
    one, other = lasting_sides.take()
    left = [one.process.pid, other.process.pid]

    def kill_in_call(child: int) -> None:
        one.ask("load", **request_of(DDPM))
        assert one.ask("call", move_weights=False, by_block=False, known="")[0]["halted"]
        os.kill(child, signal.SIGKILL)

    with pytest.raises(WorkerBroken, match=r"^its process was killed by SIGKILL") as caught:
        ask_after(one, kill_in_call)
    assert not caught.value.alive
    renewed = lasting_sides.take()
    assert all_gone(left[:1], 0)
    assert [picture_of(side, request_of(DDPM)).error for side in renewed] == [None, None]
