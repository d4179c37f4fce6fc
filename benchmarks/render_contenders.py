"""The contenders of `render.py`, each for a fresh process: our stage, a bare Jinja loop, PromptSource's own engine.

All are given the same pairs of example and template, those that our stage kept; each prints one line of JSON: prompts,
processor seconds of the process with all its threads (`seconds`), wall seconds and peak memory. Imports do not count.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
from measuring import peak_megabytes

from taskmill.artifact import Inputs
from taskmill.engine import leave_pandas_out
from taskmill.recipe import Render
from taskmill.records import DIRECTORIES
from taskmill.templates import build as stage
from taskmill.templates.rendering.library import load_library
from taskmill.templates.rendering.renderer import Renderer

TURNS = "{% for turn in turns %}{% for text in turn.values() %}{{ text }}\n{% endfor %}{% endfor %}"
"""What the bare loop renders of an example that comes with its turns."""
_ANSWER = "\nAnswer: {{ reference }}"
AROUND = {
    "task": ("Task: {{ definition }}\n\nInput: ", _ANSWER),
    "keywords": ("{{ definition }}\n", _ANSWER),
    "instance": ("", _ANSWER),
    "chat": ("", "{{ reference }}"),
    "reasoning": ("INSTRUCTION\n\n", "\nAnswer: {{ rationale }} The answer is {{ reference }}."),
}
"""Style -> what stands before and after the input in the two-part prompts of the library's templates."""


