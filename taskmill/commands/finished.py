"""A run as its views read it: the finished stages, rows by id, tokens as text. Reads everything, writes nothing.

    run = FinishedRun(Path("runs/demo"))
    run.find("render", "prompts", "example", {"flan/news#12"})

Rows of large tables are looked up column first, so that a view of a large run reads the files it shows and no others.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from taskmill.artifact import Inputs, Manifest, read_manifest
from taskmill.errors import DamagedError, UsageError, did_you_mean
from taskmill.records import DIRECTORIES, SCHEMAS
from taskmill.stages import NAMES
from taskmill.storage import iter_batches, read_rows, read_table

if TYPE_CHECKING:
    from taskmill.training.encoding.tokenizer import TextTokenizer
    from taskmill.training.tokens import Tokens

Row = dict[str, Any]


class FinishedRun:
    """The finished stages of a run directory."""

    def __init__(self, run: Path) -> None:
        """Find the stages that are finished.

        Raises:
            UsageError: the folder is missing or holds no finished stage.
            DamagedError: a manifest was changed.
        """
        if not run.is_dir():
            raise UsageError(f"there is no run {run}; `taskmill run RECIPE` makes one")
        self.run = run
        self.manifests: dict[str, Manifest] = {}
        for stage in NAMES:
            manifest = read_manifest(run / DIRECTORIES[stage])
            if manifest is not None:
                self.manifests[stage] = manifest
        tokens = _newest_tokens(run, self.manifests.get("train"))
        if tokens is not None:
            self.manifests["tokenize"] = tokens
        self.manifests = {stage: self.manifests[stage] for stage in NAMES if stage in self.manifests}
        if not self.manifests:
            raise UsageError(f"{run} holds no finished stage; `taskmill run RECIPE` makes one")
        self.inputs = Inputs({stage: m.directory for stage, m in self.manifests.items()})

    def has(self, stage: str) -> bool:
        """Return whether a stage is finished."""
        return stage in self.manifests

    def command(self, stage: str) -> str:
        """Return the command that makes a stage."""
        return f"taskmill {stage} {self.run}"

    def require(self, stage: str) -> None:
        """Check that a stage is finished.

        Raises:
            UsageError: it is not; the message names the command that makes it.
        """
        if not self.has(stage):
            raise UsageError(
                f"the stage {stage!r} of {self.run} is not finished: run `{self.command(stage)}` first"
            )

    @cached_property
    def recipe(self) -> Row:
        """`recipe.json`: values, origins, text; empty when the run has none."""
        return self.json_file(self.run / "recipe.json")

    def json_file(self, path: Path) -> Row:
        """Return the object in a JSON file, empty when there is no such file.

        Raises:
            DamagedError: the file does not hold a JSON object.
        """
        if not path.is_file():
            return {}
        try:
            body = json.loads(path.read_bytes())
        except ValueError as error:
            raise DamagedError(f"{path} is not JSON: {error}") from error
        if not isinstance(body, dict):
            raise DamagedError(f"{path} does not hold a JSON object")
        return body

    def table(self, stage: str, table: str, columns: Sequence[str] | None = None) -> pa.Table | None:
        """Read a whole table; None when the stage is not finished or has no such table.

        Raises:
            UsageError: the table lacks columns, as it was written by another version of Taskmill.
        """
        if not self.has(stage) or not self.inputs.files(stage, table):
            return None
        found = self.inputs.table(stage, table, columns)
        schema = SCHEMAS.get(f"{DIRECTORIES[stage]}/{table}")
        wanted = columns or (schema.names if schema is not None else ())
        missing = sorted(set(wanted) - set(found.column_names))
        if missing:
            raise UsageError(
                f"{self.run}: {DIRECTORIES[stage]}/{table} has no column {', '.join(missing)}: another version of "
                f"Taskmill wrote it; make it again with `{self.command(stage)} --force`"
            )
        return found

    def rows(self, stage: str, table: str, columns: Sequence[str] | None = None) -> list[Row]:
        """Return a whole table as a list of rows; empty when there is none."""
        found = self.table(stage, table, columns)
        return found.to_pylist() if found is not None else []

    @cached_property
    def tasks(self) -> dict[str, Row]:
        """Rows of tasks/tasks by task id."""
        return {row["task"]: row for row in self.rows("curate", "tasks")}

    def matching(self, pattern: str | None, names: Collection[str] | None = None) -> list[str]:
        """Return the tasks that a shell pattern matches, all of them for None.

        Raises:
            UsageError: none does; the message names the nearest.
        """
        known = sorted(self.tasks if names is None else names)
        if pattern is None:
            return known
        found = [name for name in known if fnmatchcase(name, pattern)] or [n for n in known if n == pattern]
        if not found:
            hint = did_you_mean(pattern, known) or f"; `taskmill inspect {self.run} curate` lists them"
            raise UsageError(f"no task matches {pattern!r}{hint}")
        return found

    def find(
        self, stage: str, table: str, column: str, values: Collection[str], limit: int | None = None
    ) -> list[Row]:
        """Return the rows whose `column` is among `values`, each with `row`, its number over the table's files."""
        if not self.has(stage):
            return []
        wanted, found, first = pa.array(sorted(values), pa.string()), list[Row](), 0
        for path in self.inputs.files(stage, table):
            keys = read_table(path, [column]).column(column)
            places = pc.indices_nonzero(pc.is_in(keys, value_set=wanted)).to_pylist()
            if places:
                places = places[: None if limit is None else limit - len(found)]
                rows = read_rows(path, places).to_pylist()
                found += [{**row, "row": first + place} for row, place in zip(rows, places)]
            first += len(keys)
            if limit is not None and len(found) >= limit:
                break
        return found

    def spread(
        self, stage: str, table: str, tasks: Collection[str], count: int, **where: str | int
    ) -> list[Row]:
        """Return `count` rows, taken in turn from as many of `tasks` as there are; in table order within a task.

        `where` gives columns the value that they must have.
        """
        if not self.has(stage):
            return []
        taken: dict[str, list[Row]] = {}
        wanted = pa.array(sorted(tasks), pa.string())
        for path in self.inputs.files(stage, table):
            keys = read_table(path, ["task", *where])
            fits = pc.is_in(keys.column("task"), value_set=wanted)
            for name, value in where.items():
                fits = pc.and_(fits, pc.fill_null(pc.equal(keys.column(name), value), False))
            places = list[int]()
            for place in pc.indices_nonzero(fits).to_pylist():
                rows = taken.setdefault(keys.column("task")[place].as_py(), [])
                if len(rows) < count:
                    rows.append({})
                    places.append(place)
            if places:
                for row in read_rows(path, places).to_pylist():
                    mine = taken[row["task"]]
                    mine[mine.index({})] = row
            if len(taken) >= count:
                break
        turns = [rows[turn] for turn in range(count) for rows in taken.values() if turn < len(rows)]
        return turns[:count]

    def examples(self, ids: Collection[str]) -> dict[str, Row]:
        """Return rows of tasks/examples by id, reading only the shards of the tasks that the ids name."""
        shards = {self.tasks[t]["shard"] for t in (i.split("#", 1)[0] for i in ids) if t in self.tasks}
        found: dict[str, Row] = {}
        wanted = pa.array(sorted(ids), pa.string())
        files = self.inputs.files("curate", "examples") if self.has("curate") and ids else []
        named = [path for path in files if path.stem in shards]
        for path in named or files:
            for batch in iter_batches(path):
                part = batch.filter(pc.is_in(batch.column("example"), value_set=wanted))
                found.update({row["example"]: row for row in part.to_pylist()})
        return found

    def shares(self, stage: str) -> list[dict[str, str]]:
        """Return the rows of a stage's `shares.csv`; empty when there is none."""
        path = self.manifests[stage].directory / "shares.csv" if self.has(stage) else None
        if path is None or not path.is_file():
            return []
        return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))

    @cached_property
    def metrics(self) -> list[Row]:
        """The lines of model/metrics.jsonl, in order."""
        path = self.manifests["train"].directory / "metrics.jsonl" if self.has("train") else None
        if path is None or not path.is_file():
            return []
        lines = path.read_text(encoding="utf-8").splitlines()
        try:
            return [json.loads(line) for line in lines if line.strip()]
        except ValueError as error:
            raise DamagedError(f"{path} is not JSON lines: {error}") from error

    @cached_property
    def tokens(self) -> Tokens:
        """The token arrays."""
        from taskmill.training.tokens import Tokens

        return Tokens.open(self.inputs.directory("tokenize"))

    @cached_property
    def tokenizer(self) -> TextTokenizer:
        """The run's tokenizer."""
        from taskmill.training.encoding.tokenizer import open_tokenizer

        return open_tokenizer(self.inputs.directory("tokenize") / "tokenizer")

    def document(self, number: int) -> list[tuple[str, bool]]:
        """Return the (text, trained) of each token of a document; bytes of one character stay together."""
        start, stop = self.tokens.offsets[number : number + 2].tolist()
        ids = self.tokens.ids[start:stop].tolist()
        return token_texts(self.tokenizer.backend, ids, self.tokens.trained[start:stop].tolist())


