"""Publishing by processes that are killed at every request in turn, and repeated: equal repositories, manifests never first."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hub_server import HubServer, Repository
from published_files import (
    FIRST,
    NAME,
    SECOND,
    TOKEN,
    assert_manifests_hold,
    contents,
    hub_for,
    make_published,
    there,
)
from running import ROOT

from taskmill.splits.publishing.published import Published

pytest.importorskip("huggingface_hub")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with hub_for(tmp_path, monkeypatch) as running:
        yield running


@pytest.fixture
def first(tmp_path: Path) -> Published:
    return make_published(tmp_path / "first", FIRST)


@pytest.fixture
def second(tmp_path: Path) -> Published:
    return make_published(tmp_path / "second", SECOND)


CHILD = """
import json, os, ssl, sys
from pathlib import Path
import huggingface_hub.hf_api
import huggingface_hub.file_download
from taskmill.splits.publishing.sending import hub
from taskmill.splits.publishing.published import Published

context = ssl.create_default_context()
ssl.create_default_context = lambda *arguments, **options: context  # reading certificates is most of the work

for line in sys.stdin:
    folder, tag, most, os.environ["HF_ENDPOINT"] = line.split()
    hub.MAX_OPERATIONS = int(most)
    published = Published(Path(folder), json.loads((Path(folder) / "manifest.json").read_bytes()))
    child = os.fork()
    if not child:
        hub.send(published, "ann/bench", tag=tag)
        os._exit(0)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


@pytest.fixture(scope="module")
def forking() -> Iterator[subprocess.Popen[str]]:
    """A process that forks one for every line that it reads; loading the library takes longer than publishing."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN}
    with subprocess.Popen(
        [sys.executable, "-c", CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()
        process.wait()


@pytest.fixture
def publish_killed(server: HubServer, forking: subprocess.Popen[str]) -> Callable[..., bool]:
    """Publish in a process of its own, which is killed at a request, that is carried out or not; returns whether it was."""
    process = forking
    assert process.stdin is not None and process.stdout is not None

    def publish(
        published: Published, tag: str, point: int = 0, carried_out: bool = False, most: int = 99
    ) -> bool:
        pids: queue.Queue[int] = queue.Queue()
        start = len(server.requests)

        def hook(number: int, method: str, path: str) -> bool | None:
            if number == start + point:
                os.kill(pids.get(timeout=10), signal.SIGKILL)
                return carried_out
            return None

        server.hook = hook
        process.stdin.write(f"{published.folder} {tag} {most} {server.url}\n")
        process.stdin.flush()
        pids.put(int(process.stdout.readline()))
        status = int(process.stdout.readline())
        server.hook = None
        assert status in (0, signal.SIGKILL), status
        return status != 0

    return publish


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(("most", "carried_out"), [(99, False), (99, True), (4, True)])
def test_killed_at_every_request_and_repeated(
    server: HubServer,
    first: Published,
    second: Published,
    publish_killed: Callable[..., bool],
    most: int,
    carried_out: bool,
) -> None:
    before = (Repository("1" * 40, {".gitattributes": b"x"}, branch="main"), {})
    if most == 4:  # a later version, with something to delete, in several commits
        publish_killed(first, "v1")
        before = (server.repositories[NAME], dict(server.objects))
    published, tag = (first, "v1") if most == 99 else (second, "v2")
    commits = set()
    point = 0
    killed = True
    while killed:
        point += 1
        repository, objects = before
        server.objects = dict(objects)
        server.repositories.clear()
        if most == 4:
            history = {c: dict(files) for c, files in repository.history.items()}
            files = dict(repository.files)
            server.repositories[NAME] = Repository(repository.commit, files, branch="main", history=history)
        killed = publish_killed(published, tag, point, carried_out, most)
        held, num_sent = set(server.objects), len(server.sent)
        if killed:
            assert NAME not in server.repositories or not server.repositories[NAME].tags or carried_out
            assert not publish_killed(published, tag, most=most)
        assert there(server) == contents(published), point
        assert server.repositories[NAME].tags == {tag: server.repositories[NAME].commit}
        assert_manifests_hold(server)
        assert not held & {sha256 for sha256, _ in server.sent[num_sent:]}, "what was sent was sent again"
        commits.add(len(server.repositories[NAME].history))
    assert point > (15 if most == 99 else 20)
    assert most == 4 or commits == {2}, "the benchmark is one commit, whenever it was killed"
