"""Commands that need no run: what is known of tasks and recipes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click


@click.group()
def tools() -> None:
    """Hold the commands until `cli` takes them."""


@tools.group("taxonomy")
def taxonomy_group() -> None:
    """Show, check or compare what is known of tasks: category, data set, licence and more.

    \b
    Example:
      taskmill taxonomy show
    """


@taxonomy_group.command("show")
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...")
@click.option("--category", help="Only tasks of this category.")
@click.option("--dataset", help="Only tasks of this data set, by any of its names.")
@click.option(
    "--taxonomy",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A file above the shipped ones.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def taxonomy_show(
    patterns: tuple[str, ...],
    category: str | None,
    dataset: str | None,
    files: tuple[Path, ...],
    as_json: bool,
) -> None:
    """List the rows of tasks that match PATTERN; without any, count tasks and categories by benchmark.

    \b
    Example:
      taskmill taxonomy show "flan/*" --category "Textual Entailment"
    """
    from taskmill.commands.taxonomy import show

    show(patterns, category, dataset, files, as_json)


@taxonomy_group.command("check")
@click.argument("targets", nargs=-1, metavar="[FILE]... | [RECIPE]")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting of the recipe."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def taxonomy_check(targets: tuple[str, ...], overrides: tuple[str, ...], as_json: bool) -> None:
    """Find mistakes in taxonomy FILEs, or tasks of RECIPE's sources without a row; exit code 1 for problems.

    Without an argument the shipped files are checked. Warnings name what may be meant, such as a new category.

    \b
    Example:
      taskmill taxonomy check demo
    """
    from taskmill.commands.taxonomy import check

    if check(targets, overrides, as_json):
        raise SystemExit(1)


@taxonomy_group.command("diff")
@click.argument("old")
@click.argument("new")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def taxonomy_diff(old: str, new: str, as_json: bool) -> None:
    """Show what differs between the taxonomy files OLD and NEW; `shipped` means the package's own.

    \b
    Example:
      taskmill taxonomy diff shipped mine.csv
    """
    from taskmill.commands.taxonomy import diff

    diff(old, new, as_json)


@tools.command("facts")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Folder of upstream files, for the figures that need them.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def facts_command(data: Path | None, as_json: bool) -> None:
    """Show the figures that the papers publish beside what this package computes; exit code 1 if one is off unexplained.

    \b
    Example:
      taskmill facts
    """
    from taskmill.commands.facts.facts import show

    if show(data, as_json):
        raise SystemExit(1)


@tools.group("recipes")
def recipes_group() -> None:
    """List, show or describe recipes.

    \b
    Example:
      taskmill recipes list
    """


@recipes_group.command("list")
def recipes_list() -> None:
    """List the shipped recipes.

    \b
    Example:
      taskmill recipes list
    """
    from taskmill.recipe_files import shipped

    found = shipped()
    width = max(map(len, found))
    for name, path in found.items():
        first = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        click.echo(f"{name:<{width}} {first}")


@recipes_group.command("show")
@click.argument("recipe")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting of the recipe."
)
@click.option("--json", "as_json", is_flag=True, help="Print the resolved values and origins as JSON.")
def recipes_show(recipe: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Show every resolved setting of RECIPE and where it comes from.

    \b
    Example:
      taskmill recipes show demo
    """
    from taskmill import recipe_files
    from taskmill.plain import leaves, to_json

    resolved = recipe_files.find(recipe, overrides)
    values = to_json(resolved.recipe)
    if as_json:
        click.echo(json.dumps({"origin": resolved.origin, "values": values}, sort_keys=True))
        return
    for key, value in leaves(values):
        click.echo(f"{key} = {json.dumps(value)}  # {resolved.origin[key]}")


@recipes_group.command("layouts")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def recipes_layouts(name: str | None, as_json: bool) -> None:
    """List published divisions of tasks into levels, or show the one called NAME: source, notes and plan.

    A recipe takes one with `plan: {layout: NAME}`. NAME may also be a YAML file of the same form.

    \b
    Example:
      taskmill recipes layouts opt-iml
    """
    from taskmill.commands.layouts import show

    show(name, as_json)


@recipes_group.command("schema")
@click.option("--json", "as_json", is_flag=True, help="Print the JSON schema.")
def recipes_schema(as_json: bool) -> None:
    """Print every setting: its type, its default and what it does.

    \b
    Example:
      taskmill recipes schema
    """
    from taskmill.recipe_reference import describe, help_texts

    if as_json:
        from taskmill.recipe_check import schema

        click.echo(json.dumps(schema(), indent=1, sort_keys=True))
        return
    texts = help_texts()
    for key, kind, default in describe():
        click.echo(f"{key}: {kind} = {default}")
        if key in texts:
            click.echo(f"    {texts[key]}")


@tools.group("templates")
def templates_group() -> None:
    """List templates, show one, find mistakes in them, or preview them on records.

    \b
    Example:
      taskmill templates list --style keywords
    """


@templates_group.command("list")
@click.argument("target", required=False, metavar="[RUN|RECIPE]")
@click.option("--style", help="Only templates of this style.")
@click.option("--shape", help="Only templates of this shape.")
@click.option("--task", help="Only templates of tasks that match this pattern.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def templates_list(
    target: str | None, style: str | None, shape: str | None, task: str | None, as_json: bool
) -> None:
    """List the library's templates, those of a RECIPE, and those that the tasks of a RUN bring.

    Once the run has prompts, each template is listed with how many it gave and what was dropped.

    \b
    Example:
      taskmill templates list --style keywords --shape pair
    """
    from taskmill.commands.templates import Filters, list_templates

    list_templates(target, Filters(style, shape, task), as_json)


