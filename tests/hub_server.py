"""A Hub of our own on the loopback address: the routes that reading and publishing need, and faults on demand.

Reading is here, writing in `hub_writes`. Every commit is kept, so that a test can look at each of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import hub_writes

LFS_FROM = 1000
"""Files of at least so many bytes are large ones, known by their sha256."""


@dataclass
class Fault:
    """What goes wrong with the next `times` requests of a method for a path that ends like `ending`."""

    kind: str
    """`status`, `drop` (the connection breaks midway), `bytes` (other content), `short` (too few bytes), `body`, `slow`,
    `lost` (what is asked is done, and the connection breaks before the answer)."""
    ending: str = ""
    method: str = "GET"
    times: int = 1
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"{}"
    """What `status` and `body` send; `body` with the status 200."""
    seconds: float = 0.0
    """How long `slow` waits before it goes on as if nothing were wrong."""


@dataclass
class Repository:
    """A repository of a data set or a model: the files of its newest commit, and those of the earlier ones."""

    commit: str
    files: dict[str, bytes]
    token: str | None = None
    """Who does not show it is told that there is no such repository."""
    gated: bool = False
    branch: str | None = None
    """A name of the commit."""
    listed: dict[str, dict[str, object]] = field(default_factory=dict)
    """Changes to what is said of a file."""
    kind: str = "dataset"
    tags: dict[str, str] = field(default_factory=dict)
    """Commits by tag."""
    history: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """The files of every commit that was made here, oldest first."""
    messages: list[str] = field(default_factory=list)
    """The first line of each of them."""

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Return the commit that a commit, branch or tag means, and its files."""
        revision = self.tags.get(revision, revision)
        if revision in (self.commit, self.branch):
            return self.commit, self.files
        return (revision, self.history[revision]) if revision in self.history else None


