"""What a side imports must be what its environment has, and differ where the environments differ."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.installs.installed import Environment, look
from bench.plugin import upgrade as upgrade_plugin
from bench.record.folder import RunFolder
from bench.upgrade.imports import WrongImport, check_imports, check_side
from bench.upgrade.workers import WorkerBroken, started_worker
from tests.upgrade.helpers import CURRENT


def packages_of(root: Path) -> Path:
    folder = root / "lib" / "site-packages"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def environment(root: Path, version: str = "2.0", **more: Any) -> Environment:
    libraries = {"diffusers": version, "numpy": "1.0"}
    return Environment(root / "bin" / "python", libraries, search_path=(packages_of(root),), **more)


def imports(packages: Path, version: str = "2.0") -> dict[str, dict[str, str]]:
    return {
        "diffusers": {"file": str(packages / "diffusers" / "__init__.py"), "version": version},
        "numpy": {"file": str(packages / "numpy.py"), "version": "1.0"},
    }


@pytest.fixture
def roots(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "one", tmp_path / "other"


def check_both(roots: tuple[Path, Path], candidate: dict[str, dict[str, str]], **more: Any) -> None:
    baseline, other = roots
    environments = {"baseline": environment(baseline, "1.0"), "candidate": environment(other, **more)}
    check_imports(environments, {"baseline": imports(packages_of(baseline), "1.0"), "candidate": candidate})


def test_two_sides_that_import_their_own_libraries_pass(roots):
    check_both(roots, imports(packages_of(roots[1])))


def test_a_file_outside_the_environment_is_refused(roots, tmp_path):
    elsewhere = packages_of(tmp_path / "elsewhere")
    with pytest.raises(WrongImport, match=r"^the candidate imports diffusers from .*elsewhere.*outside its env"):
        check_both(roots, imports(elsewhere))


def test_a_version_that_is_not_installed_is_refused(roots):
    with pytest.raises(WrongImport, match=r"candidate imports diffusers 1\.9 from .*, but its environment has 2\.0"):
        check_both(roots, imports(packages_of(roots[1]), "1.9"))


def test_one_file_on_both_sides_is_refused_where_they_should_differ(roots):
    shared = packages_of(roots[0])
    environments = {
        "baseline": environment(roots[0], "1.0"),
        "candidate": Environment(Path("python"), {"diffusers": "2.0", "numpy": "1.0"}, search_path=(shared,)),
    }
    imported = imports(shared, "1.0")
    del imported["diffusers"]["version"]
    with pytest.raises(WrongImport, match=r"^both sides import diffusers from .*have diffusers 1\.0 → 2\.0\.$"):
        check_imports(environments, {"baseline": imported, "candidate": imported})


def test_a_library_that_differs_is_checked_whichever_it_is(roots, tmp_path):
    environments = {
        name: Environment(root / "python", {"easy-paint": version}, search_path=(packages_of(root),))
        for name, root, version in zip(("baseline", "candidate"), roots, ("1.0", "2.0"), strict=True)
    }
    imported = {"easy_paint": {"file": str(tmp_path / "easy_paint.py")}}
    with pytest.raises(WrongImport, match="the baseline imports easy-paint from"):
        check_imports(environments, {"baseline": imported, "candidate": imported})


@pytest.mark.parametrize("version", ["2.0+cu128", "2.0"])
def test_a_local_part_that_only_one_version_has_is_no_mismatch(roots, version):
    check_side("candidate", environment(roots[1]), imports(packages_of(roots[1]), version))
    with pytest.raises(WrongImport):
        check_side("candidate", environment(roots[1], "2.0+cpu"), imports(packages_of(roots[1]), "2.0+cu128"))


def test_an_editable_install_may_be_newer_than_its_metadata(roots, tmp_path):
    checkout = tmp_path / "checkout"
    origins = {"diffusers": f"editable {checkout.as_uri()}"}
    imported = imports(checkout / "src", "2.1.dev0") | {"numpy": imports(packages_of(roots[1]))["numpy"]}
    check_both(roots, imported, origins=origins)
    with pytest.raises(WrongImport, match="outside its environment"):
        check_both(roots, imported)


@pytest.mark.usefixtures("spawned_processes")
def test_what_this_environment_imports_is_what_it_has():
    with started_worker("baseline", CURRENT, 120) as worker:
        imported = worker.imported
    found = look(CURRENT).environment
    assert imported["torch"]["version"].startswith(found.libraries["torch"])
    assert {"diffusers", "transformers", "torch", "accelerate", "numpy", "PIL"} <= set(imported)
    check_side("baseline", found, imported, found.libraries)
    with pytest.raises(WrongImport, match="outside its environment"):
        check_side("baseline", Environment(CURRENT, found.libraries, search_path=(Path("/no"),)), imported)


def test_a_worker_says_which_file_it_imports(fake_python, tmp_path):
    with started_worker("baseline", fake_python(), 20) as worker:
        expected = {"file": str(tmp_path / "libraries" / "diffusers.py"), "version": "0"}
        assert worker.imported["diffusers"] == expected


def test_a_worker_is_not_led_to_other_libraries(tmp_path, monkeypatch):
    for name in ("PYTHONPATH", "PYTHONHOME"):
        monkeypatch.setenv(name, "elsewhere")
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "path=$PYTHONPATH home=$PYTHONHOME user=$PYTHONNOUSERSITE." >&2\nexit 3\n')
    python.chmod(0o755)
    with pytest.raises(WorkerBroken, match=r"path= home= user=1\."), started_worker("baseline", python, 20):
        pass


def test_a_wrong_import_ends_an_upgrade_before_its_first_case(roots, fake_python, tmp_path, monkeypatch, start_upgrade):
    python = fake_python()
    found = Environment(python, {"diffusers": "0"}, search_path=(packages_of(roots[0]),))
    monkeypatch.setattr(upgrade_plugin, "environment_of", lambda side, cache, announce: found)
    with pytest.raises(pytest.UsageError, match=r"the baseline imports diffusers from .*outside its environment"):
        start_upgrade()


@pytest.fixture
def start_upgrade(tmp_path):
    """Prepares an upgrade check as its pytest session does."""

    def start() -> None:
        options = SimpleNamespace(
            baseline="current", candidate="current", folder=tmp_path, environments=tmp_path / "cache", min_change=0.03,
            min_component_change=0.1, budget_s=1.0, pictures_only=True, resume=None,
        )  # fmt: skip
        session: Any = SimpleNamespace(
            device=SimpleNamespace(type="cpu", torch_device="cpu", name="a processor"),
            run=SimpleNamespace(folder=RunFolder(tmp_path, "run")),
            options=SimpleNamespace(suite=SimpleNamespace(parent=tmp_path), resume=None),
        )
        upgrade = upgrade_plugin.UpgradeSession(session, options, print)  # type: ignore[arg-type]
        try:
            upgrade.prepare()
        finally:
            upgrade.close()

    return start
