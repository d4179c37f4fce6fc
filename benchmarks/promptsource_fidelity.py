"""Our renderer beside PromptSource's own engine: the same templates over the same rows, part by part.

    python benchmarks/promptsource_fidelity.py [--promptsource CLONE] [--data PATH] [--rows N] [--quick]
                                                [--page FILE] [--json OUT]

CLONE is a clone of bigscience-workshop/promptsource; its code is loaded by path (`promptsource_engines.py` says how). With
`--data`, the folder of real upstream files, every template whose data set has rows there is rendered over up to N of them
(100). Every template is rendered over an invented row of its data set, over that row under each label, and over copies of it
with odd values: empty texts, separators, other scripts, null, numbers beyond 64 bits, lists without items, missing columns.
Both engines draw the same items at random, and both see the row in upstream's order of columns; ours sees it as the table of
examples stores it. Compared are all parts of the text and all answer choices, or that both engines refuse; instances of each
difference are printed, all of those without a reason. Without CLONE, plain Jinja with the documented rules stands in, on the
templates that ship with the repository. `--quick` takes fewer rows.

`ours_over_engine_speed` and `ours_over_bare_speed` compare renders per second on real rows that give a prompt (without `--data`,
on those shipped): ours, decoding and sandbox included, over the engine's `apply`, which compiles for every row, and
over a bare Jinja environment that renders the answer choices and the body, compiled before, over a row decoded before.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from measuring import fill, table, versions
from promptsource_engines import Plain, PromptSource, Row, Template, recorded_draws, repeated_draws, truncated
from promptsource_rows import (
    SHIPPED,
    invented_rows,
    odd_rows,
    real_rows,
    shipped_rows,
    templates_below,
)

from taskmill.digests import canonical_json
from taskmill.templates.composing.schemas import Rendered
from taskmill.templates.rendering.renderer import Renderer, TooLongError
from taskmill.templates.rendering.upstream import hide_separators
from taskmill.templates.sandboxing.sandbox import OverBudgetError

ODD_ROWS, QUICK_ODD_ROWS = 12, 3
SHOWN = 3  # templates that differ for one reason and are printed
MAX_CHARACTERS = 100_000
KINDS = {
    "real": "real",
    "shipped": "of the example shipped here",
    "invented": "invented, with odd values",
    "truncated": "invented, expressions cut to 2,048 characters",
}
REASONS = {
    "separator_in_list": "`|||` inside a list or object of the row: text to us, a cut to PromptSource",
    "order_of_keys": "the template walks over an object: its keys are in alphabetical order with us",
    "too_long": "the text is longer than `render.max_characters`",
    "limit": "the render does more than the sandbox allows",
    "address": "the template prints a function or an undefined iterator, whose text is a memory address",
    "unexplained": "no known reason",
}


class Compared(NamedTuple):
    """What came of one template and row: a verdict, the two outcomes, and whether there are an input and an output."""

    verdict: str
    ours: str
    theirs: str
    whole: bool = False


def outcome(render: Any, *arguments: Any, **options: Any) -> Any:
    """Return what an engine gives, or the error that it raises."""
    try:
        return render(*arguments, **options)
    except Exception as error:  # noqa: BLE001 - a template may raise anything
        return error


def compare(engine: Any, renderer: Renderer, template: Template, row: Row, truncate: bool) -> Compared:
    """Render a row with both engines."""
    fields = canonical_json(row).decode()
    own = {**template.row, "body": truncated(template.row["body"])} if truncate else template.row
    with recorded_draws() as drawn:
        ours = outcome(renderer.parts, own, fields, "an example")
    with repeated_draws(drawn):
        theirs = outcome(engine.apply, template, copy.deepcopy(row), truncate)
    failed = isinstance(ours, Exception), isinstance(theirs, Exception)
    if all(failed):
        return Compared("both_refuse", type(ours).__name__, type(theirs).__name__)
    if not any(failed) and tuple(ours) == tuple(theirs):
        return Compared("equal", "", "", len(ours[0]) > 1 and all(ours[0][:2]))
    for name, seen in (("separator_in_list", hide_separators(row)), ("order_of_keys", json.loads(fields))):
        with repeated_draws(drawn):
            again = outcome(engine.apply, template, copy.deepcopy(seen), truncate)
        if (
            not isinstance(ours, Exception)
            and not isinstance(again, Exception)
            and tuple(ours) == tuple(again)
        ):
            return Compared(name, shown(ours), shown(theirs))
    return Compared(reason(ours), shown(ours), shown(theirs))


def reason(ours: Any) -> str:
    """Say why our outcome differs, as far as the error tells that it is."""
    if isinstance(ours, TooLongError):
        return "too_long"
    if isinstance(ours, (OverBudgetError, OverflowError)):
        return "limit"
    if isinstance(ours, jinja2.TemplateRuntimeError) and "prints a" in str(ours):
        return "address"
    return "unexplained"


def shown(found: Any) -> str:
    """Return an outcome in one short line."""
    text = f"{type(found).__name__}: {found}" if isinstance(found, Exception) else repr(list(found))
    return text if len(text) <= 200 else text[:197] + "..."


class Tally:
    """Counts of verdicts by kind of rows, and an instance of each difference."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)
        self.templates: dict[str, set[tuple[str, str]]] = defaultdict(set)
        self.instances: dict[tuple[str, str, str], Compared] = {}
        self.whole: set[tuple[str, str]] = set()
        self.different: set[tuple[str, str]] = set()

    def add(self, kind: str, template: Template, compared: Compared) -> None:
        """Count one comparison."""
        self.counts[kind][compared.verdict] += 1
        identity = (template.dataset, template.identity)
        self.templates[kind].add(identity)
        if compared.whole:
            self.whole.add(identity)
        if compared.verdict not in ("equal", "both_refuse"):
            self.different.add(identity)
            key = (compared.verdict, template.dataset, template.row["name"])
            self.instances.setdefault(key, compared)

    def by_kind(self) -> list[tuple[str, Counter[str]]]:
        """Return the counts of every kind of rows that was compared, in the order of `KINDS`."""
        return [(kind, self.counts[kind]) for kind in KINDS if kind in self.counts]

    def total(self, verdict: str | None = None) -> int:
        """Return how many comparisons there were, or how many had a verdict."""
        return sum(counts.total() if verdict is None else counts[verdict] for counts in self.counts.values())


