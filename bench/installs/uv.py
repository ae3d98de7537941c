"""Runs uv with the settings of pip; its progress becomes short lines, and its failures one sentence."""

from __future__ import annotations

import ast
import errno
import functools
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench.errors import BenchError
from bench.installs.variables import own_libraries

LONGEST_REASON = 600
_PROGRESS = re.compile(r"\s*((?:Downloading|Building|Built|Updating|Prepared|Installed)\s.*)")
_REASON_STARTS = re.compile(r"\s*(error:|×)")
_MARKS = re.compile(r"^[\s│╰├─▶×]*((error|cause|caused by):)?\s*", re.IGNORECASE)
_OUTPUT_OF_ANOTHER = re.compile(r"^\s*(\[std(out|err)\]|--- std(out|err))")
_FULL = re.compile(r"No space left on device|Disk quota exceeded")
_INDEX_SETTINGS = ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_OFFLINE")
# The disk, or a quota, is full.
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
_NOT_OURS = ("UV_SYSTEM_PYTHON", "UV_VENV_SEED", "UV_NO_PROGRESS", "UV_PYTHON", "UV_QUIET")


class EnvironmentFailed(BenchError):
    """An environment cannot be made or used; one sentence with the reason."""


def find_uv() -> str:
    """The uv of this environment, otherwise the one on the path.

    Raises:
        EnvironmentFailed: uv is not installed.
    """
    try:
        from uv import find_uv_bin

        return str(find_uv_bin())
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv")
    if not found:
        raise EnvironmentFailed("uv, which makes the environments, is not installed; run 'pip install uv'.")
    return found


def run_uv(arguments: Sequence[str], asked: str, announce: Callable[[str], None]) -> str:
    """Runs uv and returns its output.

    Args:
        arguments: of uv.
        asked: the text of the side, named when uv fails.
        announce: called with lines on the progress.

    Raises:
        EnvironmentFailed: uv failed; the sentence has its most relevant lines.
        OSError: the disk is full.
    """
    command = [find_uv(), *arguments, "--color", "never"]
    lines: list[str] = []
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        env=_variables(),
    ) as process:
        assert process.stdout
        try:
            for line in process.stdout:
                lines.append(line.rstrip())
                if progress := _PROGRESS.fullmatch(lines[-1]):
                    announce(progress[1])
        except BaseException:
            process.kill()
            raise
    output = "\n".join(lines)
    if process.returncode == 0:
        return output
    if _FULL.search(output):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if process.returncode < 0 or not output:
        raise EnvironmentFailed(f"'{asked}': uv ended with exit status {process.returncode} and gave no reason.")
    raise EnvironmentFailed(f"'{asked}': {_sentence(condense(output))}")


def unmet_requirements(python: Path) -> tuple[str, ...]:
    """Requirements that ``uv pip check`` reports: uv installs what is asked for even if it breaks another library."""
    command = [find_uv(), "pip", "check", "--color", "never", "--python", str(python)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_variables())
    found = (line.strip() for line in f"{done.stdout}\n{done.stderr}".splitlines())
    return tuple(
        line.removeprefix("The package ").replace("`", "") for line in found if line.startswith("The package ")
    )


def condense(output: str) -> str:
    """The reason in uv's output: its errors and causes, and the last line of a build's output."""
    lines = output.splitlines()
    start = next((number for number, line in enumerate(lines) if _REASON_STARTS.match(line)), 0)
    reasons: list[str] = []
    of_another: list[str] | None = None
    for line in lines[start:]:
        if line.startswith("hint:"):
            break
        if _OUTPUT_OF_ANOTHER.match(line):
            of_another = []
        elif of_another is not None:
            of_another += [line.strip()] if line.strip() else []
        elif text := _MARKS.sub("", line).strip():
            continues = bool(reasons) and not re.match(r"\s*(error|cause|caused by):|[\s│]*[×╰├]", line, re.IGNORECASE)
            if continues:
                reasons[-1] += f" {text}"
            else:
                reasons.append(text)
    if of_another:
        fatal = next((line for line in of_another if line.startswith("fatal:")), of_another[-1])
        reasons = [reasons[0], fatal]
    elif len(reasons) > 3:
        reasons = [reasons[0], reasons[-1]]
    reason = ": ".join(part.rstrip(":.") for part in reasons)
    return reason if len(reason) <= LONGEST_REASON else f"{reason[:LONGEST_REASON]}…"


def _sentence(reason: str) -> str:
    return reason if reason.endswith(("…", ".")) else f"{reason}."


def _variables() -> dict[str, str]:
    usual = {name: value for name, value in own_libraries(os.environ).items() if name not in _NOT_OURS}
    return constraints_of_pip() | settings_of_pip(usual) | usual


def settings_of_pip(variables: Mapping[str, str]) -> dict[str, str]:
    """pip's settings on package indexes as variables of uv, which does not read pip's settings.

    Empty if uv has its own settings.
    """
    own = [Path("~/.config/uv/uv.toml").expanduser(), Path("/etc/uv/uv.toml")]
    if any(variables.get(name) for name in (*_INDEX_SETTINGS, "UV_CONFIG_FILE")) or any(path.exists() for path in own):
        return {}
    return as_uv_variables(pip_configuration())


def constraints_of_pip() -> dict[str, str]:
    """pip's constraints as uv's variable: images use ``PIP_CONSTRAINT`` to pin what fits their drivers."""
    constraints = _settings(pip_configuration()).get("constraint", [])
    return {"UV_CONSTRAINT": " ".join(constraints)} if constraints else {}


@functools.cache
def pip_configuration() -> str:
    pip = shutil.which("pip") or shutil.which("pip3")
    if not pip:
        return "\n".join(
            f":env:.{name[4:].lower().replace('_', '-')}={value!r}"
            for name, value in os.environ.items()
            if name.startswith("PIP_")
        )
    done = subprocess.run([pip, "config", "list"], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


def as_uv_variables(configuration: str) -> dict[str, str]:
    """uv's variables for the index settings in the output of ``pip config list``."""
    settings = _settings(configuration)
    # uv refuses a folder that does not exist, and pip only warns
    links = [link for link in settings.get("find-links", []) if "://" in link or Path(link).exists()]
    variables = {
        "UV_DEFAULT_INDEX": " ".join(settings.get("index-url", [])),
        "UV_INDEX": " ".join(settings.get("extra-index-url", [])),
        "UV_FIND_LINKS": ",".join(links),
        "UV_INSECURE_HOST": " ".join(settings.get("trusted-host", [])),
    }
    if variables["UV_INDEX"]:
        # pip takes the best version of all indexes; uv by default only looks at the first index that has the name
        variables["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    if settings.get("no-index", ["0"])[0].lower() in ("1", "true", "yes", "on"):
        variables["UV_OFFLINE"] = "1"
    return {name: value for name, value in variables.items() if value}


def _settings(configuration: str) -> dict[str, list[str]]:
    """The values of each setting in the output of ``pip config list``; the environment overrides the files."""
    settings: dict[str, list[str]] = {}
    for section in ("global", "install", ":env:"):
        for line in configuration.splitlines():
            name, found, value = line.partition("=")
            if found and name.startswith(f"{section}."):
                settings[name.removeprefix(f"{section}.")] = str(ast.literal_eval(value)).split()
    return settings
