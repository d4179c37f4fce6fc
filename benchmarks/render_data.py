"""A run up to split, invented: what `render.py` renders where it is given no data, and how it measures memory.

Texts are seeded words. Tables are written through the stages' own writer, so that the stage render reads them as it does any.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from taskmill import seeding
from taskmill.artifact import Identity, StageWriter, open_stage
from taskmill.records import DIRECTORIES, SCHEMAS

Row = dict[str, Any]
TEMPLATES = (
    ("{{ premise }}\nIs it true that {{ hypothesis }}? ||| {{ answer_choices[label] }}", "Yes ||| No"),
    (
        "Read this.\n{{ premise }}\nDoes it follow that {{ hypothesis }}?\n{% for choice in answer_choices %}\n"
        "- {{ choice }}{% endfor %}\n||| {% if label >= 0 %}{{ answer_choices[label] }}{% endif %}",
        "It follows ||| It does not",
    ),
    (
        "{{ hypothesis | capitalize }} Given that {{ premise }}, that is|||\n{{ answer_choices[label] }}",
        "true ||| false",
    ),
)
_BLANK = dict.fromkeys(SCHEMAS["tasks/tasks"].names)
_LISTS = {"corpora": [], "demonstrations": [], "output_fields": ["label"], "languages": ["en"]}
_BATCH = 2000


def text(num_words: int, *key: object) -> str:
    """Return seeded words."""
    state, found = seeding.derive(1, "bench", *key), []
    for _ in range(num_words):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        place = state >> 33
        found.append(
            f"{'aeiou'[place % 5]}{'bcdfglmnprst'[place // 5 % 12]}{place % 97:x}{'aeiou'[place // 60 % 5]}"
        )
    return " ".join(found)


def write_run(run: Path, num_task: int, num_instance: int, num_keywords: int) -> None:
    """Write curate, overlap and split of a run whose tasks of each style have so many examples; each a shard of its own."""
    tasks = [*_many("sni", "task", num_task), *_many("prompted", "instance", num_instance)]
    tasks += _many("crossfit", "keywords", num_keywords)
    templates = [
        template for task in tasks if task["style"] == "instance" for template in _templates(task["task"])
    ]
    with _Stage(run, "curate") as out:
        first: dict[str, int] = {}
        for task in tasks:
            task["first_row"] = first.get(task["shard"], 0)
            first[task["shard"]] = task["first_row"] + task["num_kept"]
        out.write("tasks", "tasks/tasks", tasks)
        out.write("templates", "tasks/templates", templates)
        for shard in sorted(first):
            own = (row for task in tasks if task["shard"] == shard for row in _examples(task))
            out.write(f"examples/{shard}", "tasks/examples", own)
    with _Stage(run, "overlap") as out:
        out.write("near_duplicates", "overlaps/near_duplicates", ())
    with _Stage(run, "split") as out:
        out.write("tasks", "splits/tasks", map(_split_task, tasks))
        out.write("members", "splits/members", (row for task in tasks for row in _members(task)))


class _Stage:
    """Writes one stage; use as `with`."""

    def __init__(self, run: Path, name: str) -> None:
        out = open_stage(run / DIRECTORIES[name], Identity(name, 1, {}, 0, None, (), {}))
        assert isinstance(out, StageWriter)
        self._out = out

    def __enter__(self) -> _Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self._out.finish()

    def write(self, file: str, table: str, rows: Any) -> None:
        with (
            self._out.shard(file.replace("/", "-"), []) as shard,
            shard.table(f"{file}.parquet", SCHEMAS[table]) as writer,
        ):
            for row in rows:
                writer.append(row)
        self._out.add(shard.record)


def _many(benchmark: str, style: str, total: int) -> list[Row]:
    """Return tasks of one style: a third of the examples in one, the rest in tasks of about 80."""
    sizes = [total // 3] + [80] * (total * 2 // 3 // 80) if style == "task" else [total]
    return [
        _task(f"{benchmark}/task{n:05d}", style, size, f"{benchmark}-000")
        for n, size in enumerate(sizes)
        if size
    ]


def _task(name: str, style: str, size: int, shard: str) -> Row:
    benchmark, short = name.split("/")
    facts: Row = {"num_read": size, "num_kept": size, "num_groups": size, "largest_group": 1, "first_row": 0}
    facts |= {
        "num_rendered_templates": 0,
        "multiple_choice": False,
        "metadata": json.dumps({"shape": "question"}),
    }
    stated = {
        "category": "Question Answering",
        "kind": "benchmark",
        "metric": "rouge_l",
        "license": "CC0-1.0",
    }
    filled = dict.fromkeys(("dataset", "family", "license_evidence", "revision"), "")
    return {
        **_BLANK,
        **_LISTS,
        **filled,
        **stated,
        **facts,
        "task": name,
        "benchmark": benchmark,
        "name": short,
        "style": style,
        "definition": text(30, name, "definition"),
        "shard": shard,
    }


def _templates(task: str) -> list[Row]:
    facts = {"reads": ["premise"], "keeps_task": True, "why": None, "metadata": "{}", "digest": ""}
    return [
        {"template": f"{task}/t{n}", "task": task, "name": f"t{n}", "body": body, "choices": choices, **facts}
        for n, (body, choices) in enumerate(TEMPLATES)
    ]


def _ids(task: Row) -> Sequence[str]:
    return [f"{task['task']}#{number:07d}" for number in range(task["num_kept"])]


def _fields(task: Row, number: int) -> tuple[Row, list[str], list[str] | None]:
    """Return fields, references and options of an example."""
    key = (task["task"], number)
    if task["style"] == "task":
        return {"input": text(50, *key)}, [text(3, *key, "output")], None
    if task["style"] == "instance":
        fields = {"premise": text(45, *key), "hypothesis": text(10, *key, "h"), "label": number % 2}
        return {**fields, "idx": number}, [], None
    options = [text(2, *key, "a"), text(2, *key, "b")]
    return {"question": text(12, *key), "context": text(40, *key, "c")}, [options[0]], options


def _examples(task: Row) -> Iterator[Row]:
    for number, name in enumerate(_ids(task)):
        fields, references, options = _fields(task, number)
        content = hashlib.sha256(name.encode()).digest()
        yield {
            "example": name,
            "task": task["task"],
            "upstream_split": None,
            "group": number,
            "fields": json.dumps(fields, sort_keys=True, separators=(",", ":")),
            "references": references,
            "options": options,
            "quality": None,
            "content": content,
            "normalised": content[:16],
            "file": "invented",
            "record": number,
        }


def _members(task: Row) -> Iterator[Row]:
    facts = {
        "task": task["task"],
        "reason": None,
        "rule": None,
        "content": b"\0" * 32,
        "clean": True,
        "clean_rare": True,
    }
    for number, name in enumerate(_ids(task)):
        split = "validation" if number % 20 == 0 else "train"
        yield {"example": name, "split": split, "group": number, **facts}


def _split_task(task: Row) -> Row:
    numbers = dict.fromkeys(
        ["num_train", "num_validation", "num_test", "num_demonstration", "num_excluded"], 0
    )
    return {"task": task["task"], "level": None, "role": "train", "why": "", **numbers}
