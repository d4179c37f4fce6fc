"""Recipes: every problem at once with its place and the nearest key; overrides, origins, round trips."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from taskmill import recipe_files
from taskmill.errors import RecipeError, UsageError
from taskmill.plain import build, leaves, to_json
from taskmill.recipe import Endpoint, MetaICL, Recipe, Resolved, Source
from taskmill.recipe_check import schema
from taskmill.recipe_files import from_json, load, resolved_json
from taskmill.recipe_reference import describe, help_texts
from taskmill.settings import Settings

SMALLEST = """\
name: tiny
sources:
  - {reader: flan, path: data/flan}
"""


def loaded(folder: Path, text: str, *overrides: str) -> Resolved:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return load(path, overrides)


def problems(folder: Path, text: str, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        loaded(folder, text, *overrides)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return [line.replace(f"{folder}/recipe.yaml", "FILE") for line in caught.value.problems]


def test_smallest_recipe_takes_every_default(tmp_path: Path) -> None:
    resolved = loaded(tmp_path, SMALLEST)
    assert resolved.recipe == Recipe("tiny", (Source("flan", "data/flan"),))
    assert resolved.origin["name"] == "recipe.yaml:1"
    assert resolved.origin["sources.0.reader"] == "recipe.yaml:3"
    assert resolved.origin["mix.cap"] == resolved.origin["sources.0.include"] == "default"
    assert set(resolved.origin) == {key for key, _ in leaves(to_json(resolved.recipe))}
    assert resolved.path("data") == tmp_path / "data"


def test_every_problem_is_reported_at_once(tmp_path: Path) -> None:
    text = """\
nmae: tiny
sources:
  - {reader: flann, path: data/flan}
  - {path: t5}
mix:
  cap: many
  shares: {flan: 0.5, t5: 0.4}
  auxiliary:
    reasonning: {share: 0.1}
    pretraining: {share: 0.5, unit: token, paid_by: flam}
split:
  threshold: 3
