"""Tk-Instruct's encoding: our prompts beside those of Tk-Instruct's own collator, character for character.

    python benchmarks/tk_instruct_fidelity.py [--tk-instruct CLONE] [--data PATH] [--run RUN] [--quick] [--json OUT]

`--tk-instruct` is a clone of yizhongw/Tk-Instruct, whose src/ni_collator.py is loaded as it is; without it prompts are
compared with digests of what it gave for the tasks made here. `--data` is the folder of real upstream files, whose
Super-NaturalInstructions tasks are then read as `curate` reads them; without it, or beside it, the tasks made here.

Compared are, for every instance in each of the five encodings among which Tk-Instruct draws: the text before the answer,
the answer, and with CLONE the text again where the context is too short for all of it, for two instances a task (a word
counts as a token, and spaces are compared as one, as its tokenizer has them). `--quick` takes two instances a task.

`--run` is a finished run over those files whose recipe says `render.encoding: tk-instruct`: its prompts are compared as they
lie in the table. Those that leave out an example, since it must not be shown beside their own, are counted apart.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import platform
import re
import sys
import typing
from collections import Counter
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from taskmill.curation.reader import SourceFolder  # noqa: E402
from taskmill.curation.sources import super_natural_instructions  # noqa: E402
from taskmill.recipe import TkInstruct  # noqa: E402
from taskmill.templates.composing.segments import Segment, describe_segments, encode  # noqa: E402
from taskmill.templates.composing.tk_instruct import (  # noqa: E402
    MODES,
    compose_tk_instruct,
    first_examples,
    task_example,
)
from taskmill.training.encoding.fitting import FitCounts, fit, tk_instruct_examples  # noqa: E402
from taskmill.training.encoding.rows import Encoded, Prompt  # noqa: E402

CONTEXTS = (24, 64, 128, 256, 512, 1024)
WITH_NAME = TkInstruct(task_name=True, negative_examples=1, explanations=True)
DIGESTS = {  # of the made tasks' prompts, as Tk-Instruct's collator writes them
    "definition 0+0": "314140f7c0b83b5f",
    "2+0": "9aa9679c6e342f84",
    "definition 2+0": "abc7b5ebe6c1a984",
    "definition 2+2": "046b5d8252cc523b",
    "definition explanations 2+0": "2f96439989425c4b",
    "task_name definition explanations 2+1": "ab6392949f1e05e5",
}
_WORD = re.compile(r"\S+\s*")

Task = dict[str, Any]


def made_tasks() -> list[Task]:
    """Return tasks in upstream's layout whose texts end in all sorts of ways."""
    ends = ("", ".", "?", ":", "!", ")", '"', "`", "~", "。", "”", "…", "é", "7", " ", "\n", " \t.", "\u00a0")
    tasks = []
    for number, end in enumerate(ends):
        examples = [
            {
                "input": f"{kind} {place}{end}",
                "output": f"{place}{end}",
                "explanation": f"As {place} says{end}",
            }
            for kind in ("first", "second")
            for place in range(number % 4)
        ]
        tasks.append(
            {
                "Task": f"task{number:03d}_made",
                "Definition": [f" Say what {number} is{end}", "unused"],
                "Positive Examples": examples[: number % 4],
                "Negative Examples": examples[number % 4 :],
                "Instances": [{"input": f"  the {number}\n of all{end}", "output": [f"{number}{end}"]}],
            }
        )
    return tasks


def upstream_tasks(folder: Path) -> Iterator[tuple[Task, Task]]:
    """Yield (task as upstream has it, task as the reader reads it) of every file."""
    options = {"tasks": ["tasks", "tasks_shallow"]}
    source = SourceFolder(folder, folder.parent, options, "stop")
    for entry in super_natural_instructions.discover(source):
        theirs = json.loads(entry.files[0].read_text(encoding="utf-8")) | {"Task": entry.name}
        read = super_natural_instructions.read(entry, source)
        rows = zip(
            read.columns.upstream_id,
            read.columns.upstream_split,
            read.columns.fields,
            read.columns.references,
        )
        shown, instances = [], []
        for name, split, fields, references in rows:
            if split == "demonstration":
                shown.append((f"{entry.name}#{name}", task_example(fields, references)))
            else:
                instances.append((fields["input"], references))
        own = {
            "name": entry.name,
            "definition": read.facts["definition"],
            "shown": shown[::-1],
            "instances": instances,
        }
        yield theirs, own


def as_read(task: Task) -> Task:
    """Return a made task as the reader would give it."""
    shown = [
        (
            f"{task['Task']}#{kind}-{place}",
            task_example(example | {"example_kind": kind}, [example["output"]]),
        )
        for kind in ("positive", "negative")
        for place, example in enumerate(task[f"{kind.capitalize()} Examples"], start=1)
    ]
    instances = [(instance["input"], instance["output"]) for instance in task["Instances"]]
    return {"name": task["Task"], "definition": task["Definition"][0], "shown": shown, "instances": instances}


