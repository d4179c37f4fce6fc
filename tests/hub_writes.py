"""The Hub's protocol for writing: create, check of the card, large files, commits and tags, on the server of `hub_server`."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from hub_server import Fault, Repository, _Handler

ATTRIBUTES = b"*.parquet filter=lfs diff=lfs merge=lfs -text\n"
"""What the Hub puts into a new repository."""


def body_of(handler: _Handler) -> bytes | None:
    """Read the body of a request, with a stated length or in chunks; None when the connection breaks in it."""
    if handler.headers.get("Transfer-Encoding", "").lower() != "chunked":
        size = int(handler.headers.get("Content-Length") or 0)
        body = handler.rfile.read(size)
        return body if len(body) == size else None
    parts = []
    while line := handler.rfile.readline():
        size = int(line.split(b";")[0], 16)
        parts.append(handler.rfile.read(size + 2)[:size])
        if not size:
            return b"".join(parts)
    return None


def answer(handler: _Handler, method: str, path: str, body: bytes, fault: Fault | None) -> None:
    """Do what is asked and answer, or break the connection before the answer."""
    with handler.hub.lock:
        status, said = _act(handler, method, path, body, fault)
    if fault is not None and fault.kind == "lost":
        handler.hang_up()
    elif isinstance(said, dict):
        handler.send_json(status, said)
    else:
        handler.send(status, b"", {})


def _act(
    handler: _Handler, method: str, path: str, body: bytes, fault: Fault | None
) -> tuple[int, dict[str, Any] | None]:
    """Return the status and the answer."""
    parts = path.strip("/").split("/")
    if method == "PUT" and parts[0] == "lfs":
        content = bytes(byte ^ 1 for byte in body) if fault is not None and fault.kind == "bytes" else body
        handler.hub.incoming[parts[1]] = content
        handler.hub.sent.append((parts[1], len(body)))
        return 200, None
    if path == "/api/validate-yaml":
        return _check_card(json.loads(body))
    refused = _refused(handler, json.loads(body) if path == "/api/repos/create" else None, parts)
    if refused is not None:
        return refused
    if path == "/api/repos/create":
        return _create(handler, json.loads(body))
    name = "/".join(parts[1:3] if parts[0] == "datasets" else parts[2:4]).removesuffix(".git")
    if parts[0] == "lfs-verify":
        return _verify(handler, json.loads(body)["oid"])
    repository = handler.hub.repositories.get(name)
    if repository is None or repository.kind != "dataset":
        return 404, {"error": "Repository not found"}
    if parts[-3:] == ["lfs", "objects", "batch"]:
        return 200, _batch(handler, json.loads(body))
    found = repository.at(parts[5])
    if found is None:
        return 404, {"error": f"no revision {parts[5]}"}
    if parts[4] == "preupload":
        return 200, {"files": [_mode(file, found[1]) for file in json.loads(body)["files"]]}
    if parts[4] == "tag":
        return _tag(repository, json.loads(body)["tag"], found[0])
    if parts[4] == "commit":
        return _commit(handler, repository, name, [json.loads(line) for line in body.splitlines()])
    return 404, {"error": f"no route {path}"}


def _refused(
    handler: _Handler, created: dict[str, Any] | None, parts: list[str]
) -> tuple[int, dict[str, Any]] | None:
    """Say that a token may not write here; None when it may."""
    token, writers = handler.token(), handler.hub.writers
    if not token or (writers is not None and token not in writers):
        return 401, {"error": "Invalid credentials in Authorization header" if token else "Unauthorized"}
    if created is not None:
        owner = str(created.get("organization"))
    else:
        owner = parts[1] if parts[0] in ("datasets", "lfs-verify") else parts[2]
    if writers is not None and owner not in writers[token]:
        return 403, {"error": f"You don't have the rights to write to the namespace {owner}"}
    return None


def _create(handler: _Handler, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    from hub_server import Repository

    name = f"{asked['organization']}/{asked['name']}"
    url = f"{handler.hub.url}/datasets/{name}"
    if name in handler.hub.repositories:
        return 409, {"error": "You already created this dataset repo", "url": url}
    private = asked.get("private") or asked.get("visibility") == "private"
    files = {".gitattributes": ATTRIBUTES}
    commit = _commit_id("", files)
    handler.hub.repositories[name] = Repository(
        commit,
        files,
        token=handler.token() if private else None,
        branch="main",
        kind=asked.get("type", "model"),
        history={commit: files},
        messages=["initial commit"],
    )
    return 200, {"url": url, "name": name}


def _check_card(asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    text = asked["content"]
    sound = not text.startswith("---") or "\n---" in text[3:]
    errors = [] if sound else [{"message": "the metadata block has no end"}]
    return (200 if sound else 400), {"errors": errors, "warnings": []}


def _mode(file: dict[str, Any], files: dict[str, bytes]) -> dict[str, Any]:
    from hub_server import LFS_FROM, blob_id

    path, held = file["path"], files.get(file["path"])
    ignored = any(path.endswith(line) for line in files.get(".gitignore", b"").decode().split())
    found: dict[str, Any] = {
        "path": path,
        "shouldIgnore": ignored,
        "uploadMode": "lfs" if file["size"] >= LFS_FROM else "regular",
    }
    if held is not None:
        found["oid"] = hashlib.sha256(held).hexdigest() if len(held) >= LFS_FROM else blob_id(held)
    return found


def _batch(handler: _Handler, asked: dict[str, Any]) -> dict[str, Any]:
    objects = []
    owner = urlsplit(handler.path).path.split("/")[2]
    for wanted in asked["objects"]:
        item: dict[str, Any] = {"oid": wanted["oid"], "size": wanted["size"]}
        if wanted["oid"] not in handler.hub.objects:
            url = handler.hub.url
            item["actions"] = {
                "upload": {"href": f"{url}/lfs/{wanted['oid']}?X-Amz-Signature=signed-for-one"},
                "verify": {"href": f"{url}/lfs-verify/{owner}"},
            }
        objects.append(item)
    return {"transfer": "basic", "objects": objects}


def _verify(handler: _Handler, oid: str) -> tuple[int, dict[str, Any]]:
    """Take an object that was sent when it has the checksum that it was announced with."""
    content = handler.hub.incoming.pop(oid, None)
    if content is not None and hashlib.sha256(content).hexdigest() == oid:
        handler.hub.objects[oid] = content
    if oid in handler.hub.objects:
        return 200, {}
    return 422, {"error": "the object has another checksum"}


def _tag(repository: Repository, name: str, commit: str) -> tuple[int, dict[str, Any]]:
    if name in repository.tags:
        return 409, {"error": "Tag already exists"}
    repository.tags[name] = commit
    return 200, {}


def _commit(
    handler: _Handler, repository: Repository, name: str, lines: list[dict[str, Any]]
) -> tuple[int, dict[str, Any]]:
    """Make a commit of all that is listed, or of nothing."""
    files, header = dict(repository.files), lines[0]["value"]
    if header.get("parentCommit", repository.commit) != repository.commit:
        return 412, {"error": "A commit has happened since. Please refresh and try again."}
    for line in lines[1:]:
        value = line["value"]
        if line["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif line["key"] == "lfsFile" and value["oid"] not in handler.hub.objects:
            return 400, {"error": f"LFS pointer pointed to a file that does not exist: {value['path']}"}
        elif line["key"] == "lfsFile":
            files[value["path"]] = handler.hub.objects[value["oid"]]
        elif value["path"] not in files:
            return 404, {"error": "A file with this name doesn't exist"}
        else:
            del files[value["path"]]
    commit = push(repository, files, header["summary"])
    return 200, {
        "success": True,
        "commitOid": commit,
        "commitUrl": f"{handler.hub.url}/datasets/{name}/commit/{commit}",
    }


def push(repository: Repository, files: dict[str, bytes], message: str) -> str:
    """Make a commit of these files, as somebody else may; returns it."""
    commit = _commit_id(repository.commit, files)
    repository.history.setdefault(repository.commit, repository.files)
    repository.history[commit] = files
    repository.messages.append(message)
    repository.commit, repository.files = commit, files
    return commit


def _commit_id(parent: str, files: dict[str, bytes]) -> str:
    listed = [(path, hashlib.sha256(content).hexdigest()) for path, content in sorted(files.items())]
    return hashlib.sha1(repr((parent, listed)).encode()).hexdigest()
