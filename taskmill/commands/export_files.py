"""Files of an export: shards of JSON lines or Parquet, and what trainers are told about them.

Writes `<split>/00000.jsonl` ..., `<split>-documents/00000.jsonl` ..., `dataset_info.json` (LLaMA-Factory), `axolotl.yaml`
and `chat_template.jinja`; each file appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from taskmill.storage import AtomicFile, FileEntry

_BUFFER = 1_000_000
_GROUP = 2_000
_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_TYPES: dict[str, pa.DataType] = {
    "messages": _MESSAGES,
    "text": pa.string(),
    "row": pa.int64(),
    "position": pa.int64(),
    "answer": pa.int64(),
    "loss_weight": pa.float64(),
    "chat_template_kwargs": pa.struct([("condition", pa.string())]),
}
"""Column -> type, for those that are no texts."""


def to_line(record: Mapping[str, Any]) -> bytes:
    """Return a record as one line of JSON, without its newline."""
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()


def with_position(line: bytes, position: int) -> bytes:
    """Return a line with the column `position`."""
    return line[:-1] + b',"position":%d}' % position


class Sink:
    """The files of one kind of records: a new one after every `shard_size` rows."""

    def __init__(self, folder: Path, name: str, shard_size: int, parquet: bool) -> None:
        """Write below `folder/name`; nothing is made before the first row."""
        self._folder, self._name, self._size = folder, name, shard_size
        self._parquet = parquet
        self._writer: _Lines | _Table | None = None
        self.entries: list[FileEntry] = []
        self.num_rows = 0

    def write(self, line: bytes) -> None:
        """Add a row, as a line of JSON."""
        if self._writer is None:
            suffix = "parquet" if self._parquet else "jsonl"
            name = f"{self._name}/{len(self.entries):05d}.{suffix}"
            make = _Table if self._parquet else _Lines
            self._writer = make(self._folder / name, name)
        self._writer.write(line)
        self.num_rows += 1
        if self._writer.num_rows >= self._size:
            self.close()

    def close(self) -> None:
        """Finish the present file."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            self.entries.append(writer.close())

    def abandon(self) -> None:
        """Leave nothing of the present file behind."""
        if self._writer is not None:
            self._writer.abandon()
            self._writer = None


class _Lines:
    """A file of JSON lines."""

    def __init__(self, path: Path, name: str) -> None:
        self._file, self._name = AtomicFile(path), name
        self._held = bytearray()
        self.num_rows = 0

    def write(self, line: bytes) -> None:
        self._held += line + b"\n"
        self.num_rows += 1
        if len(self._held) >= _BUFFER:
            self._flush()

    def _flush(self) -> None:
        self._file.write(bytes(self._held))
        self._held.clear()

    def close(self) -> FileEntry:
        try:
            self._flush()
            self._file.commit()
        except BaseException:
            self._file.abandon()
            raise
        file = self._file
        return FileEntry(self._name, self.num_rows, file.num_bytes, file.sha256, file.sha256)

    def abandon(self) -> None:
        self._file.abandon()


class _Table:
    """A Parquet file, whose columns are those of its first row; its digest of rows is that of the same JSON lines."""

    def __init__(self, path: Path, name: str) -> None:
        self._file, self._name = AtomicFile(path), name
        self._held: list[dict[str, Any]] = []
        self._table: pq.ParquetWriter | None = None
        self._rows = hashlib.sha256()
        self.num_rows = 0

    def write(self, line: bytes) -> None:
        self._held.append(json.loads(line))
        self._rows.update(line + b"\n")
        self.num_rows += 1
        if len(self._held) >= _GROUP:
            self._flush()

    def _flush(self) -> None:
        schema = _schema(self._held[0])
        if self._table is None:
            self._table = pq.ParquetWriter(
                pa.PythonFile(self._file, mode="w"), schema, compression="zstd", write_page_checksum=True
            )
        self._table.write_table(pa.Table.from_pylist(self._held, schema=schema))
        self._held.clear()

    def close(self) -> FileEntry:
        try:
            if self._held:
                self._flush()
            assert self._table is not None, "made with its first row"
            self._table.close()
            self._file.commit()
        except BaseException:
            self._file.abandon()
            raise
        file = self._file
        return FileEntry(self._name, self.num_rows, file.num_bytes, file.sha256, self._rows.hexdigest())

    def abandon(self) -> None:
        self._file.abandon()


