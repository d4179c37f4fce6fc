"""A Hub of our own on the loopback address: the routes that reading data sets and models needs, and faults on demand."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

LFS_FROM = 1000
"""Files of at least so many bytes are large ones, known by their sha256."""


@dataclass
class Fault:
    """What goes wrong with the next `times` requests of a method for a path that ends like `ending`."""

    kind: str
    """`status`, `drop` (the connection breaks midway), `bytes` (other content), `short` (too few bytes), `body`."""
    ending: str = ""
    method: str = "GET"
    times: int = 1
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"{}"
    """What `status` and `body` send; `body` with the status 200."""


@dataclass
class Repository:
    """A repository of a data set or a model, with one commit."""

    commit: str
    files: dict[str, bytes]
    token: str | None = None
    """Who does not show it is told that there is no such repository."""
    gated: bool = False
    branch: str | None = None
    """A name of the commit."""
    listed: dict[str, dict[str, object]] = field(default_factory=dict)
    """Changes to what is said of a file."""


class HubServer:
    """Repositories, faults, and the requests so far as `METHOD path`."""

    def __init__(self) -> None:
        """Serve until the `with` block of `serve` ends."""
        self.repositories: dict[str, Repository] = {}
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.ranges: list[str] = []
        self.url = ""

    def fault(self, method: str, path: str) -> Fault | None:
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
        self._answer("HEAD")

    def do_GET(self) -> None:
        self._answer("GET")

    def _answer(self, method: str) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{method} {path}")
        fault = self.hub.fault(method, path)
        if fault is not None and fault.kind in ("status", "body"):
            self._send(fault.status if fault.kind == "status" else 200, fault.body, fault.headers)
            return
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "datasets"] and parts[4:5] in (["tree"], ["revision"]):
            name, commit, rest = "/".join(parts[2:4]), parts[5], "/".join(parts[6:])
        elif parts[:1] == ["datasets"] and parts[3:4] == ["resolve"]:
            name, commit, rest = "/".join(parts[1:3]), parts[4], "/".join(parts[5:])
        elif parts[2:3] == ["resolve"]:
            name, commit, rest = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
        else:
            self._send(404, b"{}", {})
            return
        repository = self.hub.repositories.get(name)
        shown = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if repository is None or (repository.token is not None and shown != repository.token):
            self._send(401 if repository else 404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif repository.gated:
            self._send(403, b"{}", {"X-Error-Code": "GatedRepo"})
        elif commit not in (repository.commit, repository.branch):
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif parts[0] == "api" and parts[4] == "tree":
            self._send(200, json.dumps(_tree(repository, rest)).encode(), {})
        elif parts[0] == "api":
            body = {
                "id": name,
                "sha": commit,
                "siblings": [{"rfilename": f} for f in sorted(repository.files)],
            }
            self._send(200, json.dumps(body).encode(), {})
        elif rest not in repository.files:
            headers = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": repository.commit}
            self._send(404, b"{}", headers)
        else:
            self._file(method, repository, rest, fault)

    def _file(self, method: str, repository: Repository, path: str, fault: Fault | None) -> None:
        content = repository.files[path]
        etag = hashlib.sha256(content).hexdigest() if len(content) >= LFS_FROM else blob_id(content)
        headers = {"X-Repo-Commit": repository.commit, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
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
        self._send(status, body, headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "Connection": "close", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _tree(repository: Repository, below: str) -> list[dict[str, object]]:
    """Return the listing of a repository: folders, then files, as the Hub states them."""
    folders = sorted(
        {
            "/".join(path.split("/")[:depth])
            for path in repository.files
            for depth in range(1, path.count("/") + 1)
        }
    )
    listed: list[dict[str, object]] = [
        {"type": "directory", "oid": "0" * 40, "size": 0, "path": path} for path in folders
    ]
    for path, content in sorted(repository.files.items()):
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
    return [item for item in listed if not below or str(item["path"]).startswith(below + "/")]
