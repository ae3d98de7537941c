"""Made-up releases and pictures, and stand-ins for environments and workers."""

from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from bench.calls.work import Work
from bench.installs.installed import Environment
from bench.installs.uv import EnvironmentFailed
from bench.pictures.limits import STRICT, default_limits
from bench.upgrade.side_results import SideResult
from bench.upgrade.workers import WorkerBroken
from tests.installs.helpers import git

LIMITS = default_limits("float32", STRICT)
CASE, OTHER = "emoji-ddpm/ddim-s20-fp32", "emoji-sd/pndm-s5-g7.5-fp32"
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


def pictures(level=100, *, count=2, warnings=(), calls=20, noise=0, copied=9000):
    images = []
    for number in range(count):
        image = Image.radial_gradient("L").resize((64, 64)).convert("RGB").point(lambda value: value // 2)
        if noise:
            image.paste((level, noise, noise), (number, 0, number + 24, 24))
        images.append(image)
    return SideResult(tuple(images), calls, tuple(warnings), work=replace(WORK, copied_bytes=copied))


def raising(reason="ValueError: no"):
    return SideResult(error=reason)


SCRIPT = {
    "1.0.0": {CASE: pictures(), OTHER: pictures(warnings=["old"])},
    "1.0.1": {CASE: pictures(), OTHER: raising()},
    "1.1.2": EnvironmentFailed("'paint==1.1.2': no wheel."),
    "1.2.0": WorkerBroken("ImportError: no brush", alive=True, side="paint"),
    "1.10.0": {CASE: pictures(noise=250), OTHER: raising("TypeError: else")},
    "2.0.1": {CASE: pictures(noise=250, warnings=["new"], calls=21), OTHER: pictures(warnings=["old"])},
}


@dataclass
class Script:
    """Stands for environments and workers: what each release gives, and which were asked for."""

    releases: dict
    asked: list

    def environment_of(self, side, cache, announce):
        release = side.text.split()[0].partition("==")[2]
        self.asked.append(release)
        if isinstance(self.releases[release], EnvironmentFailed):
            raise self.releases[release]
        return Environment(Path(release), {"paint": release, "brush": "1.0"})

    def cases(self, python, requests, done):
        found = self.releases[python.name]
        if isinstance(found, WorkerBroken):
            raise found
        for number in range(len(requests)):
            done(number + 1)
        return {case: found[case] for case in requests}


def set_from(script, release, result):
    """From this release on the case gives this."""
    finals = list(script.releases)
    for one in finals[finals.index(release) :]:
        script.releases[one] = {CASE: result} if isinstance(result, SideResult) else result


def commit(repo, text, name):
    """A commit of a package of one module; its name."""
    (repo / "pyproject.toml").touch()
    (repo / "paint.py").write_text(text)
    git(repo, "add", ".")
    git(repo, "commit", "-qm", name)
    return git(repo, "rev-parse", "HEAD")


def shade_in(worktree):
    return int((Path(worktree) / "paint.py").read_text().removeprefix("shade = "))


def status(repo):
    """What a search must leave as it was."""
    return [
        git(repo, "status", "--porcelain"),
        git(repo, "rev-parse", "HEAD"),
        git(repo, "branch", "-a"),
        git(repo, "worktree", "list"),
    ]