train: [1]
limit: 0
cap: 7
evaluate: {shots: [0, 5], baseline: maybe}
"""
    assert problems(tmp_path, text) == [
        "FILE:1: name: missing; it has no default",
        "FILE:1: nmae: unknown key - did you mean 'name'?",
        "FILE:3: sources.0.reader: no reader 'flann' - did you mean 'flan'?",
        "FILE:4: sources.1.reader: missing; it has no default",
        "FILE:6: mix.cap: found 'many'; expected an integer",
        "FILE:7: mix.shares: they sum to 0.9; expected 1",
        "FILE:9: mix.auxiliary.reasonning: unknown key - did you mean 'reasoning'?",
        "FILE:10: mix.auxiliary.pretraining.paid_by: no share for 'flam' - did you mean 'flan'?",
        "FILE:10: mix.auxiliary.pretraining.unit: found 'token'; expected 'prompts', 'sequences' or 'tokens'"
        " - did you mean 'tokens'?",
        "FILE:12: split.threshold: found 3; expected a number from 0 to 1",
        "FILE:13: train: found [1]; expected a mapping",
        "FILE:14: limit: found 0; expected a number of at least 1",
        "FILE:15: cap: unknown key - did you mean 'mix.cap'?",
        "FILE:16: evaluate.baseline: found 'maybe'; expected true or false",
        "FILE:16: evaluate.shots.1: found 5; expected at most render.num_demonstrations = 2",
    ]


def nested(key: str, value: Any) -> dict[str, Any]:
    """Return a recipe with one more setting, given as a dotted key of the reference."""
    base: dict[str, Any] = yaml.safe_load(SMALLEST)
    target: Any = base
    parts = [part for part in key.replace("[]", ".0").replace("<name>", "reasoning").split(".") if part]
    for part, after in zip(parts, [*parts[1:], "?"]):
        if after == "?":
            target[part] = value
        elif part == "0":
            target = target[0]
        else:
            target = target.setdefault(part, [{}] if after == "0" else {})
    return base


@pytest.mark.parametrize("key", [key for key, _, _ in describe()])
def test_mistyped_key_is_named_with_the_right_one(tmp_path: Path, key: str) -> None:
    parent, _, last = key.rpartition(".")
    wrong = last[: len(last) // 2 + 1] + "x" + last[len(last) // 2 + 1 :]
    text = yaml.safe_dump(nested(f"{parent}.{wrong}" if parent else wrong, 1), sort_keys=False)
    found = [line for line in problems(tmp_path, text) if "unknown key" in line]
    line = next(n for n, t in enumerate(text.splitlines(), 1) if f"{wrong}:" in t)
    dotted = f"{parent}.{wrong}".replace("[]", ".0").replace("<name>", "reasoning").strip(".")
    assert found == [f"FILE:{line}: {dotted}: unknown key - did you mean {last!r}?"]


def test_settings_of_other_trainers_are_named_as_here(tmp_path: Path) -> None:
    from taskmill.recipe_check import _OF_PEERS

    known = {key for key, _, _ in describe()}
    assert set(_OF_PEERS.values()) <= known and not {f"train.{key}" for key in _OF_PEERS} & known
    found = problems(tmp_path, SMALLEST + "train: {lr: 1.0e-5, num_train_epochs: 3}\n")
    assert found == [
        "FILE:4: train.lr: unknown key - did you mean 'train.learning_rate'?",
        "FILE:4: train.num_train_epochs: unknown key - did you mean 'mix.epochs'?",
    ]


def test_a_colon_without_its_space_is_told(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, SMALLEST + "mix: {shares: {flan:1.0}}\n")[:1]
    assert "flan:1.0: found None" in found and "a space behind the colon" in found


def test_a_mixture_that_is_no_mapping_is_told_once(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, SMALLEST, "mix=3")
    assert found.endswith("mix: found 3; expected a mapping")


@pytest.mark.parametrize("section", [s for s in to_json(Recipe("a", ())) if s != "name"])
def test_mistyped_section_is_named_with_the_right_one(tmp_path: Path, section: str) -> None:
    text = SMALLEST + f"{section}e: 1\n"
    assert f"FILE:4: {section}e: unknown key - did you mean {section!r}?" in problems(tmp_path, text)


@pytest.mark.parametrize("key,kind", [(k, t) for k, t, _ in describe() if "anything" not in t])
def test_wrong_type_is_named_with_the_expectation(tmp_path: Path, key: str, kind: str) -> None:
    wrong: Any = 5 if kind.startswith("text") or "list" in kind or "mapping" in kind else "xyzzy"
    found = problems(tmp_path, yaml.safe_dump(nested(key, wrong), sort_keys=False))
    dotted = key.replace("[]", ".0").replace("<name>", "reasoning")
    (line,) = [x for x in found if f": {dotted}: found {wrong!r}; expected " in x]
    if "|" not in kind:
        word = {"integer": "an integer", "number": "a number"}.get(kind, kind)
        assert word.split(" of ")[0].removeprefix("a ") in line


@pytest.mark.parametrize(
    "text,expected",
    [
        ("", "FILE:1: the recipe is empty"),
        ("# nothing\n---\n", "FILE:1: the recipe is empty"),
        ("- name: x\n", "FILE:1: found [{'name': 'x'}]; expected a mapping"),
        ("just text\n", "FILE:1: found 'just text'; expected a mapping"),
        ("name: [1\n", "FILE:2: not valid YAML"),
        ("name: a\n\tb: 1\n", "FILE:2: not valid YAML"),
        ("name: a\x00\n", "not valid YAML"),
        ("a: 1\n---\nb: 2\n", "FILE:2: not valid YAML"),
        (SMALLEST + "name: again\n", "FILE:4: name: given twice; expected once"),
        (SMALLEST + "seed: !!python/object/apply:os.system ['true']\n", "FILE:4: seed: the tag"),
        (SMALLEST + "plan: !custom {partial: []}\n", "FILE:4: plan: the tag '!custom' is not allowed"),
        (SMALLEST + "seed: !custom 3\n", "FILE:4: seed: cannot read '3': the tag '!custom' builds an object"),
        (SMALLEST + "seed: *nowhere\n", "FILE:4: not valid YAML: found undefined alias"),
        (
            SMALLEST + "plan: &a {held_out: *a}\n",
            "FILE:4: not valid YAML: the alias *a stands within what it stands for",
        ),
        (SMALLEST + "seed: " + "[" * 60 + "]" * 60 + "\n", "FILE:4: not valid YAML: more than 30 levels"),
        (SMALLEST + "seed: " + "[" * 5000 + "\n", "FILE:4: not valid YAML: more than 30 levels"),
        (SMALLEST + "? [a]\n: 1\n", "FILE:4: recipe: a key must be plain text"),
        (
            SMALLEST + "split: {threshold: .nan}\n",
            "FILE:4: split.threshold: found '.nan'; expected a finite number",
        ),
        (SMALLEST + "split: {threshold: -.inf}\n", "expected a finite number"),
        (SMALLEST + f"seed: {'9' * 40}\n", "FILE:4: seed: found a number of more than 64 bits"),
        (SMALLEST + f"seed: {'9' * 5000}\n", "FILE:4: seed: "),
        ("name: a/b\nsources: []\n", "FILE:1: name: found 'a/b'; expected a name that can be a folder's"),
        ("name: a\nsources: []\n", "FILE:2: sources: empty"),
        (SMALLEST + "evaluate: {shots: []}\n", "FILE:4: evaluate.shots: empty"),
        (SMALLEST + "train: {betas: [0.9]}\n", "FILE:4: train.betas.1: missing"),
        (
            SMALLEST + "train: {betas: [0.9, 2]}\n",
            "FILE:4: train.betas.1: found 2; expected a number from 0 to 1",
        ),
        (SMALLEST + "train: {architecture: {num_heads: 3}}\n", "train.architecture.hidden_size: found 128"),
        (SMALLEST + "train: {revision: main}\n", "train.revision: given without train.model"),
        (SMALLEST + "tokenize: {revision: v1}\n", "tokenize.revision: given without tokenize.tokenizer"),
        (
            SMALLEST + "split:\n  rules:\n  - {name: a, action: keep}\n  - {name: a, action: keep}\n",
            "FILE:7: split.rules.1.name: a second rule 'a'",
        ),
        (SMALLEST + "seed: yes\n", "FILE:4: seed: found True; expected an integer"),
        (SMALLEST + "mix: {num_prompts: 2.5}\n", "FILE:4: mix.num_prompts: found 2.5; expected an integer"),
    ],
)
def test_bad_file_is_one_message(tmp_path: Path, text: str, expected: str) -> None:
    assert any(expected in line for line in problems(tmp_path, text)), expected


def test_billion_laughs_is_refused(tmp_path: Path) -> None:
    levels = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1]"]
    levels += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 8)}]" for i in range(1, 9)]
    assert "with what aliases stand for" in problems(tmp_path, "\n".join(levels))[0]


def test_unreadable_file(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(UsageError, match="not UTF-8 text"):
        load(tmp_path / "recipe.yaml")
    with pytest.raises(UsageError, match="No such file"):
        load(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match="no recipe file, shipped recipe or run directory is called 'nnn'"):
        recipe_files.find("nnn")


def test_numbers_without_a_point_are_numbers(tmp_path: Path) -> None:
    resolved = loaded(
        tmp_path, SMALLEST + "train: {learning_rate: 5e-5, weight_decay: 1}\n", "split.threshold=1e-2"
    )
    assert resolved.recipe.train.learning_rate == 5e-5
    assert isinstance(resolved.recipe.train.weight_decay, float)
    assert resolved.recipe.split.threshold == 0.01
    assert loaded(tmp_path, SMALLEST.replace("tiny", "'1e5'")).recipe.name == "1e5"


def test_set_overrides_with_types_lists_and_origins(tmp_path: Path) -> None:
    resolved = loaded(
        tmp_path,
        SMALLEST + "mix: {cap: 5, block: 100}\n",
        "mix.cap=512",
        "sources.0.path=elsewhere",
        "plan.held_out.categories=[Textual Entailment, Coreference]",
        "mix.shares={flan: 1}",
        "limit=",
        "mix.auxiliary.reasoning={share: 0.05, paid_by: flan}",
        "name=2020-01-01",
        "mix.cap=513",
    )
    values = resolved.recipe
    assert (values.mix.cap, values.mix.block, values.limit, values.name) == (513, 100, None, "2020-01-01")
    assert values.sources[0].path == "elsewhere" and values.sources[0].reader == "flan"
    assert values.plan.held_out.categories == ("Textual Entailment", "Coreference")
    assert values.mix.shares == {"flan": 1.0} and values.mix.auxiliary["reasoning"].paid_by == "flan"
    assert resolved.origin["mix.cap"] == resolved.origin["sources.0.path"] == "--set"
    assert resolved.origin["mix.auxiliary.reasoning.share"] == "--set"
    assert resolved.origin["mix.block"] == "recipe.yaml:4"
    assert resolved.origin["sources.0.reader"] == "recipe.yaml:3"


@pytest.mark.parametrize(
    "item,expected",
    [
        ("mix.cap", "expected KEY=VALUE"),
        ("=3", "expected KEY=VALUE"),
        ("mix..cap=3", "expected KEY=VALUE"),
        ("sources.4.path=x", "does not lead anywhere"),
        ("name.first=x", "does not lead to a setting"),
        ("name.a.b=x", "does not lead anywhere"),
        ("mix.cap=[", "not valid YAML"),
        ("mix.cap=!!set {a}", "--set mix.cap=!!set {a}: recipe: the tag"),
        ("mix.cap=many", "--set mix.cap=many: mix.cap: found 'many'; expected an integer"),
        ("mix.capp=3", "--set mix.capp=3: mix.capp: unknown key - did you mean 'cap'?"),
        ("mxi.cap=3", "--set mxi.cap=3: mxi: unknown key - did you mean 'mix'?"),
        ("split.threshold=.nan", "expected a finite number"),
        ("mix.shares={1: 0.5}", "--set mix.shares={1: 0.5}: mix.shares: they sum to 0.5"),
        ("mix.cap=0", "--set mix.cap=0: mix.cap: found 0; expected a number of at least 1"),
    ],
)
def test_bad_override_is_named(tmp_path: Path, item: str, expected: str) -> None:
    with pytest.raises((RecipeError, UsageError)) as caught:
        loaded(tmp_path, SMALLEST, item)
    assert expected in str(caught.value) and caught.value.exit_code == 2


def test_round_trip_through_json(tmp_path: Path) -> None:
    resolved = loaded(
        tmp_path, SMALLEST, "mix.shares={flan: 1}", "mix.auxiliary.chat={share: 0.1, unit: tokens}"
    )
    values = json.loads(json.dumps(to_json(resolved.recipe)))
    assert build(Recipe, values) == resolved.recipe
    (tmp_path / "recipe.json").write_text(json.dumps(resolved_json(resolved)))
    again = from_json(tmp_path)
    assert again == resolved
    changed = from_json(tmp_path, ("mix.cap=9",))
    assert changed.recipe.mix.cap == 9 and changed.recipe.mix.shares == {"flan": 1.0}
    assert changed.origin["mix.cap"] == "--set" and changed.origin["name"] == "recipe.yaml:1"
    with pytest.raises(RecipeError, match=r"--set mix\.cpa=9: mix\.cpa: unknown key - did you mean .cap."):
        from_json(tmp_path, ("mix.cpa=9",))


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"base": ".", "text": "", "values": []}', '{"values": {"x": 1}}']
)
def test_damaged_recipe_json_is_one_message(tmp_path: Path, text: str) -> None:
    (tmp_path / "recipe.json").write_text(text)
    with pytest.raises(UsageError, match="not the resolved recipe of a run"):
        from_json(tmp_path)


BLOCKED = """
import sys
sys.modules.update(dict.fromkeys(("pydantic", "yaml")))
from taskmill import recipe_files
from taskmill.errors import UsageError
assert recipe_files.find(sys.argv[1]).recipe.name == "tiny"
try:
    recipe_files.find(sys.argv[2])
