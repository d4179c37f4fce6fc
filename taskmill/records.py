"""The tables of a run: directories of the stages, columns of every Parquet file.

`SCHEMAS["tasks/examples"]` is the Arrow schema of the table `examples` in the directory `tasks`.
Text columns are plain strings in memory; Parquet dictionary-encodes them on disk.
"""

from __future__ import annotations

import pyarrow as pa

SCHEMA_VERSION = 1

DIRECTORIES = {
    "curate": "tasks",
    "overlap": "overlaps",
    "split": "splits",
    "render": "prompts",
    "mix": "mixture",
    "tokenize": "tokens",
    "train": "model",
    "evaluate": "scores",
}
"""Stage name -> its directory in the run; `tokenize` writes one folder per fingerprint below its own."""

KINDS = ("benchmark", "reasoning", "pretraining", "dialogue", "chat")
STYLES = ("task", "instance", "keywords", "reasoning", "chat", "dialogue", "document")
LEVELS = ("held_out", "partial", "supervised")
SPLITS = ("train", "validation", "test", "demonstration", "excluded")
UPSTREAM_SPLITS = ("train", "validation", "test", "demonstration")
ROLES = ("train", "eval", "both", "excluded")
ACTIONS = ("keep", "drop_train_task", "drop_eval_task", "drop_train_examples", "drop_eval_examples")
FINAL, INITIAL, ENDPOINT = "final", "initial", "endpoint"
"""Models in predictions and scores: after training, before it, behind a server; `step-000500` is a checkpoint."""
METRICS = ("accuracy", "exact_match", "token_f1", "rouge_l", "bleu", "chrf", "pass_at_k")

SEGMENT_KINDS = (
    "instruction",
    "demonstration",
    "input",
    "output",
    "system",
    "user",
    "assistant",
    "document",
    "control",
)
"""Segment kind -> its code in `prompts.kinds` is the position in this tuple."""

_S, _I, _F, _B = pa.string(), pa.int64(), pa.float64(), pa.bool_()
_LIST = pa.list_(_S)
_CONTENT, _SHORT = pa.binary(32), pa.binary(16)


def _schema(*columns: tuple[str, pa.DataType]) -> pa.Schema:
    """A name that ends in `?` may be null."""
    return pa.schema([pa.field(n.rstrip("?"), t, nullable=n.endswith("?")) for n, t in columns])


DROPPED = _schema(
    ("stage", _S),
    ("task?", _S),
    ("example?", _S),
    ("template?", _S),
    ("reason", _S),
    ("twin?", _S),
    ("detail", _S),
    ("raw?", _S),
    ("file?", _S),
    ("record?", _I),
)