def compare_all(
    engine: Any, renderer: Renderer, templates: list[Template], rows: dict[str, dict[str, list[Row]]]
) -> Tally:
    """Compare every template over the rows of its data set, kind by kind."""
    tally = Tally()
    for template in templates:
        for kind, by_dataset in rows.items():
            for row in by_dataset.get(template.dataset, ()):
                tally.add(kind, template, compare(engine, renderer, template, row, kind == "truncated"))
    return tally


def compare_fixed(engine: Any, renderer: Renderer, templates: Iterable[Template]) -> Counter[str]:
    """Compare the answer choices that hold for every row: upstream's list of them, and ours."""
    found: Counter[str] = Counter()
    for template in templates:
        theirs = engine.template(template).get_fixed_answer_choices_list()
        ours = renderer.fixed_choices(template.row)
        found["equal" if ours == theirs else "different"] += 1
    return found


def speeds(
    engine: Any, templates: list[Template], rows: dict[str, list[Row]], rounds: int
) -> dict[str, float]:
    """Return the seconds per render of ours, of a bare Jinja environment and of the engine, and how many were timed."""
    by_dataset: dict[str, list[Template]] = defaultdict(list)
    for template in templates:
        by_dataset[template.dataset].append(template)
    renderer, bare = Renderer(0, MAX_CHARACTERS), Plain()
    texts = {id(row): canonical_json(row).decode() for listed in rows.values() for row in listed}
    pairs = [
        (template, row)
        for name, listed in rows.items()
        for row in listed
        for template in by_dataset[name]
        if isinstance(renderer.promptsource(template.row, texts[id(row)], "e"), Rendered)
    ]
    stored = [(template.row, texts[id(row)]) for template, row in pairs]
    compiled = {t.identity: (bare.compiled(t.row["body"]), bare.compiled(t.row["choices"])) for t, _ in pairs}
    decoded = [(*compiled[template.identity], row) for template, row in pairs]
    seconds: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        started = time.perf_counter()
        for template_row, fields in stored:
            renderer.promptsource(template_row, fields, "e")
        seconds["ours"].append(time.perf_counter() - started)
        started = time.perf_counter()
        for body, choices, row in decoded:
            body({**row, "answer_choices": choices(row) if choices else None})
        seconds["bare"].append(time.perf_counter() - started)
    some = pairs[:: max(1, len(pairs) // 400)]
    copies = [(template, copy.deepcopy(row)) for template, row in some]
    started = time.perf_counter()
    for template, row in copies:
        engine.apply(template, row)
    per_engine = (time.perf_counter() - started) / len(some)
    per_render = {name: statistics.median(found) / len(pairs) for name, found in seconds.items()}
    return {**per_render, "engine": per_engine, "renders": len(pairs)}


def print_result(tally: Tally, engine: Any) -> None:
    """Print the counts, the reasons and an instance of each difference."""
    for kind, counts in tally.by_kind():
        print(
            f"{kind}: {counts.total():,} renders of {len(tally.templates[kind]):,} templates beside {engine.name}: "
            f"{counts['equal']:,} equal, {counts['both_refuse']:,} refused by both"
        )
        for verdict in REASONS:
            if counts[verdict]:
                print(f"    {counts[verdict]:,} {verdict}: {REASONS[verdict]}")
    print(
        f"{len(tally.whole):,} templates gave an input and an output in both; {len(tally.different):,} differ on some row"
    )
    shown_of: Counter[str] = Counter()
    for (verdict, dataset, name), compared in sorted(tally.instances.items()):
        shown_of[verdict] += 1
        if verdict == "unexplained" or shown_of[verdict] <= SHOWN:
            print(f"{verdict} | {dataset} | {name}\n    ours   {compared.ours}\n    theirs {compared.theirs}")


def page_lines(tally: Tally) -> list[str]:
    """Return the table of what was compared, and a line per reason for a difference."""
    rows = [
        [
            KINDS[kind],
            f"{len(tally.templates[kind]):,}",
            f"{counts.total():,}",
            f"{counts['equal']:,}",
            f"{counts['both_refuse']:,}",
            f"{counts.total() - counts['equal'] - counts['both_refuse']:,}",
        ]
        for kind, counts in tally.by_kind()
    ]
    heads = ["rows", "templates", "renders", "equal", "refused by both", "different"]
    found = [f"- {tally.total(name):,}: {text}" for name, text in REASONS.items() if tally.total(name)]
    return [*table(heads, rows), "", "What differs:", "", *(found or ["- nothing"])]


def chosen_rows(
    arguments: argparse.Namespace, templates: list[Template]
) -> tuple[dict[str, dict[str, list[Row]]], dict[str, list[Row]]]:
    """Return the rows to compare, by kind and data set, and those to measure speed on."""
    num_odd = QUICK_ODD_ROWS if arguments.quick else ODD_ROWS
    real = real_rows(arguments.data, arguments.rows) if arguments.data else {}
    plain = shipped_rows(arguments.rows)
    first = {name: rows[0] for name, rows in plain.items()} | invented_rows()
    odd = {
        name: list(odd_rows(first[name], name, num_odd)) for name in sorted({t.dataset for t in templates})
    }
    cut = {name: [rows[0], *rows[-2:]] for name, rows in odd.items()}
    kinds = {"real": real, "shipped": plain, "invented": odd, "truncated": cut}
    return kinds, real or plain


def main() -> None:
    """Compare, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--promptsource", type=Path, metavar="CLONE", help="clone of bigscience-workshop/promptsource"
    )
    parser.add_argument("--data", type=Path, metavar="PATH", help="folder of real upstream files")
    parser.add_argument("--rows", type=int, default=100, metavar="N", help="real rows of each data set (100)")
    parser.add_argument("--quick", action="store_true", help="fewer rows")
    parser.add_argument(
        "--page", type=Path, metavar="FILE", help="page of the docs whose table is to be filled"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write ratios, figures and versions here")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rows = min(arguments.rows, 5)
    engine: Any = PromptSource(arguments.promptsource) if arguments.promptsource else Plain()
    if arguments.promptsource is None:
        print(
            "No --promptsource: plain Jinja with the documented rules stands in, on the templates shipped here."
        )
    folder = (
        arguments.promptsource / "promptsource/templates" if arguments.promptsource else SHIPPED / "templates"
    )
    templates = templates_below(folder)
    kinds, timed = chosen_rows(arguments, templates)
    renderer = Renderer(0, MAX_CHARACTERS)
    tally = compare_all(engine, renderer, templates, kinds)
    print_result(tally, engine)
    figures: dict[str, Any] = {
        "found": tally.total(),
        "templates": len(templates),
        "templates_with_input_and_output": len(tally.whole),
        "templates_without_difference": len(templates) - len(tally.different),
        "equal": tally.total("equal"),
        "both_refuse": tally.total("both_refuse"),
    }
    figures |= {verdict: tally.total(verdict) for verdict in REASONS}
    if isinstance(engine, PromptSource):
        fixed = compare_fixed(engine, renderer, templates)
        figures |= {f"fixed_choices_{name}": count for name, count in fixed.items()}
        print(f"answer choices that hold for every row: {dict(fixed)}")
    times = speeds(engine, templates, timed, 3 if arguments.quick else 7)
    ratios = {
        "ours_over_bare_speed": times["bare"] / times["ours"],
        "ours_over_engine_speed": times["engine"] / times["ours"],
    }
    figures |= {f"microseconds_{name}": 1e6 * times[name] for name in ("ours", "bare", "engine")}
    print(
        f"{times['renders']:,.0f} renders timed; microseconds per render: "
        + ", ".join(f"{name} {1e6 * times[name]:.1f}" for name in ("ours", "bare", "engine"))
    )
    if arguments.page:
        fill(arguments.page, "fidelity", page_lines(tally))
    if arguments.json:
        result = {"ratios": ratios, "figures": figures, "versions": versions("jinja2", "orjson", "PyYAML")}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
