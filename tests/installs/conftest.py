"""A tiny index, a tiny current environment, and the real uv without a network."""

import pytest

from tests.installs.helpers import fake_uv, leave_network, make_environment, snapshot, write_wheel


@pytest.fixture(scope="session")
def shelf(tmp_path_factory):
    """An index: a folder of wheels."""
    folder = tmp_path_factory.mktemp("shelf")
    write_wheel(folder, "paint", "1.0", body="def main(): print(version)\n", command="paint")
    write_wheel(folder, "paint", "2.0", ["brush>=2"])
    write_wheel(folder, "brush", "1.0")
    write_wheel(folder, "brush", "2.0")
    write_wheel(folder, "brush", "3.0")
    write_wheel(folder, "frame", "1.0")
    write_wheel(folder, "frame", "2.0")
    write_wheel(folder, "glaze", "1.0", ["paint"])
    write_wheel(folder, "glaze", "2.0", ["paint"])
    write_wheel(folder, "canvas", "1.0", ["brush<2"])
    return folder


@pytest.fixture(scope="session")
def uv_variables(tmp_path_factory, shelf):
    return {
        "UV_DEFAULT_INDEX": tmp_path_factory.mktemp("empty-index").as_uri(),
        "UV_FIND_LINKS": str(shelf),
        "UV_CACHE_DIR": str(tmp_path_factory.mktemp("uv-cache")),
    }


@pytest.fixture(autouse=True)
def _without_network(monkeypatch, uv_variables):
    leave_network(monkeypatch, uv_variables)


@pytest.fixture(scope="session")
def base(tmp_path_factory, uv_variables):
    """The current environment: it is shared, so each test also shows that it is only read."""
    folder = tmp_path_factory.mktemp("current") / "env"
    python = make_environment(folder, "paint==1.0", "brush==1.0", "frame==1.0", "glaze==1.0", variables=uv_variables)
    before = snapshot(folder)
    yield python
    assert snapshot(folder) == before


@pytest.fixture
def own_base(tmp_path, uv_variables):
    """A current environment that a test may change."""
    return make_environment(tmp_path / "own" / "env", "paint==1.0", "brush==1.0", variables=uv_variables)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def uv_log(tmp_path, monkeypatch):
    """What uv is asked to do, a line each time."""
    log = tmp_path / "uv.log"
    fake_uv(tmp_path, monkeypatch, f'echo "$@" >> {log}')
    return log
