"""The taxonomy: what is known of tasks beside their upstream files, as data.

Reads the row files of the package (`taxonomy/*.csv`, one row a known task, and `*.yaml`, patterns and other names of data
sets) and the recipe's `curate.taxonomy` files, which may be of both kinds; `taxonomy_rows` says what stands in them.

A column comes from the strongest row that has it: recipe files before shipped ones, later files before earlier ones;
within a file exact ids before patterns, and patterns with more literal characters before shorter ones. All shipped
files count as one. Where a recipe gives a source another benchmark name, the rows of the name that its reader uses
are the weakest.

    taxonomy = load_taxonomy(taxonomy_files([Path("mine.csv")]))
    taxonomy.row("mine/super_glue/boolq", "promptsource/super_glue/boolq")["category"]
"""

from __future__ import annotations

import difflib
import functools
import heapq
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from taskmill.curation.taxonomy_rows import Row, TaxonomyFile, fold, read_file
from taskmill.errors import RecipeError, did_you_mean
from taskmill.safe_yaml import load_yaml

SHIPPED = Path(__file__).parent / "taxonomy"
CATEGORIES = SHIPPED / "categories.yaml"
_WILD = frozenset("*?[")
_NUMBER = re.compile(r"^task\d+_")
_LIKELY = 30
"""Names that are looked at letter by letter, those that share most trigrams."""
_ALIKE = 0.8
"""Share of letters in common from which on a name is suggested."""
_log = logging.getLogger("taskmill")


@dataclass(frozen=True)
class Layer:
    """Rows of equal strength: those of all shipped files, or of one file of the recipe."""

    files: tuple[TaxonomyFile, ...]
    rows: Mapping[str, Row]
    """By task id or pattern."""
    patterns: tuple[str, ...]
    """Keys of `rows` that are patterns, the weakest first."""
    aliases: Mapping[str, str]
    """Folded name -> canonical name."""

    def row(self, task: str) -> dict[str, Any]:
        """Return what this layer says of a task."""
        found: dict[str, Any] = {}
        for pattern in self.patterns:
            if fnmatchcase(task, pattern):
                found.update(self.rows[pattern])
        return found | dict(self.rows.get(task, {}))


@dataclass(frozen=True)
class Taxonomy:
    """All taxonomy files of a run, the weakest first."""

    layers: tuple[Layer, ...]

    @property
    def aliases(self) -> dict[str, str]:
        """Folded data set name -> canonical name; where a stronger file gives a set another canonical name, all follow."""
        found: dict[str, str] = {}
        for layer in self.layers:
            chosen = dict.fromkeys(layer.aliases.values())
            renamed = {found[name]: name for name in chosen if name in found} | dict(layer.aliases)
            found = {name: renamed.get(canonical, canonical) for name, canonical in found.items()}
            found |= layer.aliases
        return found

    @property
    def keys(self) -> list[str]:
        """Every task id and pattern that has a row."""
        return sorted({key for layer in self.layers for key in layer.rows})

    @property
    def tasks(self) -> list[str]:
        """Every task id that has a row of its own."""
        return [key for key in self.keys if not is_pattern(key)]

    def row(self, task: str, fallback: str | None = None) -> dict[str, Any]:
        """Return what is known of a task, column by column.

        Args:
            task: the id of the task in the catalogue.
            fallback: the id under its reader's own benchmark name; any row for `task` itself is stronger.
        """
        found: dict[str, Any] = {}
        for name in dict.fromkeys((fallback or task, task)):
            for layer in self.layers:
                found |= layer.row(name)
        return found


def is_pattern(key: str) -> bool:
    """Return whether a key of a row is a shell pattern and no task id."""
    return not _WILD.isdisjoint(key)


def canonical(name: str, aliases: Mapping[str, str]) -> str:
    """Return the one name of a data set: folded, then looked up among `Taxonomy.aliases`."""
    folded = fold(name)
    return aliases.get(folded, folded)


def taxonomy_files(further: Iterable[Path]) -> list[Path]:
    """Return the shipped files and the recipe's, the weakest first."""
    shipped = [*SHIPPED.glob("*.csv"), *SHIPPED.glob("*.yaml")]
    return [*sorted(path for path in shipped if path != CATEGORIES), *further]


def load_taxonomy(files: Sequence[Path]) -> Taxonomy:
    """Read taxonomy files, the weakest first.

    Raises:
        RecipeError: every problem of every file, each with `file:line`.
    """
    shipped = tuple(path for path in files if path.parent == SHIPPED)
    layers = [_shipped_layer(shipped)] if shipped else []
    layers += [make_layer((read_file(path),)) for path in files if path.parent != SHIPPED]
    problems = [problem for layer in layers for file in layer.files for problem in file.problems]
    if problems:
        raise RecipeError(problems)
    return Taxonomy(tuple(layers))


@functools.lru_cache(maxsize=1)
def _shipped_layer(files: tuple[Path, ...]) -> Layer:
    return make_layer(tuple(read_file(path) for path in files))