class HubServer:
    """Repositories, faults, and the requests so far as `METHOD path`."""

    def __init__(self) -> None:
        """Serve until the `with` block of `serve` ends."""
        self.repositories: dict[str, Repository] = {}
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.ranges: list[str] = []
        self.url = ""
        self.objects: dict[str, bytes] = {}
        """Large files that were sent and verified, by sha256."""
        self.incoming: dict[str, bytes] = {}
        """Those that were sent alone."""
        self.sent: list[tuple[str, int]] = []
        """What was sent of them, in order: sha256 and bytes."""
        self.writers: dict[str, tuple[str, ...]] | None = None
        """Owners by the token that may write theirs; None lets every token write everywhere."""
        self.hook: Callable[[int, str, str], object] | None = None
        """Called with the number of each request, its method and path, before it is answered; False refuses to answer."""
        self.lock = threading.RLock()

    def fault(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times and fault.method == method and path.endswith(fault.ending):
                    fault.times -= 1
                    return fault
        return None


@contextlib.contextmanager
def serve() -> Iterator[HubServer]:
    """Run a Hub on a free port of the loopback address."""
    hub = HubServer()

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def blob_id(content: bytes) -> str:
    """Return git's id of a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._begin("HEAD")

    def do_GET(self) -> None:
        self._begin("GET")

    def do_POST(self) -> None:
        self._begin("POST")

    def do_PUT(self) -> None:
        self._begin("PUT")

    def token(self) -> str:
        """Return the token that is shown, "" for none."""
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ")

    def _begin(self, method: str) -> None:
        """Note the request, let what is planned go wrong with it, and answer."""
        path = unquote(urlsplit(self.path).path)
        with self.hub.lock:
            self.hub.requests.append(f"{method} {path}")
            number = len(self.hub.requests)
        if self.hub.hook is not None and self.hub.hook(number, method, path) is False:
            self.hang_up()
            return
        fault = self.hub.fault(method, path)
        if fault is not None and fault.kind == "slow":
            threading.Event().wait(fault.seconds)  # tests take `time.sleep` away
        if fault is not None and fault.kind == "drop" and method in ("POST", "PUT"):
            self.rfile.read(int(self.headers.get("Content-Length") or 0) // 2)
            self.hang_up()
            return
        body = hub_writes.body_of(self) if method in ("POST", "PUT") else b""
        if body is None:
            self.hang_up()
        elif fault is not None and fault.kind in ("status", "body"):
            self.send(fault.status if fault.kind == "status" else 200, fault.body, fault.headers)
        elif method in ("POST", "PUT"):
            hub_writes.answer(self, method, path, body, fault)
        else:
            self._answer(method, path, fault)

    def hang_up(self) -> None:
        """Break the connection."""
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def _answer(self, method: str, path: str, fault: Fault | None) -> None:
        parts = path.strip("/").split("/")
        rest = ""
        if parts[:2] == ["api", "datasets"] and parts[4:5] in (["tree"], ["revision"]):
            name, revision, rest = "/".join(parts[2:4]), parts[5], "/".join(parts[6:])
        elif parts[:2] == ["api", "datasets"] and parts[4:] in ([], ["refs"]):
            name, revision = "/".join(parts[2:4]), None
        elif parts[:1] == ["datasets"] and parts[3:4] == ["resolve"]:
            name, revision, rest = "/".join(parts[1:3]), parts[4], "/".join(parts[5:])
        elif parts[2:3] == ["resolve"]:
            name, revision, rest = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
        else:
            self.send(404, b"{}", {})
            return
        repository = self.readable(name, parts[0] == "api")
        if repository is None:
            return
        found = repository.at(repository.commit if revision is None else revision)
        if found is None:
            self.send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif parts[0] == "api" and parts[4:] == ["refs"]:
            self.send_json(200, _refs(repository))
        elif parts[0] == "api" and parts[4:5] == ["tree"]:
            wanted = parse_qs(urlsplit(self.path).query).get("recursive", ["true"])[0].lower() != "false"
            self.send_json(200, _tree(repository, found[1], rest, wanted))
        elif parts[0] == "api":
            self.send_json(200, _info(name, repository, *found))
        elif rest not in found[1]:
            self.send(404, b"{}", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": found[0]})
        else:
            self._file(method, found[0], found[1][rest], fault)

    def readable(self, name: str, as_dataset: bool) -> Repository | None:
        """Return a repository that may be read; None when it was said why not."""
        repository = self.hub.repositories.get(name)
        if repository is not None and as_dataset and repository.kind != "dataset":
            repository = None
        if repository is None or (repository.token is not None and self.token() != repository.token):
            self.send(401 if repository else 404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif repository.gated:
            self.send(403, b"{}", {"X-Error-Code": "GatedRepo"})
        else:
            return repository
        return None

    def _file(self, method: str, commit: str, content: bytes, fault: Fault | None) -> None:
        etag = hashlib.sha256(content).hexdigest() if len(content) >= LFS_FROM else blob_id(content)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        status, start = 200, 0
        wanted = self.headers.get("Range")
        if wanted and method == "GET":
            self.hub.ranges.append(wanted)
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            status = 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body = content[start:]
        if fault is not None and fault.kind == "bytes":
            body = bytes(byte ^ 1 for byte in body)
        if fault is not None and fault.kind == "short":
            body = body[: len(body) // 2]
        if fault is not None and fault.kind == "drop":
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.close_connection = True
            return
        self.send(status, body, headers)

    def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "Connection": "close", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body)

    def send_json(self, status: int, body: object) -> None:
        """Answer with an object."""
        self.send(status, json.dumps(body).encode(), {"Content-Type": "application/json"})


def _info(name: str, repository: Repository, commit: str, files: dict[str, bytes]) -> dict[str, object]:
    siblings = [{"rfilename": path} for path in sorted(files)]
    return {"id": name, "sha": commit, "private": repository.token is not None, "siblings": siblings}


def _refs(repository: Repository) -> dict[str, object]:
    branch = repository.branch or "main"
    return {
        "branches": [{"name": branch, "ref": f"refs/heads/{branch}", "targetCommit": repository.commit}],
        "converts": [],
        "tags": [
            {"name": name, "ref": f"refs/tags/{name}", "targetCommit": commit}
            for name, commit in sorted(repository.tags.items())
        ],
    }


def _tree(
    repository: Repository, files: dict[str, bytes], below: str, recursive: bool
) -> list[dict[str, object]]:
    """Return the listing of a commit: folders, then files, as the Hub states them."""
    folders = sorted(
        {"/".join(path.split("/")[:depth]) for path in files for depth in range(1, path.count("/") + 1)}
    )
    listed: list[dict[str, object]] = [
        {"type": "directory", "oid": "0" * 40, "size": 0, "path": path} for path in folders
    ]
    for path, content in sorted(files.items()):
        item: dict[str, object] = {
            "type": "file",
            "oid": blob_id(content),
            "size": len(content),
            "path": path,
        }
        if len(content) >= LFS_FROM:
            sha256 = hashlib.sha256(content).hexdigest()
            item["oid"] = "1" * 40
            item["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 134}
        listed.append({**item, **repository.listed.get(path, {})})
    listed = [item for item in listed if not below or str(item["path"]).startswith(below + "/")]
    depth = len(below.split("/")) if below else 0
    return [item for item in listed if recursive or str(item["path"]).count("/") == depth]