def ours(task: Task, instance: tuple[str, list[str]], mode: TkInstruct) -> list[Segment]:
    """Return our prompt of an instance."""
    source, references = instance
    shown = [example for _, example in first_examples(task["shown"], mode)]
    return compose_tk_instruct(task["definition"], source, references[0], shown, mode, task["name"])


# ----------------------------------------------------------------------------------------- theirs


class Words:
    """A tokenizer whose tokens are words."""

    def __call__(self, text: str) -> dict[str, list[str]]:
        """Return the words."""
        return {"input_ids": _WORD.findall(text)}

    def decode(self, words: list[str], **_: bool) -> str:
        """Return the text of words."""
        return "".join(words)


def load_collator(clone: Path) -> ModuleType:
    """Load ni_collator.py of a clone; two names that its star import used to give are put there first."""
    path = clone / "src" / "ni_collator.py"
    spec = importlib.util.spec_from_file_location("ni_collator", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise SystemExit(f"{path} is not there; --tk-instruct is a clone of yizhongw/Tk-Instruct")
    module = importlib.util.module_from_spec(spec)
    module.__dict__.update(Optional=typing.Optional, Union=typing.Union)
    sys.modules["ni_collator"] = module
    spec.loader.exec_module(module)
    return module


def theirs(
    collator: ModuleType, task: Task, instance: Task, mode: TkInstruct, context: int
) -> tuple[str, str]:
    """Return their source and label of an instance that has one output."""
    encoder = collator.DataCollatorForNI(
        Words(),
        max_source_length=context,
        add_task_name=mode.task_name,
        add_task_definition=mode.definition,
        num_pos_examples=mode.positive_examples,
        num_neg_examples=mode.negative_examples,
        add_explanation=mode.explanations,
        text_only=True,
    )
    first = instance | {"output": instance["output"][:1]}
    made = encoder([task | {"Instance": first}])
    return made["inputs"][0], made["labels"][0]


# ---------------------------------------------------------------------------------------- comparing


def source_and_label(segments: list[Segment]) -> tuple[str, str]:
    """Return what stands before the answer, with the space that the answer begins with, and the answer."""
    answer = segments[-2].text
    return "".join(segment.text for segment in segments[:-2]) + answer[:1], answer[1:]


def fitted_source(segments: list[Segment], context: int) -> str:
    """Return the source of our prompt when it is cut to `context` words and its answer."""
    row = encode(segments)
    prompt = Prompt(row["text"], row["ends"], row["kinds"], row["trained"])
    words, number = [], []
    begins = np.cumsum([0, *[len(segment.text) for segment in segments]])
    for match in _WORD.finditer(row["text"]):
        words.append(match[0])
        number.append(int(np.searchsorted(begins, match.start(), side="right")) - 1)
    segment = np.array(number, dtype=np.int32)
    encoded = Encoded(np.arange(len(words), dtype=np.int32), np.asarray(row["trained"])[segment], segment)
    is_answer = segment >= len(segments) - 2
    examples = tk_instruct_examples(prompt)
    pieces = fit(encoded, row["kinds"], context + int(is_answer.sum()), FitCounts(), examples)
    return "".join(words[i] for piece in pieces for i in piece.ids[piece.segment < len(segments) - 2])


def compare(
    collator: ModuleType, tasks: list[tuple[Task, Task]], most: int | None, counts: Counter[str]
) -> list[str]:
    """Compare all prompts of tasks; return a line for each of the first that differ."""
    wrong: list[str] = []
    for upstream, own in tasks:
        pairs = list(zip(upstream["Instances"], own["instances"], strict=True))[:most]
        counts["tasks"] += 1
        for place, (instance, read) in enumerate(pairs):
            counts["instances"] += 1
            for mode in (*MODES, WITH_NAME):
                segments = ours(own, read, mode)
                wanted = theirs(collator, upstream, instance, mode, sys.maxsize)
                counts["found"] += 1
                counts["equal"] += source_and_label(segments) == wanted
                if source_and_label(segments) != wanted:
                    wrong.append(
                        f"{own['name']} {place} {mode}: {source_and_label(segments)!r} != {wanted!r}"
                    )
            if place < 2:
                wrong += compare_fitted(collator, upstream, own, instance, read, counts)
    return wrong


def compare_fitted(
    collator: ModuleType, upstream: Task, own: Task, instance: Task, read: Any, counts: Counter[str]
) -> list[str]:
    """Compare what an instance's prompts keep in short contexts."""
    wrong = []
    for mode in MODES:
        segments = ours(own, (read[0], ["answer"]), mode)
        for context in CONTEXTS:
            wanted = " ".join(theirs(collator, upstream, instance, mode, context)[0].split())
            got = " ".join(fitted_source(segments, context).split())
            counts["fitted"] += 1
            counts["fitted_shortened"] += wanted != " ".join(source_and_label(segments)[0].split())
            counts["fitted_equal"] += got == wanted
            if got != wanted:
                wrong.append(f"{own['name']} {mode} in {context} words: {got!r} != {wanted!r}")
    return wrong


def compare_run(collator: ModuleType, run: Path, data: Path, counts: Counter[str]) -> list[str]:
    """Compare the prompts of a finished run; return a line for each that differs and shows all examples."""
    recipe = json.loads((run / "recipe.json").read_text(encoding="utf-8"))["values"]
    mode = TkInstruct(**recipe["render"]["tk_instruct"])
    places = {}
    for path in sorted((run / "tasks" / "examples").glob("*.parquet")):
        table = pq.read_table(path, columns=["example", "file", "record"])
        places.update(
            (name, place) for name, *place in zip(*(table[c].to_pylist() for c in table.column_names))
        )
    wrong: list[str] = []
    tasks: dict[str, Task] = {}
    for path in sorted((run / "prompts" / "prompts").glob("*.parquet")):
        for row in pq.read_table(path).to_pylist():
            file, record = places[row["example"]]
            if file not in tasks:
                task = json.loads((data / file).read_text(encoding="utf-8"))
                tasks = {file: task | {"Task": Path(file).stem}}
            upstream = tasks[file]
            instance = upstream["Instances"][record]
            segments = [Segment(text, kind, trained) for kind, trained, text in describe_segments(row)]
            source, label = source_and_label(segments)
            num_shown = sum(
                min(len(upstream[key]), most)
                for key, most in (
                    ("Positive Examples", mode.positive_examples),
                    ("Negative Examples", mode.negative_examples),
                )
            )
            counts["run_found"] += 1
            if len(row["demonstrations"]) < num_shown:
                counts["run_with_fewer_examples"] += 1
                continue
            wanted, _ = theirs(collator, upstream, instance, mode, sys.maxsize)
            is_equal = source == wanted and label in instance["output"]
            counts["run_equal"] += is_equal
            if not is_equal:
                wrong.append(f"{row['example']}: {source!r} != {wanted!r}")
    return wrong


def digests(tasks: list[Task]) -> dict[str, str]:
    """Return a digest over our prompts of all tasks for each mode."""
    found = {}
    for mode in (*MODES, WITH_NAME):
        whole = hashlib.sha256()
        for task in map(as_read, tasks):
            for instance in task["instances"]:
                whole.update(json.dumps(source_and_label(ours(task, instance, mode))).encode() + b"\n")
        found[mode_name(mode)] = whole.hexdigest()[:16]
    return found


def mode_name(mode: TkInstruct) -> str:
    """Return a short name of an encoding."""
    shown = [name for name in ("task_name", "definition", "explanations") if getattr(mode, name)]
    return " ".join([*shown, f"{mode.positive_examples}+{mode.negative_examples}"])


def main() -> int:
    """Compare, print figures and the share that is equal."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tk-instruct", type=Path, help="clone of yizhongw/Tk-Instruct")
    parser.add_argument("--data", type=Path, help="folder of real upstream files")
    parser.add_argument("--run", type=Path, help="finished run over --data in this encoding")
    parser.add_argument("--quick", action="store_true", help="two instances a task")
    parser.add_argument("--json", type=Path, help="write the result here")
    arguments = parser.parse_args()
    made = made_tasks()
    found = digests(made)
    counts = Counter(
        made_found=len(found), made_equal=sum(DIGESTS.get(name) == found[name] for name in found)
    )
    wrong = [
        f"made tasks, {name}: digest {found[name]}" for name in found if DIGESTS.get(name) != found[name]
    ]
    ratios = {"made_equal": counts["made_equal"] / counts["made_found"]}
    if arguments.tk_instruct is not None:
        collator = load_collator(arguments.tk_instruct)
        tasks: Any = [(task, as_read(task)) for task in made]
        if arguments.data is not None:
            tasks += upstream_tasks(arguments.data / "super_natural_instructions")
        wrong += compare(collator, tasks, 2 if arguments.quick else None, counts)
        ratios["equal"] = counts["equal"] / counts["found"]
        ratios["fitted_equal"] = counts["fitted_equal"] / counts["fitted"]
        if arguments.run is not None and arguments.data is not None:
            wrong += compare_run(collator, arguments.run, arguments.data, counts)
            ratios["run_equal"] = counts["run_equal"] / (
                counts["run_found"] - counts["run_with_fewer_examples"]
            )
    else:
        counts["found"] = counts["made_found"]
    sys.stderr.write("".join(f"{line[:600]}\n" for line in wrong[:10]))
    result = {
        "ratios": {name: round(ratio, 6) for name, ratio in ratios.items()},
        "figures": dict(counts),
        "versions": {"python": platform.python_version(), "numpy": metadata.version("numpy")},
    }
    sys.stdout.write(json.dumps(result, indent=1) + "\n")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return bool(wrong)


if __name__ == "__main__":
    raise SystemExit(main())
