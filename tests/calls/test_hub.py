"""Downloads: few attempts, each reported, one sentence for each failure, and a cache without halves."""

from __future__ import annotations

import hashlib
import re
import shutil
import threading
import time
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from bench.calls import hub as downloads
from bench.calls.device import Cpu
from bench.calls.pipelines import PipelineError, find_checkpoint, is_cached, load_pipeline
from bench.suite.case import Model
from bench.suite.schedulers import DDPM
from tests.hub_server import REVISION, Hub, altered, breaking, hanging, refusing, truncated

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
INDEX = "model_index.json"
# A download that hangs or waits as long as it is asked to would take minutes.
BOUND_S = 20.0


def hub_model(**keys: Any) -> Model:
    entry = {"name": "tiny", "kind": DDPM, "source": "hub", "id": Hub.repo_id, "revision": "main"}
    return Model.model_validate(entry | keys)


@pytest.fixture
def served(hub, tiny_folders, tmp_path, monkeypatch):
    """The repository that the hub serves."""
    folder = Path(shutil.copytree(tiny_folders[DDPM], tmp_path / "served"))
    monkeypatch.setattr(Hub, "tree", folder)
    return folder


def trouble(method: str, path: str, *happens: Callable[[Hub], None]) -> None:
    Hub.troubles[method, path] = list(happens)


class Reported(list[str]):
    def __str__(self) -> str:
        return "\n".join(self)


def refused(model: Model, reported: list[str]) -> str:
    """The one sentence with which a download ends, in bounded time."""
    began = time.monotonic()
    with pytest.raises(PipelineError) as error:
        find_checkpoint(model, Path(), reported.append)
    assert time.monotonic() - began < BOUND_S
    text = str(error.value)
    assert text.startswith(f"model 'tiny': {Hub.repo_id} at revision {model.revision or 'main'}: ")
    assert text.endswith(".")
    assert "\n" not in text
    return text


def assert_recovers(model: Model, cache: Path) -> None:
    """Nothing half-written is left, and the next download succeeds."""
    assert not list(cache.rglob("*.incomplete"))
    assert not is_cached(model)
    Hub.troubles.clear()
    found = find_checkpoint(model, Path(), print)
    assert (found.folder / WEIGHTS).read_bytes() == (Hub.tree / WEIGHTS).read_bytes() if Hub.tree else False
    assert is_cached(model)


