"""Every cast with a shape: an invented example of it renders with each template that the library has for the shape."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import test_casts as casts
from hub_rows import ROWS
from test_exmix_t5_casts import CASES

from taskmill.curation.casting import casts_by_folder, known_casts, load_cast
from taskmill.curation.sources._cast_record import caster
from taskmill.storage import canonical_json
from taskmill.templates.composing.schemas import Rendered
from taskmill.templates.drawing.examples import Example
from taskmill.templates.rendering.renderer import Renderer
from taskmill.templates.rendering.variants import task_variants

CODE = {
    "func_name": "f",
    "url": "u",
    "repo": "r",
    "language": "python",
    "docstring": "Add.",
    "code": "a + b",
    "code_tokens": ["a", "+", "b"],
}
PAIR = {"en": "A gull.", "de": "Eine Möwe.", "fr": "Une mouette."}
RECORDS: dict[str, dict[str, Any]] = {
    "apps": {"question": "Add two numbers.", "solutions": '["print(1)"]', "problem_id": 1},
    "boolq": {"question": "is it wet", "passage": "It rained.", "answer": True},
    "code_contests": {
        "description": "Add.",
        "name": "one",
        "solutions": {"solution": ["x = 1"], "language": [3]},
    },
    "code_search_net": CODE,
    "code_search_net_generation": CODE,
    "dialoglue_clinc": {"text": "Sail home?", "category": "sail"},
    "dialoglue_hwu": {"text": "Sail home?", "category": "sail"},
    "gsm8k": {"question": "One and one?", "answer": "It is two.\n#### 2"},
    "newsroom": {"text": "A long report.", "title": "Report", "summary": "Brief."},
    "truthfulqa": {
        "Question": "Is it wet?",
        "Best Answer": "Now and then",
        "Correct Answers": "Now and then; in rain",
        "Incorrect Answers": "Never",
        "Category": "c",
        "Type": "t",
        "Source": "s",
    },
    **dict.fromkeys(("wmt14_en_fr", "wmt15_en_fr", "wmt19_en_de", "wmt_t2t_en_de"), PAIR),
}
"""One record of each cast that neither serves templates nor has files in the tests of ExMix and T5."""
SERVED: dict[str, list[str]] = {}
"""Cast -> the data sets of `hub_rows` that it reads."""
for data_set, its_cast in casts_by_folder([]).items():
    if data_set in ROWS:
        SERVED.setdefault(its_cast.name, []).append(data_set)
SHAPED = {name: cast for name in known_casts([]) if (cast := load_cast(name, [])).shape}


def columns(name: str, folder: Path) -> dict[str, list[Any]]:
    """Return fields, references and options of one or more examples of a cast, as a keywords task has them."""
    cast = SHAPED[name]
    served = SERVED.get(name, [])
    if served:
        casts.write_hub(folder, served[0], [ROWS[served[0]][0]])
    elif name in CASES:
        for file, content in CASES[name][0].items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(content, encoding="utf-8", newline="")
    else:
        made = caster(cast, keywords=True)(RECORDS[name])
        return {key: [made[key]] for key in ("fields", "references", "options")}
    found = casts.read(folder, cast, keywords=True, name=served[0] if served else None).columns
    return {"fields": found.fields, "references": found.references, "options": found.options}


def test_the_records_are_those_that_are_wanted() -> None:
    tried = {*SERVED, *CASES}
    assert set(SHAPED) - tried == set(RECORDS) and len(SHAPED) >= 119


@pytest.mark.parametrize("name", SHAPED)
def test_a_cast_renders_with_every_template_of_its_shape(name: str, tmp_path: Path) -> None:
    cast, found = SHAPED[name], columns(name, tmp_path)
    metadata: str = json.dumps({"shape": cast.shape})
    row = {"task": f"t5/{name}", "style": "keywords", "metadata": metadata, "output_fields": []}
    row["definition"] = cast.facts["definition"]
    variants = task_variants(row, [], Renderer(0, 100_000)).variants
    assert len(variants) >= 2
    kept = 0
    for fields, references, options in zip(*found.values(), strict=True):
        if not references:
            continue
        kept += 1
        example = Example(
            f"{name}#0",
            None,
            0,
            canonical_json(fields).decode(),
            tuple(references),
            options and tuple(options),
            b"",
        )
        for variant in variants:
            made = variant.render(example)
            assert isinstance(made, Rendered), (variant.template, made)
            assert made.instruction == cast.facts["definition"] and made.target == references[0]
            assert not re.search(r"[ \t]\n\n?$|\n\n\n", made.source) and made.source == made.source.strip()
            assert not options or all(option.strip() in made.source for option in options)
            assert not gives_away(made, fields, options or [])
    assert kept or name == "kilt_aidayago2"  # whose file is of the test set, without answers


def gives_away(made: Rendered, fields: dict[str, Any], options: list[str]) -> bool:
    """Say whether the words of the template, without those of fields and options, hold the answer."""
    rest = made.source
    for text in sorted([*map(str, fields.values()), *options], key=len, reverse=True):
        rest = rest.replace(text.strip(), " ") if text.strip() else rest
    return re.search(rf"(?<!\w){re.escape(made.target.strip())}(?!\w)", rest, re.IGNORECASE) is not None
