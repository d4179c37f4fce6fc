"""Sending a published folder to a data set repository of the Hub, so that whoever finds its manifest finds all that it names.

What the repository has is never sent again. Large files go first, as objects that no commit names yet; then one commit has
every other file, the deletions of what an earlier version left, and the manifest. A benchmark of too many files for one commit
is sent in several: the first puts a mark in the manifest's place, the last has the manifest. Whatever interrupts this, the
same call again finishes it. A tag is made last, and never moves.
"""

from __future__ import annotations

import copy
import itertools
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from taskmill.errors import DamagedError, DataError, StorageError, TaskmillError, UsageError
from taskmill.hub_client import COMMIT, Hub, status_of
from taskmill.splits.publishing.published import CARD, CROISSANT, FORMAT, MANIFEST, Published
from taskmill.splits.publishing.sending import remote
from taskmill.splits.publishing.sending.refusals import ConflictError, explainer
from taskmill.splits.publishing.sending.remote import MARK, Changes, Head, LocalFile
from taskmill.storage import canonical_json

log = logging.getLogger("taskmill")

MAX_OPERATIONS = 20_000
"""Files of one commit: the Hub takes about 25,000."""
CONFLICTS = 5
"""Commits of others in a row, between looking and committing, that are waited out."""
_GROUP_FILES, _GROUP_BYTES = 256, 1 << 30
"""Large files that are sent together; after each group it is told how far it is."""
_LAST = (CARD, CROISSANT, MANIFEST)
_NAME = re.compile(r"\w(?:[\w.-]{0,94}\w)?", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9][\w.+-]*", re.ASCII)


@dataclass(frozen=True)
class Sent:
    """What a repository holds after publishing, and what was done for it."""

    repository: str
    page: str
    commit: str
    tag: str | None
    private: bool
    num_files: int
    num_bytes: int
    num_sent: int
    num_bytes_sent: int
    num_deleted: int
    num_commits: int


def check_names(repository: str, tag: str | None) -> None:
    """Check that a repository and a tag may be called so, without asking anybody.

    Raises:
        UsageError: they may not.
    """
    owner, _, name = repository.partition("/")
    sound = all(_NAME.fullmatch(part) and ".." not in part and "--" not in part for part in (owner, name))
    if not sound or name.endswith(".git"):
        raise UsageError(
            f"{repository!r} is no name of a repository; expected OWNER/NAME of letters, digits, '-', '_' and '.', such as "
            "ann/harbour-bench"
        )
    wrong = tag is not None and (not _TAG.fullmatch(tag) or ".." in tag or tag.endswith((".", ".lock")))
    if wrong or tag == "main" or (tag is not None and COMMIT.fullmatch(tag)):
        raise UsageError(f"{tag!r} is no name of a version; expected one like v1 or v1.2")


def send(
    published: Published,
    repository: str,
    private: bool = False,
    tag: str | None = None,
    replace: bool = False,
) -> Sent:
    """Make a repository hold a published folder, and nothing that an earlier version of it left.

    Args:
        published: the finished folder.
        repository: `owner/name`; made when there is none.
        private: make a new repository private.
        tag: a name for the commit.
        replace: take the place of another benchmark that the repository holds.

    Raises:
        UsageError: the repository may not be called so, is public where a private one was asked for, or holds other things or
            another benchmark.
        DataError: no right to write, a tag of another commit, or somebody published there meanwhile.
        StorageError: the Hub cannot be reached or fails, again and again.
        DamagedError: the Hub holds other bytes than were sent.
        MissingPackageError: huggingface_hub is not installed.
    """
    check_names(repository, tag)
    local = remote.local_files(published)
    hub = Hub(repository, purpose="Publishing {} on the Hub")
    _create(hub, private)
    head = _look(hub)
    if private and not head.private:
        raise UsageError(
            f"{repository} is public, and --private makes new repositories only: change it at {hub.page}/settings, choose "
            "another name, or publish without --private"
        )
    instead_of = None if replace else published
    todo = remote.changes(hub, head, local, instead_of)
    if tag is not None:
        _check_tag(hub, tag, head, local, bool(todo))
    commit, sent, deleted, num_commits = _bring_up_to_date(hub, head, todo, local, instead_of)
    if tag is not None:
        commit = _tag(hub, tag, commit, local)
    return Sent(
        repository,
        hub.page,
        commit,
        tag,
        head.private,
        len(local),
        sum(file.size for file in local.values()),
        len(sent),
        sum(local[path].size for path in sent),
        len(deleted),
        num_commits,
    )