def _newest_tokens(run: Path, train: Manifest | None) -> Manifest | None:
    """Return the tokens that the model was trained on, else those written last."""
    folders = sorted(p for p in (run / DIRECTORIES["tokenize"]).glob("*") if p.is_dir())
    found = [manifest for manifest in map(read_manifest, folders) if manifest is not None]
    read = {i["table"]: i["rows"] for i in train.body["inputs"] if i["stage"] == "tokenize"} if train else {}
    for manifest in found:
        if read and all(manifest.rows(table) == rows for table, rows in read.items()):
            return manifest
    return max(found, key=lambda m: (m.body["recorded"]["started"], m.directory.name), default=None)


def token_texts(backend: Any, ids: Sequence[int], trained: Sequence[int]) -> list[tuple[str, bool]]:
    """Return the (text, trained) of each token; tokens that hold parts of one character are joined."""
    texts: list[tuple[str, bool]] = []
    pending: list[int] = []
    for place, (number, flag) in enumerate(zip(ids, trained, strict=True)):
        pending.append(number)
        text = backend.decode(pending, skip_special_tokens=False)
        last = place + 1 == len(ids) or trained[place + 1] != flag
        if "\ufffd" in text and not last and len(pending) < 4:
            continue
        name = backend.id_to_token(pending[0]) or ""
        if name.startswith("\u2581") and not text.startswith(" "):
            text = " " + text
        texts.append((text, bool(flag)))
        pending = []
    return texts
