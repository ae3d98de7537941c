"""Tiny wheels, checkouts and environments, and a uv that does something first: nothing here needs a network."""

import base64
import hashlib
import inspect
import os
import subprocess
import sys
import sysconfig
import time
import zipfile
from pathlib import Path

from packaging.version import Version

from bench.installs import uv
from bench.installs.environments import environment_of
from bench.installs.installed import changes
from bench.installs.sides import Side, parse_side
from bench.installs.uv import find_uv

UV = find_uv()
ROOT = Path(__file__).resolve().parents[2]


def write_wheel(folder, name, version, requires=(), *, body="", command=""):
    """A wheel of one module."""
    about = f"{name}-{version}.dist-info"
    requirements = "".join(f"Requires-Dist: {one}\n" for one in requires)
    files = {
        f"{name}.py": f"version = '{version}'\n{body}",
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requirements}",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if command:
        files[f"{about}/entry_points.txt"] = f"[console_scripts]\n{command} = {name}:main\n"
    record = ""
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(text.encode())}\n"
    files[f"{about}/RECORD"] = f"{record}{about}/RECORD,,\n"
    wheel = Path(folder) / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return wheel


BACKEND = f"""
import base64, hashlib, zipfile
from pathlib import Path

{inspect.getsource(write_wheel)}
def build_wheel(folder, config_settings=None, metadata_directory=None):
    return write_wheel(folder, "easel", "1.0", body=Path("source.py").read_text()).name
"""

PROJECT = """
[project]
name = "easel"
version = "1.0"
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""


def write_checkout(folder, text="made_of = 'wood'\n"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "backend.py").write_text(BACKEND)
    (folder / "source.py").write_text(text)
    return folder


def git(folder, *arguments):
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", folder, *who, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit_checkout(folder, text, tag):
    write_checkout(folder, text)
    if not (folder / ".git").exists():
        git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", tag)
    git(folder, "tag", tag)
    return git(folder, "rev-parse", "HEAD")


def install(python, *requirements, **options):
    variables = os.environ | options.get("variables", {})
    command = [UV, "pip", "install", "-q", "--python", str(python), *requirements]
    subprocess.run(command, check=True, env=variables)


def make_environment(folder, *requirements, variables):
    subprocess.run([UV, "venv", "-q", "--python", sys.executable, folder], check=True, env=os.environ | variables)
    python = folder / "bin" / "python"
    install(python, *requirements, variables=variables)
    return python


def make_environment_on_system(folder, system, own, *, variables):
    """An environment with the packages of its system: its Python, and the system's packages folder."""
    base, library = folder / "system", f"python{sys.version_info[0]}.{sys.version_info[1]}"
    standard = Path(sysconfig.get_path("stdlib"))
    packages = base / "lib" / library / "site-packages"
    packages.mkdir(parents=True)
    for path in standard.iterdir():
        if path.name != "site-packages":
            (packages.parent / path.name).symlink_to(path)
    (base / "bin").mkdir()
    for name in ("python", "python3", library):
        (base / "bin" / name).symlink_to(os.path.realpath(sys.executable))
    python = make_environment(folder / "own", "--no-deps", *own, variables=variables)
    settings = folder / "own" / "pyvenv.cfg"
    lines = [line for line in settings.read_text().splitlines() if not line.startswith(("home", "include-system"))]
    settings.write_text("\n".join([f"home = {base / 'bin'}", "include-system-site-packages = true", *lines]))
    python.unlink()
    python.symlink_to(base / "bin" / "python")
    install(python, "--no-deps", "--target", str(packages), *system, variables=variables)
    return python, packages


def fake_uv(folder, monkeypatch, script, name="uv"):
    """A uv that first runs a script."""
    path = folder / name
    path.write_text(f'#!/bin/bash\n{script}\nexec {UV} "$@"\n')
    path.chmod(0o755)
    monkeypatch.setattr(uv, "find_uv", lambda: str(path))
    return path


INSTALLING = '[[ "$1 $2" == "pip install" && "$*" != *--dry-run* ]]'


def snapshot(folder):
    return {
        str(path.relative_to(folder)): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if "__pycache__" not in path.parts
    }


def ask(text, cache, base, announced=None, folder=None):
    lines = [] if announced is None else announced
    return environment_of(parse_side(text, folder or cache.parent), cache, lines.append, base)


def run_in(environment, code):
    done = subprocess.run([environment.python, "-c", code], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def differences(base, environment):
    current = environment_of(Side("current"), Path("unused"), print, base)
    return [str(change) for change in changes(current, environment)]


def nothing_is_left(cache):
    return [path.name for path in cache.glob("*") if not path.name.endswith(".lock")] == []


PROCESS = """
import sys
from pathlib import Path
from bench.installs import uv as installs_uv
from bench.installs.environments import environment_of
from bench.installs.sides import parse_side

uv, text, cache, base = sys.argv[1:]
installs_uv.find_uv = lambda: uv
side = parse_side(text, Path(cache))
environment = environment_of(side, Path(cache), lambda line: print(line, flush=True), Path(base))
print("folder", environment.folder, flush=True)
sys.stdin.readline()
"""


def start(uv, text, cache, base):
    return subprocess.Popen(
        [sys.executable, "-c", PROCESS, uv, text, cache, base],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def wait_for(path):
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


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


def release_index(tmp_path_factory):
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


def leave_network(monkeypatch, variables):
    """From now on uv has these variables, and neither it nor pip has other settings."""
    for name in [name for name in os.environ if name.startswith(("UV_", "PIP_"))]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    uv.pip_configuration.cache_clear()
