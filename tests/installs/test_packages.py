"""Environments on a system's packages: uv plans with all of them, and no two releases end up in one folder."""

import shutil

import pytest

from bench.installs.installed import look
from bench.installs.uv import EnvironmentFailed
from tests.installs.helpers import ask, differences, make_environment_on_system, run_in


@pytest.fixture
def on_system(tmp_path, uv_variables):
    """``on_system(system, own)`` is the Python of an environment on a system's packages, and the folder of these."""

    def make(system, own):
        return make_environment_on_system(tmp_path / "current", system, own, variables=uv_variables)

    return make


def metadata_of(environment, name):
    return [path.name for path in look(environment.python).purelib.glob(f"{name}-*.dist-info")]


def test_packages_of_the_system_stay_as_they_are(on_system, cache, uv_log):
    python, _ = on_system(["paint==1.0", "brush==1.0"], ["glaze==1.0"])
    assert look(python).environment.libraries == {"brush": "1.0", "glaze": "1.0", "paint": "1.0"}
    environment = ask("glaze", cache, python)
    assert differences(python, environment) == ["glaze 1.0 → 2.0"]
    assert run_in(environment, "import paint; print(paint.version)") == "1.0"
    assert ask("glaze==2.0", cache, python).folder == environment.folder
    made = [line for line in uv_log.read_text().splitlines() if line.startswith("pip install") and "--dry" not in line]
    assert len(made) == 1


def test_a_release_of_the_system_hides_behind_the_own_one(on_system, cache):
    python, system = on_system(["paint==1.0", "brush==1.0"], ["brush==2.0"])
    (system / "brush_tools.py").touch()
    record = system / "brush-1.0.dist-info" / "RECORD"
    record.write_text(record.read_text() + "brush_tools.py,,\n")
    environment = ask("frame==1.0", cache, python)
    assert environment.libraries == {"brush": "2.0", "frame": "1.0", "paint": "1.0"}
    assert metadata_of(environment, "brush") == ["brush-2.0.dist-info"]
    assert run_in(environment, "import brush; print(brush.version)") == "2.0"
    assert not (look(environment.python).purelib / "brush_tools.py").exists()


def test_a_hidden_release_without_a_list_of_files_is_known_by_its_modules(on_system, cache):
    python, system = on_system(["brush==1.0"], ["brush==2.0"])
    (system / "brush-1.0.dist-info" / "RECORD").unlink()
    environment = ask("frame==1.0", cache, python)
    assert metadata_of(environment, "brush") == ["brush-2.0.dist-info"]


def test_a_hidden_release_whose_files_are_not_known_is_refused(on_system, cache):
    python, system = on_system(["brush==1.0"], ["brush==2.0"])
    (system / "brush-1.0.dist-info" / "RECORD").unlink()
    (system / "brush.py").rename(system / "bristle.py")
    with pytest.raises(EnvironmentFailed, match=r"^brush is installed in .* and in .*uninstall one"):
        ask("frame==1.0", cache, python)


def test_two_releases_in_one_folder_are_refused(own_base, cache):
    packages = look(own_base).purelib
    shutil.copytree(packages / "brush-1.0.dist-info", packages / "brush-3.0.dist-info")
    metadata = packages / "brush-3.0.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("1.0", "3.0"))
    with pytest.raises(EnvironmentFailed, match=r"^brush is installed twice in .*\(1\.0 and 3\.0\)"):
        ask("frame==1.0", cache, own_base)