def _schema(record: Mapping[str, Any]) -> pa.Schema:
    text = pa.string()
    fields = []
    for name, value in record.items():
        lists = isinstance(value, list)
        fields.append(pa.field(name, _TYPES.get(name, _MESSAGES if lists else text), nullable=False))
    return pa.schema(fields)


# --------------------------------------------------------------------------------- what trainers are told


def llama_factory(name: str, files: Sequence[str], layout: str) -> dict[str, Any]:
    """Return LLaMA-Factory's entries of these files: `dataset_info.json`.

    Args:
        name: of the run.
        files: paths below the folder, `<split>/00000.jsonl`.
        layout: messages, text (prompt and completion as texts) or prompt-completion, which it does not read.
    """
    entries: dict[str, Any] = {}
    for file in files:
        split, _, shard = file.rpartition("/")
        several = sum(other.startswith(f"{split}/") for other in files) > 1
        key = f"{name}_{split}".replace("-", "_") + (f"_{shard.split('.')[0]}" if several else "")
        if split.endswith("-documents"):
            entries[key] = {"file_name": file, "columns": {"prompt": "text"}}
        elif layout == "messages":
            entries[key] = {
                "file_name": file,
                "formatting": "sharegpt",
                "columns": {"messages": "messages"},
                "tags": {
                    "role_tag": "role",
                    "content_tag": "content",
                    "user_tag": "user",
                    "assistant_tag": "assistant",
                    "observation_tag": "tool",
                    "function_tag": "call",
                    "system_tag": "system",
                },
            }
        elif layout == "text":
            entries[key] = {"file_name": file, "columns": {"prompt": "prompt", "response": "completion"}}
    return entries


def axolotl(
    files: Sequence[str], layout: str, has_template: bool, ends: Sequence[str], in_order: bool
) -> bytes:
    """Return axolotl's `datasets:` of the train files, as YAML; empty where it reads none of them.

    Args:
        files: paths below the folder.
        layout: as for `llama_factory`.
        has_template: whether chat_template.jinja lies beside them; else the tokenizer's own is used.
        ends: special tokens that end an answer, beside the tokenizer's `eos_token`.
        in_order: whether their order means something.
    """
    entries: list[dict[str, Any]] = []
    for file in sorted(files, key=lambda file: ("-documents/" in file, file)):
        split, _, shard = file.rpartition("/")
        base = {"path": file, "ds_type": "parquet" if shard.endswith(".parquet") else "json"}
        if split == "train-documents":
            entries.append({**base, "type": "completion", "field": "text"})
        elif split == "train" and layout in _AXOLOTL:
            entries.append({**base, **_AXOLOTL[layout]})
    if not entries:
        return b""
    body: dict[str, Any] = {"datasets": entries, "train_on_inputs": False}
    if has_template and layout == "messages":
        tokens = {"eot_tokens": list(ends)} if ends else {}
        body = {"chat_template_jinja": "chat_template.jinja", **tokens, **body}
    if in_order:
        body["shuffle_merged_datasets"] = False
    return yaml.dump(body, Dumper=_Dumper, sort_keys=False, allow_unicode=True).encode()


_AXOLOTL: dict[str, dict[str, Any]] = {
    "messages": {
        "type": "chat_template",
        "field_messages": "messages",
        "message_property_mappings": {"role": "role", "content": "content"},
        "roles_to_train": ["assistant"],
        "train_on_eos": "turn",
    },
    "text": {
        "type": {
            "field_instruction": "prompt",
            "field_output": "completion",
            "system_prompt": "",
            "format": "{instruction}",
            "no_input_format": "{instruction}",
        }
    },
}
"""Layout -> how axolotl reads its files."""


class _Dumper(yaml.SafeDumper):
    """Writes every list out, without anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        """Return True: equal values are written each time."""
        return True
