"""Sending a published folder to a Hub that fails, lies, changes or refuses, and by processes that are killed at every request."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import Fault, HubServer, Repository
from hub_writes import push
from published_files import (
    CARD,
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

from taskmill import hub_client
from taskmill.errors import DamagedError, DataError, StorageError, TaskmillError, UsageError
from taskmill.splits.publishing.published import MANIFEST, Published
from taskmill.splits.publishing.sending import hub
from taskmill.splits.publishing.sending.remote import MARK

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


# --------------------------------------------------------------------------------------- what passes

PLACES = [
    ("POST", "/create"),
    ("GET", "/revision/main"),
    ("GET", "/refs"),
    ("POST", "/preupload/main"),
    ("POST", "/batch"),
    ("PUT", ""),
    ("POST", "/lfs-verify/ann"),
    ("POST", "/validate-yaml"),
    ("POST", "/commit/main"),
]
"""The requests of publishing; those for a tag and a tree have a commit in their address."""


@pytest.mark.parametrize(
    "fault",
    [
        *(Fault("status", ending, method, 2, 503) for method, ending in PLACES),
        *(Fault("status", e, m, 2, 429, {"Retry-After": "1"}) for m, e in PLACES),
        *(Fault("drop", ending, method, 2) for method, ending in PLACES if method != "GET"),
        *(Fault("lost", ending, method, 2) for method, ending in PLACES if method != "GET"),
        Fault("body", "/validate-yaml", "POST", 1, body=b"<html>busy</html>"),
        Fault("bytes", "", "PUT", 2),
        Fault("slow", "", "PUT", 1, seconds=0.2),
        Fault("slow", "/commit/main", "POST", 1, seconds=0.2),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.status}-{fault.method}{fault.ending.replace('/', '-')}",
)
def test_what_passes_is_tried_again(server: HubServer, first: Published, fault: Fault) -> None:
    server.faults = [fault]
    sent = hub.send(first, NAME, tag="v1")
    assert fault.times == 0, "the fault never happened"
    assert there(server) == contents(first)
    repository = server.repositories[NAME]
    assert repository.tags == {"v1": sent.commit} and repository.commit == sent.commit
    assert (sent.num_sent, sent.num_commits) == (len(FIRST) + 1, 1)
    assert len(repository.history) == 2, "the benchmark is one commit"
    assert_manifests_hold(server)


@pytest.mark.parametrize("kind", ["status", "drop", "lost"])
def test_a_tag_and_a_listing_that_fail_at_first(server: HubServer, first: Published, kind: str) -> None:
    commit = hub.send(first, NAME).commit
    server.faults = [
        Fault(kind, f"/tag/{commit}", "POST", 2),
        Fault("status", f"/tree/{commit}", "GET", 2, 503),
    ]
    sent = hub.send(first, NAME, tag="v1")
    assert [fault.times for fault in server.faults] == [0, 0]
    assert (sent.commit, server.repositories[NAME].tags) == (commit, {"v1": commit})


def test_a_server_that_stays_silent(
    server: HubServer, first: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_client, "SILENCE", 0.5)
    server.faults = [Fault("slow", "/commit/main", "POST", 1, seconds=1.0)]
    hub.send(first, NAME)
    assert there(server) == contents(first)
    assert len([request for request in server.requests if request.endswith("/commit/main")]) == 2
    assert len(server.repositories[NAME].history) == 2, "what was silent came too late"


@pytest.mark.parametrize(
    "asked", [{"Retry-After": "3600"}, {"RateLimit": '"api";r=0;t=3600'}], ids=["pause", "limit"]
)
def test_pauses_are_bounded(
    server: HubServer, first: Published, monkeypatch: pytest.MonkeyPatch, asked: dict[str, str]
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(hub_client.time, "sleep", pauses.append)
    server.faults = [
        Fault("status", "/preupload/main", "POST", 2, 429, asked),
        Fault("status", "/commit/main", "POST", 2, 429, {"Retry-After": "3600"}),
    ]
    hub.send(first, NAME)
    assert max(pauses) <= hub_client.LONGEST_WAIT + 1 and sum(pauses) >= 4 * hub_client.LONGEST_WAIT


# ---------------------------------------------------------------------------------------- what stays

REFUSED_CARD = b'{"errors": [{"message": "no licence"}]}'


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        (Fault("status", "", "PUT", 99, 503), StorageError, "HTTP 503 to 3 requests for the upload .*same command"),
        (Fault("drop", "", "PUT", 99), StorageError, r"could not be sent to http://127.*at ids/.*not sent again"),
        (Fault("bytes", "", "PUT", 99), DataError, r"refuses the upload .*another checksum.*at ids/"),
        (Fault("status", "/commit/main", "POST", 99, 503), StorageError, "HTTP 503 to 3 requests for the commit"),
        (Fault("status", "/commit/main", "POST", 99, 429), StorageError, "HTTP 429 to 3 requests"),
        (Fault("status", "/commit/main", "POST", 99, 413, body=b'{"error": "too large"}'), DataError, "too large"),
        (Fault("body", "/commit/main", "POST", 99, body=b"<html>"), StorageError, "not answer like a Hub"),
        (Fault("body", "/preupload/main", "POST", 99, body=b"[]"), StorageError, "not answer like a Hub"),
        (Fault("status", "/validate-yaml", "POST", 99, 400, body=REFUSED_CARD), DataError, "no licence"),
        (Fault("status", "", "POST", 99, 401), DataError, r"HTTP 401.*hf auth login"),
        (Fault("status", "/preupload/main", "POST", 99, 403), DataError, "may not write to ann/bench .*ann's"),
    ],
    ids=lambda value: f"{value.kind}-{value.status}-{value.ending[1:5]}" if isinstance(value, Fault) else "",
)  # fmt: skip
def test_what_stays_is_one_message_and_no_commit(
    server: HubServer, first: Published, fault: Fault, error: type[TaskmillError], message: str
) -> None:
    server.faults = [fault]
    with pytest.raises(error, match=message) as stopped:
        hub.send(first, NAME, tag="v1")
    assert len(str(stopped.value)) < 600 and "\n" not in str(stopped.value)
    assert NAME not in server.repositories or there(server) == {}
    server.faults = []
    objects, before = set(server.objects), len(server.sent)
    hub.send(first, NAME, tag="v1")
    assert there(server) == contents(first)
    assert not objects & {sha256 for sha256, _ in server.sent[before:]}, "what was sent is not sent again"


def test_no_token_reaches_anything(
    server: HubServer, first: Published, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: Any
) -> None:  # fmt: skip
    monkeypatch.setattr("huggingface_hub.constants.HF_DEBUG", True)
    own = io.StringIO()
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "handlers", [logging.StreamHandler(own)])
    for name in (None, "huggingface_hub", "httpx", "httpx2", "httpcore", "httpcore2", "taskmill"):
        caplog.set_level(logging.DEBUG, name)
    said = json.dumps({"error": f"the token {TOKEN} and https://u:{TOKEN}@x/y?sig={TOKEN}"}).encode()
    told = []
    for kind in ("status", "drop", "bytes", "lost", "body"):
        for method, ending in PLACES:
            for status in (400, 401, 403, 404, 409, 412, 500) if kind == "status" else (0,):
                server.repositories.clear()
                server.faults = [Fault(kind, ending, method, 99, status, {"X-Error-Message": TOKEN}, said)]
                try:
                    hub.send(first, NAME, tag="v1")
                except TaskmillError as error:
                    told.append(str(error))
    assert len(told) > 50
    for odd in (f"{TOKEN}\n{TOKEN}", "secret token, not a Hub's: \u00e9", "plainsecretplainsecret"):
        monkeypatch.setenv("HF_TOKEN", odd)
        server.faults = [
            Fault("status", "/create", "POST", 99, 400, body=json.dumps({"error": odd}).encode())
        ]
        with pytest.raises(TaskmillError) as stopped:
            hub.send(first, NAME)
        told.append(str(stopped.value))
    out, err = capfd.readouterr()
    everything = "\n".join((*told, out, err, caplog.text, *(r.getMessage() for r in caplog.records)))
    assert "aSecret" not in everything and "plainsecret" not in everything and "not a Hub's" not in everything
    assert "signed-for-one" not in everything, "addresses of uploads are signed"
    assert not own.getvalue(), "what the library logs goes through our log"
    assert not [p for p in first.folder.rglob("*") if p.is_file() and b"aSecret" in p.read_bytes()]


# ------------------------------------------------------------------------------------ rights and names


def test_logins(server: HubServer, first: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    server.writers = {TOKEN: ("bob",)}
    with pytest.raises(
        DataError, match=r"may not write to ann/bench \(HTTP 403: You don't have the rights.*OWNER/NAME"
    ):
        hub.send(first, NAME)
    server.writers = {TOKEN: ("ann",)}
    hub.send(first, NAME)
    server.writers = {TOKEN: ("bob",)}
    with pytest.raises(DataError, match=r"may not write to ann/bench \(HTTP 403"):
        hub.send(make_published(first.folder.parent / "x", SECOND), NAME)
    monkeypatch.setenv("HF_TOKEN", "hf_unknown")
    with pytest.raises(DataError, match=r"HTTP 401: Invalid credentials.*hf auth login"):
        hub.send(first, "ann/other")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(DataError, match=r"HTTP 401: Unauthorized.*hf auth login"):
        hub.send(first, "ann/other")


@pytest.mark.parametrize(
    "name", ["bench", "ann/", "/bench", "a/b/c", "ann/b ench", "ann/../x", "ann/b--c", "ann/x.git", "-a/b"]
)
def test_names_of_repositories_that_are_none(server: HubServer, first: Published, name: str) -> None:
    with pytest.raises(UsageError, match="expected OWNER/NAME"):
        hub.send(first, name)
    assert not server.requests


@pytest.mark.parametrize("tag", ["", "v 1", "main", "a..b", "v1.lock", "f" * 40, "-v1", "v1/x"])
def test_names_of_versions_that_are_none(server: HubServer, first: Published, tag: str) -> None:
    with pytest.raises(UsageError, match="name of a version"):
        hub.send(first, NAME, tag=tag)
    assert not server.requests


def test_private_repositories(server: HubServer, first: Published) -> None:
    sent = hub.send(first, NAME, private=True)
    assert sent.private and server.repositories[NAME].token == TOKEN
    assert hub.send(first, NAME).private, "it stays what it is"
    assert not hub.send(first, "ann/open").private
    with pytest.raises(UsageError, match=r"ann/open is public.*/datasets/ann/open/settings"):
        hub.send(first, "ann/open", private=True)


def test_repositories_that_hold_other_things(server: HubServer, first: Published) -> None:
    server.repositories[NAME] = Repository("1" * 40, {"model.safetensors": b"x"}, branch="main", kind="model")
    with pytest.raises(DataError, match="another kind of repository"):
        hub.send(first, NAME)
    for files in (
        {MANIFEST: b"{}"},
        {MANIFEST: b"\xff"},
        {"data/mine.csv": b"a,b\n"},
        {"croissant.json": b"{}", "tables/x.parquet": b"x"},
    ):
        server.repositories[NAME] = Repository("1" * 40, dict(files), branch="main")
        with pytest.raises(UsageError, match=r"ann/bench holds .*choose another OWNER/NAME"):
            hub.send(first, NAME)
        assert there(server) == dict(sorted(files.items()))
    server.repositories[NAME] = Repository("1" * 40, {"README.md": b"mine", "LICENSE": b"x"}, branch="main")
    hub.send(first, NAME)
    assert there(server) == dict(sorted({**contents(first), "LICENSE": b"x"}.items()))


def test_files_that_the_repository_ignores(server: HubServer, first: Published) -> None:
    server.repositories[NAME] = Repository("1" * 40, {".gitignore": b"drops.parquet\n"}, branch="main")
    with pytest.raises(UsageError, match=r"\.gitignore of ann/bench leaves out tables/drops\.parquet"):
        hub.send(first, NAME)
    assert len(there(server)) == 1


def test_a_listing_with_another_checksum(server: HubServer, first: Published) -> None:
    hub.send(first, "ann/other")
    server.repositories[NAME] = Repository("1" * 40, {}, branch="main")
    server.repositories[NAME].listed["tables/drops.parquet"] = {"oid": "f" * 40}
    with pytest.raises(DamagedError, match=r"tables/drops\.parquet has 10 bytes with digest f{40}; 10 with "):
        hub.send(first, NAME, tag="v1")
    assert not server.repositories[NAME].tags


def test_nobody_there(server: HubServer, first: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://user:aSecret@127.0.0.1:9")
    with pytest.raises(
        StorageError, match=r"the creation of ann/bench could not be sent to http://127\.0\.0\.1:9"
    ) as stopped:
        hub.send(first, NAME)
    assert "aSecret" not in str(stopped.value)


def test_a_folder_that_changed(server: HubServer, first: Published) -> None:
    (first.folder / "recipe/recipe.yaml").unlink()
    with pytest.raises(DamagedError, match=r"recipe\.yaml is missing or was changed"):
        hub.send(first, NAME)
    assert not server.requests


# ----------------------------------------------------------------------------------------- what others do


def meddling(server: HubServer, times: int, files: dict[str, bytes]) -> None:
    """Let somebody else commit right before we do."""
    left = [times]

    def hook(number: int, method: str, path: str) -> None:
        if path.endswith("/commit/main") and left[0]:
            left[0] -= 1
            repository = server.repositories[NAME]
            push(repository, {**repository.files, **files, "count": b"%d" % left[0]}, "mine")

    server.hook = hook


def test_commits_of_others(server: HubServer, first: Published, second: Published) -> None:
    meddling(server, 2, {"LICENSE": b"free"})
    sent = hub.send(first, NAME, tag="v1")
    assert there(server) == dict(sorted({**contents(first), "LICENSE": b"free", "count": b"0"}.items()))
    assert sent.num_commits == 1 and sent.commit == server.repositories[NAME].tags["v1"]
    meddling(server, 99, {})
    with pytest.raises(StorageError, match="changed by others 5 times"):
        hub.send(second, NAME)
    meddling(server, 1, {MANIFEST: b"{}"})
    with pytest.raises(UsageError, match=r"manifest\.json that is not of a published benchmark"):
        hub.send(second, NAME)
    server.hook = None
    server.repositories.clear()
    hub.send(first, NAME)
    theirs = make_published(second.folder.parent / "theirs", {"README.md": CARD, "ids/x.parquet": b"theirs"})
    meddling(server, 1, contents(theirs))
    with pytest.raises(
        DataError, match=r"another version was published to ann/bench meanwhile: commit [0-9a-f]{40}"
    ):
        hub.send(second, NAME)
    assert there(server)[MANIFEST] == contents(theirs)[MANIFEST]


def test_tags_never_move(server: HubServer, first: Published, second: Published) -> None:
    one = hub.send(first, NAME, tag="v1")
    requests = len(server.requests)
    again = hub.send(first, NAME, tag="v1")
    assert (again.commit, again.num_commits, again.num_sent) == (one.commit, 0, 0)
    assert not [
        r for r in server.requests[requests:] if r.startswith("PUT") or "/commit/" in r or "/tag/" in r
    ]
    with pytest.raises(
        DataError, match=rf"the tag v1 of ann/bench is commit {one.commit}; .*{one.commit}.*--tag v2"
    ):
        hub.send(second, NAME, tag="v1")
    assert there(server) == contents(first), "nothing was sent"
    two = hub.send(second, NAME, tag="v2")
    with pytest.raises(DataError, match=rf"is commit {one.commit}; .*{two.commit}.*--tag v3"):
        hub.send(second, NAME, tag="v1")
    repository = server.repositories[NAME]
    push(repository, {**repository.files, "LICENSE": b"x"}, "mine")
    assert hub.send(second, NAME, tag="v2").commit == two.commit, "the tag's commit holds the same benchmark"
    assert hub.send(second, NAME, tag="final").commit == repository.commit
    with pytest.raises(DataError, match="--tag final-2"):
        hub.send(first, NAME, tag="final")

    def take(number: int, method: str, path: str) -> None:
        if "/tag/" in path:
            repository.tags["v9"] = one.commit

    server.hook = take
    with pytest.raises(
        DataError, match=rf"the tag v9 of ann/bench is commit {one.commit}; RUN's benchmark is commit"
    ):
        hub.send(second, NAME, tag="v9")


def test_a_later_version_is_one_commit_and_leaves_nothing(
    server: HubServer, first: Published, second: Published
) -> None:
    hub.send(first, NAME)
    repository = server.repositories[NAME]
    push(repository, {**repository.files, "LICENSE": b"x", "data/mine.csv": b"a\n"}, "mine")
    before, sent_before = len(repository.history), len(server.sent)
    sent = hub.send(second, NAME)
    assert there(server) == dict(
        sorted({**contents(second), "LICENSE": b"x", "data/mine.csv": b"a\n"}.items())
    )
    assert len(repository.history) == before + 1 and len(server.sent) == sent_before + 1
    assert (sent.num_sent, sent.num_deleted, sent.num_commits, sent.num_files) == (4, 1, 1, 6)
    assert_manifests_hold(server)


def test_a_manifest_there_is_not_believed(server: HubServer, second: Published) -> None:
    listed = [{"path": name} for name in (".gitattributes", "../x", "gone.csv", "old.csv", "", 3, None)]
    body = {"format": "taskmill-benchmark", "files": [*listed, "plain", 7]}
    files = {MANIFEST: json.dumps(body).encode(), ".gitattributes": b"x", "old.csv": b"x", "mine.csv": b"x"}
    server.repositories[NAME] = Repository("1" * 40, files, branch="main")
    hub.send(second, NAME)
    assert there(server) == dict(sorted({**contents(second), "mine.csv": b"x"}.items()))
    assert server.repositories[NAME].files[".gitattributes"] == b"x"


def test_too_many_files_for_one_commit(
    server: HubServer, first: Published, second: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "MAX_OPERATIONS", 4)
    assert hub.send(first, NAME).num_commits == 5
    assert hub.send(second, NAME, tag="v2").num_commits == 4
    assert there(server) == contents(second)
    assert_manifests_hold(server)
    assert [MARK in files for files in server.repositories[NAME].history.values()][-4:] == [
        True,
        True,
        True,
        False,
    ]
    assert hub.send(second, NAME, tag="v2").num_commits == 0