SCHEMAS: dict[str, pa.Schema] = {
    "tasks/tasks": _schema(
        ("task", _S),
        ("benchmark", _S),
        ("name", _S),
        ("category", _S),
        ("dataset", _S),
        ("corpora", _LIST),
        ("family", _S),
        ("subtask?", _S),
        ("kind", _S),
        ("style", _S),
        ("definition?", _S),
        ("demonstrations", _LIST),
        ("output_fields", _LIST),
        ("upstream_role?", _S),
        ("metric", _S),
        ("multiple_choice", _B),
        ("languages", _LIST),
        ("license", _S),
        ("license_evidence", _S),
        ("homepage?", _S),
        ("repository?", _S),
        ("revision", _S),
        ("metadata", _S),
        ("num_read", _I),
        ("num_kept", _I),
        ("num_groups", _I),
        ("largest_group", _I),
        ("num_rendered_templates", _I),
        ("shard", _S),
        ("first_row", _I),
    ),
    "tasks/templates": _schema(
        ("template", _S),
        ("task", _S),
        ("name", _S),
        ("body", _S),
        ("choices?", _S),
        ("reads", _LIST),
        ("keeps_task", _B),
        ("why?", _S),
        ("metadata", _S),
        ("digest", _S),
    ),
    "tasks/examples": _schema(
        ("example", _S),
        ("task", _S),
        ("upstream_split?", _S),
        ("group", pa.uint64()),
        ("fields", _S),
        ("references", _LIST),
        ("options?", _LIST),
        ("quality?", _S),
        ("content", _CONTENT),
        ("normalised", _SHORT),
        ("file", _S),
        ("record", _I),
    ),
    "tasks/dropped": DROPPED,
    "tasks/suspected_aliases": _schema(
        ("task_a", _S),
        ("task_b", _S),
        ("dataset_a", _S),
        ("dataset_b", _S),
        ("containment", _F),
        ("num_shared", _I),
        ("num_compared", _I),
    ),
    "overlaps/plan": _schema(("task", _S), ("level?", _S), ("role", _S), ("why", _S)),
    "overlaps/assignment": _schema(
        ("example", _S), ("task", _S), ("group", pa.uint64()), ("split", _S), ("reason?", _S)
    ),
    "overlaps/pairs": _schema(
        ("train_task", _S),
        ("eval_task", _S),
        ("same_dataset", _B),
        ("num_eval", _I),
        ("num_hit", _I),
        ("hit_fraction", _F),
        ("hit_fraction_rare", _F),
        ("hit_input", _F),
        ("hit_output", _F),
        ("num_same_output", _I),
        ("num_short_equal", _I),
        ("num_train_touched", _I),
        ("evidence", _SHORT),
    ),
    "overlaps/hits": _schema(
        ("train_task", _S),
        ("eval_task", _S),
        ("eval_example", _S),
        ("train_example", _S),
        ("num_grams", _I),
        ("side", _S),
        ("same_output", _B),
        ("frequent", _B),
    ),
    "overlaps/touched": _schema(
        ("train_task", _S), ("eval_task", _S), ("train_example", _S), ("frequent", _B)
    ),
    "overlaps/evidence": _schema(
        ("train_task", _S),
        ("eval_task", _S),
        ("train_example", _S),
        ("eval_example", _S),
        ("window", _S),
        ("train_position", _I),
        ("eval_position", _I),
    ),
    "overlaps/near_duplicates": _schema(
        ("example", _S),
        ("task", _S),
        ("survivor", _S),
        ("survivor_task", _S),
        ("relation", _S),
        ("cluster", pa.uint64()),
        ("jaccard", _F),
        ("containment", _F),
    ),
    "overlaps/frequent": _schema(("gram", pa.uint64()), ("text", _S), ("num_groups", _I)),
    "splits/tasks": _schema(
        ("task", _S),
        ("level?", _S),
        ("role", _S),
        ("num_train", _I),
        ("num_validation", _I),
        ("num_test", _I),
        ("num_demonstration", _I),
        ("num_excluded", _I),
        ("why", _S),
    ),
    "splits/members": _schema(
        ("example", _S),
        ("task", _S),
        ("split", _S),
        ("reason?", _S),
        ("rule?", _S),
        ("group", pa.uint64()),
        ("content", _CONTENT),
        ("clean", _B),
        ("clean_rare", _B),
    ),
    "splits/decisions": _schema(
        ("train_task", _S),
        ("eval_task", _S),
        ("action", _S),
        ("evidence", _S),
        ("rule", _S),
        ("by", _S),
        ("at", _S),
        ("why", _S),
        ("hit_fraction", _F),
        ("hit_fraction_rare", _F),
        ("num_hit", _I),
        ("num_same_output", _I),
        ("num_train_touched", _I),
        ("num_dropped", _I),
    ),
    "prompts/prompts": _schema(
        ("prompt", pa.binary(8)),
        ("example", _S),
        ("task", _S),
        ("split", _S),
        ("level?", _S),
        ("template?", _S),
        ("text", _S),
        ("ends", pa.list_(pa.int32())),
        ("kinds", pa.list_(pa.int8())),
        ("trained", pa.list_(pa.bool_())),
        ("options?", _LIST),
        ("references", _LIST),
        ("demonstrations", _LIST),
        ("condition?", _S),
        ("loss_weight", pa.float32()),
        ("format", _S),
        ("joint", _B),
    ),
    "prompts/dropped": DROPPED,
    "tokens/dropped": DROPPED,
    "scores/predictions": _schema(
        ("model", _S),
        ("prompt", pa.binary(8)),
        ("example", _S),
        ("group", pa.uint64()),
        ("task", _S),
        ("family", _S),
        ("subtask?", _S),
        ("benchmark", _S),
        ("level", _S),
        ("category", _S),
        ("template?", _S),
        ("shots", _I),
        ("num_demonstrations", _I),
        ("prediction", _S),
        ("samples?", _LIST),
        ("answer", _S),
        ("references", _LIST),
        ("options?", _LIST),
        ("correct_option?", _I),
        ("scores?", pa.list_(_F)),
        ("metric", _S),
        ("value?", _F),
        ("statistics?", pa.list_(_F)),
        ("clean", _B),
    ),
    "scores/scores": _schema(
        ("model", _S),
        ("scope", _S),
        ("name", _S),
        ("shots", _I),
        ("metric", _S),
        ("value", _F),
        ("low", _F),
        ("high", _F),
        ("num", _I),
        ("clean_value?", _F),
        ("matched_value?", _F),
        ("clean_low?", _F),
        ("clean_high?", _F),
        ("num_clean", _I),
    ),
}