@templates_group.command("show")
@click.argument("template", metavar="ID")
@click.argument("target", required=False, metavar="[RUN|RECIPE]")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def templates_show(template: str, target: str | None, as_json: bool) -> None:
    """Show one template: its text, the fields it reads, options, metadata and whether it takes part.

    ID may be the beginning of an id, or a name. Templates of tasks need the RUN.

    \b
    Example:
      taskmill templates show keywords/pair-1
    """
    from taskmill.commands.templates import show

    show(template, target, as_json)


@templates_group.command("lint")
@click.argument("target", required=False, metavar="[PATH|RUN]")
@click.option("-n", "count", type=click.IntRange(min=1), default=20, help="Records of a task to try [20].")
@click.option("--strict", is_flag=True, help="Exit with code 1 for warnings too.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def templates_lint(target: str | None, count: int, strict: bool, as_json: bool) -> None:
    """Find mistakes in templates: of a PATH, of a RUN's tasks over some of their records, or of the library.

    PATH is a YAML file of templates, a folder of such files, or PromptSource's folder of templates.yaml files. Exit
    code 1 for errors.

    \b
    Example:
      taskmill templates lint runs/demo
    """
    from taskmill.commands.templates_lint import lint

    if lint(target, count, as_json, strict):
        raise SystemExit(1)


@templates_group.command("render")
@click.argument("templates", metavar="TEMPLATE[,TEMPLATE]...")
@click.option("--run", help="Preview on records of this run; its stage curate is enough.")
@click.option("--fields", metavar="JSON|FILE", help="Preview on this record: an object of fields.")
@click.option("--task", help="Records of this task.")
@click.option("--example", help="This record.")
@click.option("-n", "count", type=click.IntRange(min=1), default=2, help="How many records [2].")
@click.option("--format", "layout", help="Chat format, or a file of one [the recipe's].")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def templates_render(
    templates: str, count: int, layout: str | None, as_json: bool, **places: str | None
) -> None:
    """Preview templates on records, side by side on a wide terminal, as the stage render lays them out.

    TEMPLATE is an id, the beginning of one, a name, a pattern of them, or a YAML file of templates. Text that carries
    loss is green and underlined on a terminal, and stands in [[ ]] elsewhere.

    \b
    Example:
      taskmill templates render "keywords/pair-*" --run runs/demo -n 1
    """
    from taskmill.commands.templates_render import Request, render

    names = tuple(name.strip() for name in templates.split(",") if name.strip())
    render(Request(names, **places, count=count, format=layout), as_json)


class _ManyPlaces(click.Command):
    """A command whose `--train` and `--against` take all places up to the next option, as the shell's patterns give them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat the option before each further place."""
        spread, option = list[str](), ""
        for place, argument in enumerate(args):
            if argument.startswith("-"):
                option = argument if argument in ("--train", "--against") else ""
            elif option and args[place - 1] != option:
                spread.append(option)
            spread.append(argument)
        return super().parse_args(ctx, spread)


@tools.command("contamination", cls=_ManyPlaces)
@click.option("--train", multiple=True, metavar="PLACE...", help="Train records: files, folders, hub:...")
@click.option("--against", multiple=True, metavar="PLACE...", help="Evaluation records to look for.")
@click.option("--field", "fields", multiple=True, help="Only this field of the records of both sides.")
@click.option("--train-field", multiple=True, help="Only this field of train records.")
@click.option("--against-field", multiple=True, help="Only this field of evaluation records.")
@click.option("--records", help="Where in a JSON document the list of records stands.")
@click.option("--no-header", is_flag=True, help="CSV and TSV begin with a record; columns are 0, 1, 2 ..")
@click.option("--n", type=click.IntRange(1, 64), default=13, help="Words a gram [13].")
@click.option(
    "--normalisation",
    type=click.Choice(["words-1", "gpt3", "lm-eval", "tokenizer"]),
    default="words-1",
    help="How text is cut into words [words-1].",
)
@click.option("--tokenizer", help="Folder or Hub id, for --normalisation tokenizer.")
@click.option("--revision", help="Commit or tag of the tokenizer.")
@click.option(
    "--frequent",
    type=click.IntRange(min=1),
    default=50,
    help="A gram in more records than this is frequent [50].",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    help="Exit with code 1 when a larger share of a file's records is hit.",
)
@click.option(
    "-k", "num_shown", type=click.IntRange(min=0), default=5, help="Hits shown with both texts [5]."
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for the report, the hits and cleaned copies."
)
@click.option(
    "--clean",
    is_flag=False,
    flag_value="train",
    type=click.Choice(["train", "evaluation"]),
    help="Write copies of this side's files without the records that are hit [train].",
)
@click.option(
    "--ignore-frequent", is_flag=True, help="Keep records in the copies that share only frequent grams."
)
@click.option(
    "--on-error", type=click.Choice(["stop", "skip"]), default="stop", help="What damaged records do [stop]."
)
@click.option("--workers", type=click.IntRange(min=1), help="Threads to use [all cores].")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def contamination_command(fields: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Say which evaluation records share 13-grams with train records; no recipe is needed.

    A PLACE is a file (.jsonl .json .csv .tsv .parquet .txt, also .gz), a folder, an archive, or
    hub:owner/name@COMMIT[/path]. Every text of a record counts unless fields are named.

    \b
    Example:
      taskmill contamination --train data/train.jsonl --against data/test.jsonl --field question
    """
    from taskmill.commands.contamination import Options, contamination

    for side in ("train_field", "against_field"):
        options[side] = options[side] or fields
    if contamination(Options(**options), as_json):
        raise SystemExit(1)