except UsageError as error:
    assert "pip install" in str(error), error
else:
    raise SystemExit("a YAML recipe was read without pydantic")
"""


def test_run_directory_needs_no_pydantic(tmp_path: Path) -> None:
    resolved = loaded(tmp_path, SMALLEST)
    (tmp_path / "recipe.json").write_text(json.dumps(resolved_json(resolved)))
    arguments = [sys.executable, "-c", BLOCKED, str(tmp_path), str(tmp_path / "recipe.yaml")]
    subprocess.run(arguments, check=True)


def test_settings_give_declared_sections_only(tmp_path: Path) -> None:
    settings = Settings(loaded(tmp_path, SMALLEST, "limit=3"), ("mix", "plan"))
    assert settings.mix.cap == 4096 and settings.limit == 3 and set(settings.values()) == {"mix", "plan"}
    assert settings.data_root == tmp_path
    with pytest.raises(AttributeError, match="'train' is not among the declared"):
        settings.train  # noqa: B018


def test_every_shipped_recipe_is_right() -> None:
    for name in recipe_files.shipped():
        assert recipe_files.find(name).recipe.name


def test_schema_and_reference_know_every_key() -> None:
    assert set(schema()["properties"]) == set(to_json(Recipe("a", ())))
    described = {key for key, _, _ in describe()}
    inside = {
        re.sub(r"(\[\]|\.<name>)\..*", "", key) for key in described if "[]." in key or ".<name>." in key
    }
    plain = {k for k, _ in leaves(to_json(Recipe("a", ()))) if ".rules." not in k}
    assert {k for k in plain if k not in described} - inside == {"curate.max_examples_by_benchmark.flan"}
    assert {"sources", "evaluate.tasks", "mix.auxiliary", "render.conditions"} <= inside


def test_reference_shows_the_keys_of_sections_that_may_be_null() -> None:
    found = {key: (kind, default) for key, kind, default in describe()}
    texts = help_texts()
    assert found["evaluate.endpoint"] == found["render.metaicl"] == ("mapping | null", "null")
    assert found["evaluate.endpoint.url"] == ("text", "required")
    assert found["render.metaicl.exponent"] == ("number", "4.0")
    assert "server" in texts["evaluate.endpoint"] and "http" in texts["evaluate.endpoint.url"]


def test_sections_that_may_be_null_can_be_given_whole_in_part_and_key_by_key(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(SMALLEST + "render: {metaicl: {exponent: 2.0}}\n")
    one_by_one = (
        "evaluate.endpoint.url=http://x/v1",
        "evaluate.endpoint.model=m",
        "render.metaicl.exponent=3",
    )
    found = load(path, one_by_one)
    assert found.recipe.evaluate.endpoint == Endpoint("http://x/v1", "m")
    assert found.recipe.render.metaicl == MetaICL(exponent=3.0)
    assert found.origin["evaluate.endpoint.url"] == found.origin["render.metaicl.exponent"] == "--set"
    whole = load(path, ("evaluate.endpoint={url: http://x/v1, model: m, api: chat}",))
    assert whole.recipe.evaluate.endpoint == Endpoint("http://x/v1", "m", "chat")
    none = load(path, ("evaluate.endpoint=", "render.metaicl=null"))
    assert none.recipe.evaluate.endpoint is None and none.recipe.render.metaicl is None
    assert problems(tmp_path, SMALLEST, "evaluate.endpoint.url=http://x/v1") == [
        "--set evaluate.endpoint.url=http://x/v1: evaluate.endpoint.model: missing; it has no default"
    ]


def test_the_order_of_keys_does_not_count(tmp_path: Path) -> None:
    rows = ("{train: a.jsonl, test: b.jsonl}", "{test: b.jsonl, train: a.jsonl}")
    found = []
    for number, files in enumerate(rows):
        path = tmp_path / f"{number}.yaml"
        path.write_text(f"name: r\nsources: [{{reader: table, options: {{files: {files}, task: t}}}}]\n")
        found.append(json.dumps(to_json(load(path).recipe)))
    assert found[0] == found[1] and json.loads(found[0])["sources"][0]["options"]["files"] == {
        "test": "b.jsonl",
        "train": "a.jsonl",
    }
