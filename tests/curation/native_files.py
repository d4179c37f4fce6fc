"""Hand-written upstream files and how tests read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from taskmill.curation.reader import SourceFolder, TaskData, load_reader
from taskmill.storage import canonical_json

SNI_TASK = """{
    "Contributors": ["A. Person"], "Source": ["made_up"], "URL": [NaN], "Categories": ["Title Generation", "Misc."],
    "Reasoning": [], "Definition": ["Write a title.", "Give the text a name."], "Input_language": ["English"],
    "Output_language": ["French"], "Instruction_language": ["English"], "Domains": ["News"],
    "Positive Examples": [{"input": "a b", "output": "A", "explanation": "short"}],
    "Negative Examples": [{"input": "c d", "output": "D", "explanation": "wrong"}],
    "Instances": [{"id": "t1-x", "input": "one caf\\u00e9", "output": ["One", "1"]},
                  {"id": "t1-x", "input": "two", "output": ["Two"]}, {"id": "t1-z", "input": "", "output": []}],
    "Instance License": ["MIT", "CC BY 4.0"]
}"""

TEMPLATES = """dataset: pets
subset: cats
templates:
  1b0f: !Template
    answer_choices: no ||| yes
    id: 1b0f
    jinja: 'Read {{ text | upper }} {% for w in words if w.size == 2 %}{{ w }}{% endfor %} ||| {{ answer_choices[label] }}'
    metadata: &shared !TemplateMetadata
      choices_in_prompt: true
      languages: [en]
      metrics: [Accuracy]
      original_task: true
    name: read_it
    reference: someone
  2c1e: !Template
    answer_choices: null
    id: 2c1e
    jinja: 'Write a cat ||| {{text}}'
    metadata: !TemplateMetadata {choices_in_prompt: null, languages: [en], metrics: [BLEU], original_task: false}
    name: write
    reference: ''
  3d2f: !Template {answer_choices: null, id: 3d2f, jinja: 'x ||| {{label}}', metadata: *shared, name: shared, reference: ''}
"""

PETS_CAST = """dataset: cats
datasets: [pets/cats]
format: jsonl
files: {train: [train.jsonl]}
fields: {text: text, label: label, words: words}
references: {path: label, labels: ["no", "yes"]}
output_fields: [label]
id: n
"""

FLAN_ROWS = [
    {
        "inputs": "Is it?\nOPTIONS:\n- yes\n- no",
        "targets": "yes",
        "task_name": "glue/x:1.0.0",
        "task_source": "Flan",
        "template_type": "zs_opt",
    },
    {
        "inputs": "OPTIONS:\n- a\n- b\n\nAgain?\nOPTIONS:\n- c\n- d\nAnswer:",
        "targets": "d",
        "task_name": "glue/x:2.0.0",
        "task_source": "Flan",
        "template_type": "fs_opt",
    },
    {
        "inputs": "Plain",
        "targets": "text",
        "task_name": "other",
        "task_source": "Flan",
        "template_type": "zs_noopt",
    },
    {
        "inputs": "Not offered\nOPTIONS:\n- c\n- d",
        "targets": "e",
        "task_name": "other",
        "task_source": "CoT",
        "template_type": "zs_opt",
    },
]


CUT = {"flan"}
"""Readers that cut files which mix tasks: what a task has of them is its size."""


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def folder(
    root: Path, path: str = ".", on_error: str = "stop", cast_folders: tuple[Path, ...] = (), **options: Any
) -> SourceFolder:
    return SourceFolder((root / path).resolve(), root.resolve(), options, on_error, cast_folders)


def read_all(reader: str, source: SourceFolder) -> dict[str, TaskData]:
    module = load_reader(reader)
    entries = module.discover(source)
    assert [entry.name for entry in entries] == sorted({entry.name for entry in entries})
    found = {}
    for entry in entries:
        canonical_json(entry.detail)
        assert entry.files and all(path.is_file() for path in entry.files)
        if reader not in CUT and "strays" not in entry.detail:
            assert entry.num_bytes == sum(path.stat().st_size for path in entry.files)
        found[entry.name] = data = module.read(entry, source)
        check(data)
    return found


def check(data: TaskData) -> None:
    """Whatever a reader returns can be stored: columns of one length, JSON in UTF-8."""
    columns = data.columns
    lengths = {len(column) for column in vars(columns).values()}
    assert lengths == {len(columns)}
    for part in (
        data.facts,
        data.templates,
        columns.fields,
        columns.references,
        columns.options,
        columns.group,
    ):
        canonical_json(part).decode("utf-8")
    for damage in data.aside:
        (damage.detail + damage.raw + damage.reason).encode("utf-8")