REFUSALS = {
    "a token that is not accepted": (
        ("GET", "list", refusing(401, X_Error_Message="Invalid credentials in Authorization header")),
        ["does not accept the token", "HF_TOKEN"],
    ),
    "files that may not be read": (("HEAD", WEIGHTS, refusing(403)), [WEIGHTS, "forbidden", "HF_TOKEN"]),
    "gated files": (("HEAD", WEIGHTS, refusing(403, X_Error_Code="GatedRepo")), ["gated", "accept its terms"]),
    "no repository": (("GET", "list", refusing(404, X_Error_Code="RepoNotFound")), ["no such repository", "'id'"]),
    "no revision": (("GET", "list", refusing(404, X_Error_Code="RevisionNotFound")), ["no such revision"]),
    "no file": (("HEAD", WEIGHTS, refusing(404, X_Error_Code="EntryNotFound")), [WEIGHTS, "pin 'revision'"]),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_is_one_sentence_and_not_retried(name, served, offline):
    (method, path, happens), parts = REFUSALS[name]
    trouble(method, path, *[happens] * 9)
    reported = Reported()
    text = refused(hub_model(), reported)
    assert [part for part in parts if part not in text] == []
    assert "attempt" not in str(reported)
    assert_recovers(hub_model(), offline)


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize(("method", "path"), [("GET", "list"), ("HEAD", WEIGHTS), ("GET", WEIGHTS)])
def test_a_busy_hub_is_asked_again_and_each_retry_is_reported(status, method, path, served, offline):
    trouble(method, path, refusing(status), refusing(status))
    reported = Reported()
    find_checkpoint(hub_model(), Path(), reported.append)
    retries = [line for line in reported if f"HTTP {status}" in line]
    assert [re.findall(r"attempt \d of \d", line) for line in retries] == [["attempt 2 of 3"], ["attempt 3 of 3"]]


@pytest.mark.parametrize("status", [429, 500])
@pytest.mark.parametrize(("method", "path"), [("GET", "list"), ("HEAD", WEIGHTS), ("GET", WEIGHTS)])
def test_a_hub_that_stays_busy_is_given_up(status, method, path, served, offline):
    trouble(method, path, *[refusing(status)] * 9)
    text = refused(hub_model(), [])
    assert f"HTTP {status}, 3 times" in text
    assert "python -m bench.prefetch --model tiny" in text
    assert_recovers(hub_model(), offline)


def test_the_hubs_wait_is_respected(served, offline, monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr(downloads.time, "sleep", waits.append)
    trouble("GET", "list", refusing(429, Retry_After="0.04"))
    find_checkpoint(hub_model(), Path(), print)
    assert waits == [0.04]


def test_a_wait_beyond_the_limit_is_refused_immediately(served, offline):
    trouble("HEAD", WEIGHTS, *[refusing(429, Retry_After="3600")] * 9)
    text = refused(hub_model(), [])
    assert "HTTP 429 and asks to wait 3600 s" in text
    assert len(Hub.troubles["HEAD", WEIGHTS]) == 8
    assert_recovers(hub_model(), offline)


@pytest.mark.parametrize(("method", "path"), [("GET", "list"), ("HEAD", WEIGHTS), ("GET", WEIGHTS)])
def test_a_connection_that_hangs_is_given_up(method, path, served, offline):
    trouble(method, path, *[hanging] * 9)
    reported = Reported()
    text = refused(hub_model(), reported)
    assert "did not answer" in text
    assert "attempt 2 of 3" in str(reported)
    assert_recovers(hub_model(), offline)


def test_a_connection_that_breaks_is_continued_a_few_times(served, offline):
    trouble("GET", WEIGHTS, breaking)
    reported = Reported()
    find_checkpoint(hub_model(), Path(), reported.append)
    assert str(reported).count("continuing the download") == 1


def test_a_connection_that_always_breaks_is_given_up(served, offline):
    trouble("GET", WEIGHTS, *[breaking] * 99)
    text = refused(hub_model(), [])
    assert f"{WEIGHTS}: the connection to 127.0.0.1" in text
    assert "broke 3 times" in text
    assert_recovers(hub_model(), offline)


@pytest.mark.parametrize(
    ("happens", "said"), [(truncated, "arrived incomplete"), (altered, "another content than its hash says")]
)
def test_a_damaged_file_is_fetched_again_and_never_kept(happens, said, served, offline):
    trouble("GET", WEIGHTS, happens)
    reported = Reported()
    find_checkpoint(hub_model(), Path(), reported.append)
    assert str(reported).count(said) == 1
    shutil.rmtree(offline)
    trouble("GET", WEIGHTS, *[happens] * 9)
    text = refused(hub_model(), [])
    assert said in text
    assert WEIGHTS in text
    assert "3 times; nothing of it is kept" in text
    assert_recovers(hub_model(), offline)


def test_a_file_that_was_damaged_in_the_cache_is_not_loaded(served, offline):
    found = find_checkpoint(hub_model(), Path(), print)
    content = downloads.content_of(found.folder / WEIGHTS)
    content.write_bytes(content.read_bytes()[:-1] + b"?")
    with pytest.raises(PipelineError, match=rf"{WEIGHTS} is damaged in the cache; delete {content} and run") as error:
        load_pipeline(hub_model(), "float32", (), Cpu(), Path(), announce=print)
    assert str(error.value).endswith(".")
    content.unlink()
    load_pipeline(hub_model(), "float32", (), Cpu(), Path(), announce=print)


@pytest.mark.parametrize("start", [b"", b"blob 5\0"], ids=["sha1", "git"])
def test_a_small_file_is_checked_by_its_sha1(start, tmp_path):
    content = tmp_path / hashlib.sha1(start + b"fonts").hexdigest()
    content.write_bytes(b"fonts")
    (tmp_path / "config.json").symlink_to(content.name)
    assert downloads.is_intact(tmp_path / "config.json")
    content.write_bytes(b"fonds")
    assert not downloads.is_intact(tmp_path / "config.json")


def test_the_library_does_not_notice_another_content(served, offline):
    """Which is why the suite checks it."""
    trouble("GET", WEIGHTS, altered)
    path = Path(huggingface_hub.hf_hub_download(Hub.repo_id, WEIGHTS, revision="main"))
    assert path.read_bytes() != (served / WEIGHTS).read_bytes()
    assert not downloads.is_intact(path)


def test_files_on_another_host_are_followed_without_the_token(served, offline, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as other:
        thread = threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        elsewhere = f"http://127.0.0.1:{other.server_port}/{Hub.repo_id}/resolve/main/{WEIGHTS}"

        def redirect(hub: Hub) -> None:
            hub.answer(hub.content, 302, {"Location": elsewhere, "Content-Length": "0"} | linked(hub.content))

        trouble("HEAD", WEIGHTS, redirect)
        find_checkpoint(hub_model(), Path(), print)
        other.shutdown()
        thread.join()
    there = [headers for _, _, headers in Hub.requests if elsewhere_of(headers, elsewhere)]
    assert there
    assert not any("authorization" in map(str.lower, headers) for headers in there)
    assert any("authorization" in map(str.lower, headers) for _, _, headers in Hub.requests)


def linked(content: bytes) -> dict[str, str]:
    """What the hub says about a file on another host."""
    return {"X-Linked-Size": str(len(content)), "X-Linked-ETag": f'"{hashlib.sha256(content).hexdigest()}"'}


def elsewhere_of(headers: dict[str, str], address: str) -> bool:
    return {name.lower(): value for name, value in headers.items()}["host"] in address


def test_a_redirect_to_a_host_that_is_gone_names_it(served, offline):
    gone = "http://127.0.0.1:9/nowhere"

    def redirect(hub: Hub) -> None:
        hub.answer(hub.content, 302, {"Location": gone, "Content-Length": "0"} | linked(hub.content))

    trouble("HEAD", WEIGHTS, *[redirect] * 9)
    assert "127.0.0.1:9 did not answer" in refused(hub_model(), [])
    assert_recovers(hub_model(), offline)


def test_a_cached_model_is_used_while_the_hub_is_away_and_that_is_said(served, offline):
    found = find_checkpoint(hub_model(), Path(), print)
    trouble("GET", "list", *[refusing(503)] * 9)
    reported = Reported()
    assert find_checkpoint(hub_model(), Path(), reported.append) == found
    assert "HTTP 503, 3 times" in reported[-1]
    assert f"using {REVISION} from the cache" in reported[-1]


def test_the_revisions_name_points_to_complete_downloads_only(served, offline):
    trouble("HEAD", WEIGHTS, *[refusing(500)] * 9)
    refused(hub_model(), [])
    assert not list(offline.rglob("refs/*"))


def test_requests_outside_a_download_have_the_librarys_own_patience(served, offline):
    find_checkpoint(hub_model(), Path(), print)
    assert "send" not in vars(huggingface_hub.get_session())