# -------------------------------------------------------------------------------------------- commits


def _bring_up_to_date(
    hub: Hub, head: Head, todo: Changes, local: dict[str, LocalFile], instead_of: Published | None
) -> tuple[str, set[str], set[str], int]:
    """Commit until the newest commit holds the folder; returns it, what was sent and deleted, and the number of commits."""
    sent, deleted, num_commits, num_conflicts = set[str](), set[str](), 0, 0
    expected = {head.manifest, None}
    while todo:
        sent |= set(todo.add)
        deleted |= set(todo.delete) - {MARK}
        try:
            for batch in _batches(head, todo):
                head = _commit(hub, head, batch)
                num_commits += 1
            _require_all(hub, head, local)
            break
        except ConflictError as error:
            num_conflicts += 1
            if num_conflicts == CONFLICTS:
                raise StorageError(
                    f"{hub.repository} was changed by others {CONFLICTS} times while it was published; run the same command "
                    "again"
                ) from error
        head = _look(hub)
        log.info("hub: %s: it has a new commit %s; looking again", hub.repository, (head.commit or "")[:12])
        todo = remote.changes(hub, head, local, instead_of)
        num_commits += not todo  # it was made, and the answer lost
        if todo and head.manifest not in expected:
            raise remote.other_version(hub, head)
    assert head.commit is not None
    return head.commit, sent, deleted, num_commits


def _require_all(hub: Hub, head: Head, local: dict[str, LocalFile]) -> None:
    """Check that a commit lists what was sent.

    Raises:
        DamagedError: it does not.
    """
    problem = remote.differing(head.files, local)
    if problem is not None:
        raise DamagedError(
            f"{hub.repository} does not hold what was sent: at commit {head.commit} {problem}; run the same command again, "
            "and if that does not help, delete that file there first"
        )


@dataclass(frozen=True)
class _Batch:
    """One commit."""

    add: dict[str, LocalFile | bytes]
    delete: list[str]
    is_last: bool


def _batches(head: Head, todo: Changes) -> Iterator[_Batch]:
    """Yield the commits that changes take: one, or several with the manifest in none but the last."""
    if len(todo.add) + len(todo.delete) <= MAX_OPERATIONS:
        yield _Batch(dict(todo.add), list(todo.delete), True)
        return
    mark = canonical_json({"format": FORMAT, "files": sorted(todo.known)})
    first_add: dict[str, LocalFile | bytes] = {MARK: mark}
    first_delete = [MANIFEST] if MANIFEST in head.files else []
    early = [path for path in todo.add if path not in _LAST] + [
        p for p in todo.delete if p not in (MARK, MANIFEST)
    ]
    size = max(1, MAX_OPERATIONS - len(_LAST))
    for start in range(0, len(early), size):
        chosen = early[start : start + size]
        add = {path: todo.add[path] for path in chosen if path in todo.add}
        delete = [path for path in chosen if path not in todo.add]
        yield _Batch(
            {**add, **(first_add if not start else {})}, delete + (first_delete if not start else []), False
        )
    last = {**todo.add, MANIFEST: todo.manifest}
    yield _Batch({path: last[path] for path in _LAST if path in last}, [MARK], True)


def _commit(hub: Hub, head: Head, batch: _Batch) -> Head:
    """Send the large files of a batch, then commit it on top of `head`; returns the new head.

    Raises:
        ConflictError: `head` is no longer the newest commit.
    """
    library = hub.library
    adds = [
        library.CommitOperationAdd(path, file if isinstance(file, bytes) else str(file.place))
        for path, file in sorted(batch.add.items())
    ]
    _preupload(hub, adds)
    deletes = [library.CommitOperationDelete(path, is_folder=False) for path in sorted(batch.delete)]

    def ask() -> str:
        done = hub.api.create_commit(
            hub.repository,
            [*map(copy.copy, adds), *deletes],  # some versions of the library take an operation once
            commit_message="Publish the benchmark" if batch.is_last else "Publish a part of the benchmark",
            repo_type="dataset",
            parent_commit=head.commit,
        )
        return str(done.oid)

    log.info("hub: %s: committing %d files, deleting %d", hub.repository, len(adds), len(deletes))
    commit = hub.patiently(ask, "the commit", explainer(hub))
    return Head(commit, head.private, remote.listing(hub, commit))


