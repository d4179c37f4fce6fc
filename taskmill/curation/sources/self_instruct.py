"""Self-Instruct (Wang et al. 2022): a task a file, each record in one of the forms that the repository publishes.

- `instruction` with `instances` of `input` and `output`: `seed_tasks.jsonl`, `user_oriented_instructions.jsonl`. An
  instance is an example; those of one instruction form a group, named by `id`. How many records are classification, and
  for which application (`motivation_app`) they were written, is kept in the metadata.
- `instruction`, `input`, `output`: `all_instances_82K.jsonl`.
- `prompt` and `completion`: what GPT-3 was fine-tuned on. The prompt is the instruction; the space before a completion and
  the end mark `<|endoftext|>` behind it belong to that format, not to the answer.
- `target` and `response`: a model's answers to the user-oriented instructions. They are evaluation output, so each is left
  out as `prediction`. Only the folder itself is listed, not those below it, so `predictions/` must be asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from taskmill.curation.reader import Columns, SourceFolder, TaskData, TaskEntry
from taskmill.curation.sources import _chat, _files
from taskmill.curation.sources._values import Unusable

BENCHMARK = "chat"
STYLE, KIND = "chat", "chat"
OPTIONS = dict(_chat.OPTIONS)
END_OF_TEXT = "<|endoftext|>"
_EXPECTED = "records of Self-Instruct as *.jsonl, *.json or *.parquet"


def discover(source: SourceFolder) -> list[TaskEntry]:
    """List the tasks: files.

    Raises:
        DataError: the folder is missing or holds no such file.
        RecipeError: an option makes no sense.
    """
    return _chat.list_entries(source, "self_instruct", _EXPECTED)


def read(entry: TaskEntry, source: SourceFolder) -> TaskData:
    """Read the records of one task.

    Raises:
        DataError: a file or record is damaged and the recipe says stop.
    """
    data = TaskData({}, Columns())
    applications: Counter[str] = Counter()
    num_classification = 0

    def convert(value: dict[str, Any]) -> Iterator[_chat.Item]:
        nonlocal num_classification
        quality = _chat.quality_of(entry.detail["quality"], value)
        yield from _convert(value, quality)
        num_classification += value.get("is_classification") is True
        if isinstance(value.get("motivation_app"), str):
            applications[_files.storable(value["motivation_app"])] += 1

    _chat.read_each(entry, source, data, convert)
    metadata: dict[str, Any] = {"shape": "instruction"}
    if num_classification:
        metadata["num_classification"] = num_classification
    if applications:
        metadata["applications"] = {name: applications[name] for name in sorted(applications)}
    data.facts = {
        "dataset": entry.name,
        "category": "Instruction Following",
        "languages": ["English"],
        "metadata": metadata,
    }
    return data


def _convert(value: dict[str, Any], quality: str | None) -> Iterator[_chat.Item]:
    """Yield the examples of a record of any form."""
    if "instances" in value:
        yield from _instances(value, quality)
    elif "completion" in value:
        prompt, completion = _chat.need_text(value, "prompt"), _chat.need_text(value, "completion")
        answer = completion.removesuffix(END_OF_TEXT).removeprefix(" ")
        yield _chat.instruction(prompt, "", answer, quality=quality)
    elif "target" in value and "response" in value:
        yield _chat.Left("prediction", "a model's answer to an evaluation task")
    else:
        text, given = _chat.need_text(value, "instruction"), _chat.maybe_text(value, "input")
        output = _chat.need_text(value, "output")
        yield _chat.instruction(text, given, output, upstream_id=value.get("id"), quality=quality)


def _instances(value: dict[str, Any], quality: str | None) -> Iterator[_chat.Item]:
    """Yield the instances of a task; a damaged one does not touch the others."""
    text = _chat.need_text(value, "instruction")
    rows = _chat.need_rows(value, "instances", "a list of objects with input and output")
    name = _files.usable_id(value.get("id"))
    if not rows:
        yield _chat.Left("no_instances", "the task has no instances")
    for number, row in enumerate(rows):
        try:
            given = _chat.maybe_text(row, "input", f"instances.{number}.input")
            output = _chat.need_text(row, "output", f"instances.{number}.output")
        except Unusable as error:
            yield error
            continue
        own = f"{name}-{number}" if name is not None and len(rows) > 1 else name
        yield _chat.instruction(text, given, output, upstream_id=own, group=name, quality=quality)
