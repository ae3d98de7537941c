"""Processes of pytest-xdist on several accelerators: each sees one, and its records name it."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import execnet
import pytest

from bench.calls.device import Cpu, DeviceError
from bench.plugin import processes
from bench.plugin.processes import DEVICE_ID, give_devices, number_of_processes, share_devices, visible_devices
from bench.record.folder import RECORDS
from bench.record.record import read_records
from tests.project import make_project

pytest_plugins = ["pytester"]

CUDA, HIP, ROCR, ZE = "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK"
MIG = "MIG-3f2c5a6e-1b9e-5d3c-8f5e-2a7d1c0b9e8f", "MIG-GPU-8932f937/1/0"


@pytest.mark.parametrize(
    ("kind", "count", "environment", "variable", "names"),
    [
        ("cuda", 3, {}, CUDA, ("0", "1", "2")),
        ("cuda", 2, {CUDA: "5,3"}, CUDA, ("5", "3")),
        ("cuda", 2, {CUDA: " 5, 3 ,"}, CUDA, ("5", "3")),
        ("cuda", 2, {CUDA: "5,5,3"}, CUDA, ("5", "3")),
        ("cuda", 2, {CUDA: "5,3,-1,7"}, CUDA, ("5", "3")),
        ("cuda", 2, {CUDA: "0,1,7"}, CUDA, ("0", "1")),
        ("cuda", 0, {CUDA: ""}, CUDA, ()),
        ("cuda", 0, {CUDA: "-1"}, CUDA, ()),
        ("cuda", 2, {CUDA: "GPU-8f6c,GPU-11aa"}, CUDA, ("GPU-8f6c", "GPU-11aa")),
        ("cuda", 1, {CUDA: ",".join(MIG)}, CUDA, MIG),
        ("cuda", 2, {HIP: "1"}, CUDA, ("0", "1")),
        ("hip", 2, {}, HIP, ("0", "1")),
        ("hip", 2, {ROCR: "4,6"}, ROCR, ("4", "6")),
        ("hip", 2, {ROCR: "4,6", HIP: "1,0"}, HIP, ("1", "0")),
        ("hip", 2, {CUDA: "2,3"}, CUDA, ("2", "3")),
        ("xpu", 2, {ZE: "0.1,1.0"}, ZE, ("0.1", "1.0")),
        ("sim", 2, {CUDA: "7"}, None, ("sim:0", "sim:1")),
    ],
)
def test_the_callers_devices_are_shared(kind, count, environment, variable, names):
    visible = visible_devices(kind, count, environment)
    assert (visible.variable, visible.names) == (variable, names)


def test_each_process_sees_one_device():
    visible = visible_devices("cuda", 3, {CUDA: "5,3,4"})
    assert share_devices(visible, 2, "cuda") == [{DEVICE_ID: "5", CUDA: "5"}, {DEVICE_ID: "3", CUDA: "3"}]


def test_fewer_devices_than_processes_are_one_sentence():
    with pytest.raises(DeviceError, match=rf"-n 4: .*there are 2 \(5, 3\), and {CUDA} hides others; give -n 2 or.*\.$"):
        share_devices(visible_devices("cuda", 2, {CUDA: "5,3"}), 4, "cuda")


def config_with(device: str, processes: int, **more: Any) -> Any:
    option = SimpleNamespace(numprocesses=processes, tx=["popen"] * processes)
    return SimpleNamespace(option=option, getoption={"device": device}.__getitem__, **more)


@pytest.fixture
def two_cards(monkeypatch):
    """Two cards that torch sees as devices of the type ``cuda``."""
    monkeypatch.setattr(processes, "device_count", lambda kind: 2 if kind == "cuda" else 0)
    monkeypatch.setattr(processes, "choose_device", lambda _device: Cpu())
    monkeypatch.setattr(processes.torch.version, "hip", None)
    monkeypatch.setenv(CUDA, "GPU-8f6c,3")


def test_the_variables_travel_to_the_processes(two_cards):
    config = config_with("cuda", 2)
    give_devices(config, "cuda", Cpu())
    assert [execnet.XSpec(one).env for one in config.option.tx] == [
        {DEVICE_ID: "GPU-8f6c", CUDA: "GPU-8f6c"},
        {DEVICE_ID: "3", CUDA: "3"},
    ]
    assert number_of_processes(config) == 2


@pytest.mark.parametrize("device", ["auto", "cpu", "mps", "cuda:1"])
def test_other_devices_are_left_as_they_are(device, two_cards):
    config = config_with(device, 4)
    give_devices(config, device, Cpu())
    assert config.option.tx == ["popen"] * 4
    assert number_of_processes(config) is None


def test_a_process_gives_no_devices_to_others(two_cards):
    config = config_with("cuda", 4, workerinput={})
    give_devices(config, "cuda", Cpu())
    assert config.option.tx == ["popen"] * 4


SUITE = """
[models.tiny]
kind = "ddpm"
source = "local"
path = '{folder}'

[[cases]]
model = "tiny"
scheduler = "ddpm"
steps = [1, 2]
images = 1
"""


@pytest.fixture
def start(pytester, tiny_ddpm_folder):
    """Runs the picture checks in a process that may enable the simulated accelerator; its lines, and the records."""
    make_project(pytester, SUITE.format(folder=tiny_ddpm_folder), "golden/test_goldens.py")

    def start(*arguments):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
        words = [sys.executable, "-m", "pytest", "golden", "--suite=suite.toml", "--pictures-only", *arguments]
        environment |= {"OMP_NUM_THREADS": "1"}
        ended = subprocess.run(words, env=environment, check=False, capture_output=True, text=True)
        found = [record for path in pytester.path.glob(f"results/*-*/{RECORDS}") for record in read_records(path)]
        return ended.stdout + ended.stderr, found

    return start


def test_each_process_uses_a_simulated_device_of_its_own(start):
    said, records = start("--device", "sim", "-n", "auto", "--dist", "each")
    assert "2 workers" in said
    assert {(record.device, record.device_id) for record in records} == {("sim", "sim:0"), ("sim", "sim:1")}
    assert len(records) == 4


def test_more_processes_than_simulated_devices_are_refused(start):
    said, records = start("--device", "sim", "-n", "3")
    assert (
        "--device sim -n 3: each process needs a device of its own, and there are 2 (sim:0, sim:1); give -n 2" in said
    )
    assert "Traceback" not in said
    assert records == []