def make_layer(files: tuple[TaxonomyFile, ...]) -> Layer:
    """Join files of equal strength; what two of them say of one key is joined, too."""
    rows: dict[str, Row] = {}
    aliases: dict[str, str] = {}
    for file in files:
        for key, row in file.rows.items():
            rows[key] = {**rows[key], **row} if key in rows else row
        aliases |= file.aliases
    patterns = sorted((key for key in rows if is_pattern(key)), key=_literal)
    return Layer(files, rows, tuple(patterns), aliases)


def _literal(pattern: str) -> tuple[int, str]:
    return sum(c not in "*?[]" for c in pattern), pattern


# ----------------------------------------------------------------------------------------- categories


@functools.lru_cache(maxsize=1)
def categories() -> dict[str, str]:
    """Return the known categories of all benchmarks, each with what it asks for."""
    parts = load_yaml(CATEGORIES.read_text(encoding="utf-8"))
    return {name: text for part in parts.values() for name, text in part.items()}


def category_problems(layer: Layer) -> list[str]:
    """Return a line for each category that is not among `categories`: its first row, how many more, the nearest name."""
    known = categories()
    problems = []
    for file in layer.files:
        rows: dict[str, list[str]] = {}
        for key, row in file.rows.items():
            if (category := row.get("category")) is not None and category not in known:
                rows.setdefault(category, []).append(key)
        for category, keys in rows.items():
            place = f"{file.path}:{file.lines[keys[0]]}: {keys[0]}.category"
            more = f", in {len(keys):,} rows" if len(keys) > 1 else ""
            hint = did_you_mean(category, known)
            problems.append(f"{place}: {category!r} is no known category{more}{hint}")
    return problems


def warn_of_categories(taxonomy: Taxonomy) -> None:
    """Log each category of a recipe's file that the shipped taxonomy does not know: it may be new, or mistyped."""
    for layer in taxonomy.layers:
        if layer.files[0].path.parent != SHIPPED:
            for problem in category_problems(layer):
                _log.warning("taxonomy: %s", problem)


def missing_categories(tasks: Iterable[str], known: Sequence[str]) -> RecipeError:
    """Return the error for tasks that have no category: one line for each, with the nearest rows there are."""
    near = Neighbours(known)
    return RecipeError(
        [
            f"curate.taxonomy: {task}: no category, neither upstream nor in the taxonomy{near.hint(task)}; give it a "
            f"row with `category` in a file named under curate.taxonomy"
            for task in sorted(tasks)
        ]
    )


class Neighbours:
    """Task ids that resemble a given one: of its own benchmark first, then those of the same name elsewhere."""

    def __init__(self, known: Iterable[str]) -> None:
        """Look at `known` task ids; patterns among them are left out."""
        self.by_benchmark: dict[str, dict[str, frozenset[str]]] = {}
        self.by_name: dict[str, list[str]] = {}
        for key in sorted(known):
            if not is_pattern(key):
                benchmark, _, name = key.partition("/")
                self.by_benchmark.setdefault(benchmark, {})[key] = _trigrams(name)
                self.by_name.setdefault(_plain(key.rpartition("/")[2]), []).append(key)

    def nearest(self, task: str) -> str | None:
        """Return the task of the same benchmark whose name is most like this one's, else one of another benchmark."""
        benchmark, _, name = task.partition("/")
        mine = self.by_benchmark.get(benchmark, {})
        others = {
            key: grams for b in self.by_benchmark.values() for key, grams in b.items() if key not in mine
        }
        return _most_alike(task, name, mine) or _most_alike(task, name, others)

    def namesakes(self, task: str) -> list[str]:
        """Return other tasks whose last part is the same."""
        return [key for key in self.by_name.get(_plain(task.rpartition("/")[2]), ()) if key != task]

    def hint(self, task: str) -> str:
        """Return ` - did you mean 'x'?`, `; 'y' has the same name`, both, or nothing."""
        near = self.nearest(task)
        text = f" - did you mean {near!r}?" if near else ""
        same = [key for key in self.namesakes(task) if key != near][:3]
        if same:
            verb = "has" if len(same) == 1 else "have"
            text += f"; {', '.join(map(repr, same))} {verb} the same name"
        return text


def _most_alike(task: str, name: str, choices: Mapping[str, frozenset[str]]) -> str | None:
    """Return the id whose name is most like `name`, or None when none is much like it; ids come with their trigrams."""
    grams, plain = _trigrams(name), _plain(name)
    found: tuple[float, str] | None = None
    likely = heapq.nlargest(
        _LIKELY, choices, key=lambda key: 4 * len(grams & choices[key]) - len(choices[key])
    )
    for key in likely:
        other = key.partition("/")[2]
        alike = max(_ratio(plain, _plain(other)), _ratio(plain, _plain(other.rpartition("/")[2])))
        if key != task and alike >= _ALIKE and (found is None or alike > found[0]):
            found = alike, key
    return found[1] if found else None


def _ratio(a: str, b: str) -> float:
    return difflib.SequenceMatcher(None, a, b).ratio()


def _plain(name: str) -> str:
    """Return a name folded, without the number that Super-NaturalInstructions puts before it."""
    return fold(_NUMBER.sub("", name))


def _trigrams(name: str) -> frozenset[str]:
    padded = f" {' '.join(map(_plain, name.split('/')))} "
    return frozenset(padded[i : i + 3] for i in range(len(padded) - 2))