def timed(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what `work` returns, with its processor and wall seconds."""
    leave_pandas_out()
    wall, processor = time.perf_counter(), time.process_time()
    found = work()
    seconds = {"seconds": time.process_time() - processor, "wall": time.perf_counter() - wall}
    return {**seconds, **found, "peak_mb": peak_megabytes()}


# ---------------------------------------------------------------------------------------------- ours


def ours(run: Path, out: Path) -> dict[str, Any]:
    """Render every shard of the run in this process, as a worker of the stage does."""
    inputs = Inputs({name: run / DIRECTORIES[name] for name in ("curate", "overlap", "split")})

    def work() -> dict[str, Any]:
        made = Counter[str]()
        parts = {"prompts": 0.0, "template_prompts": 0.0, "template_seconds": 0.0}
        for plan in stage.plan_shards(inputs):
            started = time.process_time()
            job = stage.RenderJob(plan, out, "", Render(), 0, run, stage.MAX_BATCH)
            made.update(stage.render_shard(job).counts)
            if plan.templates:
                parts["template_seconds"] += time.process_time() - started
                parts["template_prompts"] += made["prompts"] - parts["prompts"]
            parts["prompts"] = made["prompts"]
        return parts

    return timed(work)


# ----------------------------------------------------------------------------------------- the others


def pairs_of(run: Path, prompts: Path, shard: str) -> list[tuple[int, str]]:
    """Return (row of the examples, template) of a shard's prompts, in row order."""
    table = pq.read_table(prompts / f"{shard}.parquet", columns=["example", "template"])
    names = pq.read_table(run / "tasks" / "examples" / f"{shard}.parquet", columns=["example"])["example"]
    rows = {name: row for row, name in enumerate(names.to_pylist())}
    found = zip(table["example"].to_pylist(), table["template"].to_pylist(), strict=True)
    return sorted((rows[example], template) for example, template in found)


def sources(run: Path, whole: bool) -> dict[str, tuple[str, str | None]]:
    """Return the text of every template, `whole` with what a prompt has around it, and of its answer choices."""
    found: dict[str, tuple[str, str | None]] = {}
    for template in load_library().values():
        before, after = AROUND.get(template.style, ("", "")) if whole else ("", "")
        instruction = template.metadata.get("instruction", "")
        found[template.id] = (before.replace("INSTRUCTION", instruction) + template.body + after, None)
    table = pq.read_table(run / "tasks" / "templates.parquet", columns=["template", "body", "choices"])
    found |= {row["template"]: (row["body"], row["choices"]) for row in table.to_pylist()}
    return found | {"chat/turns": (TURNS, None), "dialogue/turns": (TURNS, None)}


def shards_of(run: Path) -> list[str]:
    """Return the names of the shards that have prompts."""
    return sorted(path.stem for path in (run / "tasks" / "examples").glob("*.parquet"))


def loader() -> Callable[[str], Any]:
    """Return the fastest JSON parser that is installed."""
    try:
        import orjson
    except ImportError:
        return json.loads
    return orjson.loads  # type: ignore[no-any-return]


def bare(run: Path, out: Path, whole: bool = True, fast: bool = False) -> dict[str, Any]:
    """Read Parquet, decode, render each pair with a compiled template of a plain environment, write one Parquet file.

    `whole`: templates of the library, which show an example's input, are given the instruction and the answer around
    it, so that the texts written are those of the prompts; otherwise their own text alone is rendered. `fast`: orjson.
    """
    bodies = sources(run, whole)
    pairs = {shard: pairs_of(run, out, shard) for shard in shards_of(run)}
    table = pq.read_table(run / "tasks" / "tasks.parquet", columns=["task", "definition"])
    definitions = dict(zip(table["task"].to_pylist(), table["definition"].to_pylist(), strict=True))
    load = loader() if fast else json.loads

    def work() -> dict[str, Any]:
        compiler = Compiler(bodies)
        number = 0
        schema = pa.schema([("text", pa.string())])
        with pq.ParquetWriter(out / "bare.parquet", schema, compression="zstd") as writer:
            for shard, own in pairs.items():
                file = run / "tasks" / "examples" / f"{shard}.parquet"
                table = pq.read_table(file, columns=["task", "fields", "options", "references"])
                fields, options, tasks, references = (
                    table[name].to_pylist() for name in ("fields", "options", "task", "references")
                )
                texts = []
                for row, template in own:
                    values = load(fields[row])
                    if references[row]:
                        values["reference"] = references[row][0]
                    if options[row]:
                        values["options"] = options[row]
                    values["definition"] = definitions[tasks[row]]
                    texts.append(compiler.render(values, template))
                writer.write_table(pa.table({"text": texts}, schema=schema))
                number += len(texts)
        return {"prompts": number}

    return timed(work)


class Compiler:
    """Compiles each template once, in a plain environment."""

    def __init__(self, bodies: dict[str, tuple[str, str | None]]) -> None:
        """Take the text of each template, and of its answer choices."""
        self._bodies = bodies
        self._plain = jinja2.Environment()
        self._plain.globals.update(zip=zip)
        self._plain.filters["choice"] = lambda items: items[0]
        self._plain.filters["most_frequent"] = lambda items: items
        self._ours = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
        self._compiled: dict[str, tuple[Any, Any]] = {}

    def render(self, values: dict[str, Any], template: str) -> str:
        """Return the text of a template over an example's fields."""
        if template not in self._compiled:
            body, choices = self._bodies[template]
            made = (self._plain if "|||" in body else self._ours).from_string(body)
            self._compiled[template] = (made, None if choices is None else self._plain.from_string(choices))
        made, choices = self._compiled[template]
        if choices is not None:
            values["answer_choices"] = choices.render(values).split(" ||| ")
        text: str = made.render(values)
        return text


def promptsource(run: Path, out: Path, clone: Path | None, most: int, whole: bool) -> dict[str, Any]:
    """Render pairs with PromptSource's own engine, which parses for each; about `most` of them, evenly taken.

    `whole`: pairs of all templates, with the texts of `bare`; otherwise of PromptSource's templates alone.
    """
    from promptsource_engines import Plain, PromptSource, Template

    engine: Any = Plain() if clone is None else PromptSource(clone)
    bodies = sources(run, True)
    made = {
        name: Template("", name, {"name": name, "body": body, "choices": choices})
        for name, (body, choices) in bodies.items()
    }
    pairs = every_variant(run, out)
    if whole:
        pairs = [(shard, *pair) for shard in shards_of(run) for pair in pairs_of(run, out, shard)]
    wanted = pairs[:: max(1, len(pairs) // most)]
    given = list(_values(run, wanted))
    load = loader()

    def work() -> dict[str, Any]:
        for fields, around, template in given:
            with contextlib.suppress(jinja2.TemplateError):  # as some templates fail on some rows
                engine.apply(made[template], {**load(fields), **around})
        return {"prompts": len(given)}

    return timed(work)


def every_variant(run: Path, out: Path) -> list[tuple[str, int, str]]:
    """Return (shard, row, template): every example that has a prompt of a PromptSource template, with all such of its task."""
    table = pq.read_table(run / "tasks" / "templates.parquet", columns=["template", "task"])
    task_of = dict(zip(table["template"].to_pylist(), table["task"].to_pylist(), strict=True))
    found = [(shard, *pair) for shard in shards_of(run) for pair in pairs_of(run, out, shard)]
    templates: dict[str, set[str]] = {}
    for _, _, template in found:
        if template in task_of:
            templates.setdefault(task_of[template], set()).add(template)
    examples = dict.fromkeys((shard, row, task_of[name]) for shard, row, name in found if name in task_of)
    return [(shard, row, template) for shard, row, task in examples for template in sorted(templates[task])]


def ours_engine(run: Path, out: Path) -> dict[str, Any]:
    """Render every PromptSource template of every example with ours: compiled once, fields decoded, sandbox and all."""
    table = pq.read_table(run / "tasks" / "templates.parquet").to_pylist()
    rows = {row["template"]: row for row in table}
    pairs = every_variant(run, out)
    fields: dict[tuple[str, int], str] = {}
    for shard in {shard for shard, _, _ in pairs}:
        column = pq.read_table(run / "tasks" / "examples" / f"{shard}.parquet", columns=["fields"])["fields"]
        fields |= {(shard, row): text for row, text in enumerate(column.to_pylist())}

    def work() -> dict[str, Any]:
        renderer = Renderer(0, Render().max_characters)
        for shard, row, template in pairs:
            renderer.promptsource(rows[template], fields[shard, row], f"{shard}#{row}")
        return {"prompts": len(pairs)}

    return timed(work)


def _values(run: Path, wanted: list[tuple[str, int, str]]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield fields (JSON), what else a template of `bare` reads, and the template of each (shard, row, template)."""
    columns = ["fields", "options", "references"]
    upstream = set(
        pq.read_table(run / "tasks" / "templates.parquet", columns=["template"])["template"].to_pylist()
    )
    for shard, group in itertools.groupby(wanted, key=lambda pair: pair[0]):
        table = pq.read_table(run / "tasks" / "examples" / f"{shard}.parquet", columns=columns)
        for _, row, template in group:
            fields, options, references = (table[name][row].as_py() for name in columns)
            around = {"reference": (references or [""])[0], "options": options or [], "definition": "Do it."}
            yield fields, {} if template in upstream else around, template


def contend() -> None:
    """Run the contender that the command line names: NAME RUN OUT [CLONE MOST]."""
    name, run, out, *rest = sys.argv[1:]
    folder = Path(out)
    if name.startswith("promptsource"):
        clone = Path(rest[0]) if rest[0] else None
        found = promptsource(Path(run), folder, clone, int(rest[1]), name == "promptsource_all")
    else:
        contenders = {
            "ours": ours,
            "ours_engine": ours_engine,
            "bare": bare,
            "fast_bare": partial(bare, fast=True),
            "bare_bodies": partial(bare, whole=False),
        }
        found = contenders[name](Path(run), folder)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    contend()