PUBLISHED: dict[str, pa.Schema] = {
    "tasks": _schema(
        ("task", _S),
        ("benchmark", _S),
        ("name", _S),
        ("category", _S),
        ("dataset", _S),
        ("family", _S),
        ("subtask?", _S),
        ("kind", _S),
        ("style", _S),
        ("metric", _S),
        ("languages", _LIST),
        ("license", _S),
        ("license_evidence", _S),
        ("homepage?", _S),
        ("repository?", _S),
        ("revision", _S),
        ("planned_level?", _S),
        ("planned_role", _S),
        ("planned_why", _S),
        ("level?", _S),
        ("role", _S),
        ("why", _S),
        ("num_read", _I),
        ("num_kept", _I),
        ("num_train", _I),
        ("num_validation", _I),
        ("num_test", _I),
        ("num_demonstration", _I),
        ("num_excluded", _I),
    ),
    "templates": _schema(("task", _S), ("template", _S), ("digest", _S), ("keeps_task", _B)),
    "ids": _schema(
        ("example", _S),
        ("task", _S),
        ("benchmark", _S),
        ("category", _S),
        ("level?", _S),
        ("split", _S),
        ("reason?", _S),
        ("rule?", _S),
        ("assigned", _S),
        ("assigned_reason?", _S),
        ("upstream_split?", _S),
        ("group", pa.uint64()),
        ("file", _S),
        ("record", _I),
        ("content", _S),
        ("normalised", _S),
        ("license", _S),
        ("clean", _B),
        ("clean_rare", _B),
    ),
    "pairs": _schema(
        ("train_task", _S),
        ("eval_task", _S),
        ("level", _S),
        ("state", _S),
        ("same_dataset", _B),
        ("num_eval", _I),
        ("num_hit", _I),
        ("hit_fraction", _F),
        ("hit_fraction_rare", _F),
        ("hit_input", _F),
        ("hit_output", _F),
        ("num_same_output", _I),
        ("num_short_equal", _I),
        ("num_train_touched", _I),
        ("evidence", _S),
    ),
    "decisions": SCHEMAS["splits/decisions"],
    "drops": _schema(
        ("stage", _S),
        ("task?", _S),
        ("example?", _S),
        ("reason", _S),
        ("rule?", _S),
        ("twin?", _S),
        ("num_grams?", _I),
        ("file?", _S),
        ("record?", _I),
    ),
    "near_duplicates": SCHEMAS["overlaps/near_duplicates"],
    "frequent": _schema(("gram", pa.uint64()), ("num_groups", _I)),
    "prompts": _schema(
        ("prompt", _S),
        ("example", _S),
        ("task", _S),
        ("benchmark", _S),
        ("category", _S),
        ("level?", _S),
        ("split", _S),
        ("license", _S),
        ("template?", _S),
        ("input", _S),
        ("output", _S),
        ("text", _S),
        ("ends", pa.list_(pa.int32())),
        ("kinds", _LIST),
        ("trained", pa.list_(_B)),
        ("options?", _LIST),
        ("references", _LIST),
        ("demonstrations", _LIST),
        ("condition?", _S),
        ("loss_weight", pa.float32()),
        ("format", _S),
    ),
}
"""Tables of a published benchmark (docs/publishing.md). None but `prompts` holds text of the data; digests are hex.

`tasks`, `templates`, `pairs`, `decisions`, `drops`, `near_duplicates` and `frequent` lie in `tables/<name>.parquet`. `ids` has a
file for each configuration and split, `ids/<configuration>/<split>.parquet`, where the configuration is the task's level or,
without one, `train`; of `prompts` there are `data/<configuration>/<split>-00000-of-00001.parquet`.
"""
CONFIGURATIONS = ("train", *LEVELS)
"""Configurations of a published benchmark; those of levels hold all of their tasks, `train` the tasks without a level."""

DECISION_COLUMNS = ("train_task", "eval_task", "action", "evidence", "rule", "by", "at", "why")
"""Columns of decisions.csv at the root of a run."""
SHARE_COLUMNS = (
    "benchmark",
    "natural",
    "wanted",
    "realised",
    "tasks",
    "tasks_capped",
    "prompts",
    "passes",
    "kept",
    "short",
)
"""Columns of mixture/shares.csv; a row is a part of the mixture, `short` what it lacks of its size."""


def primary_key(table: str) -> tuple[str, ...]:
    """Return the columns that the rows of a table are sorted by."""
    keys = {
        "tasks/tasks": ("task",),
        "tasks/templates": ("task", "template"),
        "tasks/examples": ("task", "example"),
        "overlaps/assignment": ("task", "example"),
        "splits/members": ("task", "example"),
        "overlaps/pairs": ("train_task", "eval_task"),
        "prompts/prompts": ("task", "split", "condition", "prompt"),
    }
    return keys.get(table, ())
