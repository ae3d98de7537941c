"""Which cores two sides may share: siblings and quotas of made-up machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.upgrade import cores
from bench.upgrade.cores import cpu_quota, one_of_each_core, usable_cores
from bench.upgrade.lockstep import ALTERNATE, DUET, places_for


@pytest.fixture
def machine(tmp_path: Path, monkeypatch):
    """``machine(siblings, quota)`` is a Linux machine with these logical processors."""

    def make(siblings: dict[int, str], quota: str | None = None) -> tuple[Path, Path]:
        for number, text in siblings.items():
            folder = tmp_path / "cpus" / f"cpu{number}" / "topology"
            folder.mkdir(parents=True)
            (folder / "thread_siblings_list").write_text(f"{text}\n")
        (tmp_path / "cgroup").mkdir()
        if quota:
            (tmp_path / "cgroup" / "cpu.max").write_text(f"{quota}\n")
        monkeypatch.setattr(cores.sys, "platform", "linux")
        monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: set(siblings))
        return tmp_path / "cpus", tmp_path / "cgroup"

    return make


def test_hyper_threads_of_one_core_are_one_core(machine):
    assert usable_cores(*machine({0: "0,2", 1: "1,3", 2: "0,2", 3: "1,3"})) == [0, 1]


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("max 100000", [0, 1, 2, 3]), ("250000 100000", [0, 1]), ("50000 100000", [0]), ("800000 100000", [0, 1, 2, 3])],
)
def test_a_container_has_the_cores_of_its_quota(machine, quota, expected):
    assert usable_cores(*machine({number: str(number) for number in range(4)}, quota)) == expected


def test_a_quota_of_the_first_version_is_read_too(tmp_path):
    folder = tmp_path / "cpu"
    folder.mkdir()
    (folder / "cpu.cfs_quota_us").write_text("150000\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    assert cpu_quota(tmp_path) == 1.5
    (folder / "cpu.cfs_quota_us").write_text("-1\n")
    assert cpu_quota(tmp_path) is None


def test_without_topology_every_processor_is_a_core(tmp_path):
    assert one_of_each_core([0, 5], tmp_path) == [0, 5]
    assert cpu_quota(tmp_path) is None


@pytest.mark.parametrize(("found", "mode", "threads"), [([0, 2, 4], DUET, 1), ([3], ALTERNATE, 1), ([], ALTERNATE, 0)])
def test_two_sides_share_whole_cores(monkeypatch, found, mode, threads):
    monkeypatch.setattr("bench.upgrade.lockstep.usable_cores", lambda: found)
    places = places_for("cpu")
    assert (places.mode, places.threads) == (mode, threads)
    assert places_for("cuda") == places_for("mps")
    assert places_for("cuda").mode == ALTERNATE