def _preupload(hub: Hub, adds: Sequence[Any]) -> None:
    """Send the large files; what the Hub has already is not sent again."""
    total, num_done, done = sum(add.upload_info.size for add in adds), 0, 0
    for group in _groups(adds):

        def ask(group: list[Any] = group) -> None:
            hub.api.preupload_lfs_files(hub.repository, group, repo_type="dataset", free_memory=False)

        hub.patiently(ask, "the upload", explainer(hub))
        ignored = [add.path_in_repo for add in group if getattr(add, "_should_ignore", False)]
        if ignored:
            raise UsageError(
                f"the .gitignore of {hub.repository} leaves out {ignored[0]}: take that line out of it at {hub.page}"
            )
        num_done += len(group)
        done += sum(add.upload_info.size for add in group)
        log.info("hub: %s: %d of %d files, %d of %d bytes", hub.repository, num_done, len(adds), done, total)


def _groups(adds: Sequence[Any]) -> Iterator[list[Any]]:
    group: list[Any] = []
    size = 0
    for add in adds:
        if group and (len(group) == _GROUP_FILES or size + add.upload_info.size > _GROUP_BYTES):
            yield group
            group, size = [], 0
        group.append(add)
        size += add.upload_info.size
    if group:
        yield group


# ---------------------------------------------------------------------------- the repository and its tags


def _create(hub: Hub, private: bool) -> None:
    """Make the repository when there is none; its visibility is the account's usual one unless `private`."""

    def ask() -> None:
        hub.api.create_repo(
            hub.repository, repo_type="dataset", private=True if private else None, exist_ok=True
        )

    hub.patiently(ask, "the creation", explainer(hub))


def _look(hub: Hub) -> Head:
    def ask() -> Any:
        return hub.api.repo_info(hub.repository, revision="main", repo_type="dataset")

    def explain(error: BaseException, what: str) -> TaskmillError | None:
        if status_of(error) not in (401, 404):
            return None
        return DataError(
            f"{hub.repository} is there and no data set that this login may see (HTTP {status_of(error)}): it is another kind of "
            "repository or somebody else's; choose another OWNER/NAME"
        )

    found = hub.patiently(ask, "the newest commit", explain)
    commit = None if found.sha is None else str(found.sha)
    return Head(commit, bool(found.private), remote.listing(hub, commit))


def _tags(hub: Hub) -> dict[str, str]:
    def ask() -> dict[str, str]:
        refs = hub.api.list_repo_refs(hub.repository, repo_type="dataset")
        return {tag.name: str(tag.target_commit) for tag in refs.tags}

    return hub.patiently(ask, "the list of tags")


def _check_tag(hub: Hub, tag: str, head: Head, local: dict[str, LocalFile], behind: bool) -> None:
    """Refuse a tag that names another version, before anything is sent."""
    tags = _tags(hub)
    if tag not in tags or (not behind and tags[tag] == head.commit):
        return
    if behind or remote.differing(remote.listing(hub, tags[tag]), local) is not None:
        raise _moved(
            hub, tag, tags, f"the newest commit is {head.commit}, and RUN's benchmark is another version"
        )


def _tag(hub: Hub, tag: str, commit: str, local: dict[str, LocalFile]) -> str:
    """Name a commit; returns the commit that has the name, which holds the same."""

    def ask() -> None:
        hub.api.create_tag(hub.repository, tag=tag, revision=commit, repo_type="dataset")

    tags = _tags(hub)
    if tag not in tags:
        try:
            hub.patiently(ask, f"the tag {tag}", explainer(hub))
            return commit
        except ConflictError:
            tags = _tags(hub)
    if tags.get(tag) != commit and remote.differing(remote.listing(hub, tags.get(tag)), local) is not None:
        raise _moved(hub, tag, tags, f"RUN's benchmark is commit {commit}")
    return tags[tag]


def _moved(hub: Hub, tag: str, tags: dict[str, str], now: str) -> DataError:
    number = re.search(r"\d*$", tag)
    assert number is not None
    stem, first = (tag[: number.start()], int(number[0])) if number[0] else (f"{tag}-", 1)
    names = (f"{stem}{n}" for n in itertools.count(first + 1))
    following = next(name for name in names if name not in tags)
    return DataError(
        f"the tag {tag} of {hub.repository} is commit {tags.get(tag)}; {now}. A tag never moves: choose another, such as "
        f"--tag {following}"
    )
