"""What is wrong or doubtful in taxonomy files, and which tasks of a recipe's sources they do not cover.

Problems are mistakes; warnings name what may be meant, such as a new category or a data set that looks like another's
misspelling. A shipped row must also be right in what is a user's free choice: categories, canonical names, one row a task.

    check_files([Path("mine.csv")]).problems
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import filter as matching
from pathlib import Path

from taskmill.curation.catalogue import read_catalogue
from taskmill.curation.merging import TaskPlan
from taskmill.curation.reader import load_reader
from taskmill.curation.taxonomy import (
    Layer,
    Neighbours,
    Taxonomy,
    canonical,
    category_problems,
    is_pattern,
    load_taxonomy,
    taxonomy_files,
)
from taskmill.curation.taxonomy_rows import TaxonomyFile, fold
from taskmill.errors import DataError, RecipeError, did_you_mean
from taskmill.recipe import known_readers
from taskmill.settings import Settings

_SHORTEST = 7
"""Letters and digits from which on names one edit apart are suspected: shorter ones are near one another by chance."""


@dataclass
class Findings:
    """Lines for people, each with `file:line` or the task it is about."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, other: Findings) -> None:
        """Take over the lines of others."""
        self.problems += other.problems
        self.warnings += other.warnings


# ---------------------------------------------------------------------------------------------- files


def check_shipped() -> Findings:
    """Check the files of the package."""
    return check_layer(load_taxonomy(taxonomy_files([])).layers[0])


def check_layer(layer: Layer) -> Findings:
    """Check rows that are all there is, as the package's are."""
    taxonomy = Taxonomy((layer,))
    problems = category_problems(layer)
    problems += _clashes(layer.files)
    problems += _chains(taxonomy.aliases)
    problems += [f"{place}: the data set is called {known!r}" for place, known in _misnamed(layer, taxonomy)]
    problems += _look_alikes(taxonomy, layer, None)
    problems += _unknown_benchmarks(layer)
    problems += _two_spellings(layer)
    return Findings(problems)


def check_files(files: Sequence[Path]) -> Findings:
    """Check a user's files as they stand above the shipped ones, the weakest first."""
    shipped = load_taxonomy(taxonomy_files([]))
    try:
        taxonomy = load_taxonomy(taxonomy_files(files))
    except RecipeError as error:
        return Findings(error.problems)
    found = Findings()
    known = [key for key in shipped.tasks if "/" in key]
    for layer in taxonomy.layers[1:]:
        found.warnings += category_problems(layer)
        found.warnings += _look_alikes(taxonomy, layer, shipped)
        found.warnings += _unknown_tasks(layer, known)
        found.warnings += _unknown_patterns(layer, taxonomy.tasks)
    found.warnings += _clashes([file for layer in taxonomy.layers[1:] for file in layer.files])
    found.problems += _chains(taxonomy.aliases)
    return found


def _at(file: TaxonomyFile, key: str) -> str:
    return f"{file.path}:{file.lines[key]}: {key}"


def _clashes(files: Iterable[TaxonomyFile]) -> list[str]:
    """Return a line for each column of a task or pattern of which two files say different things."""
    first: dict[tuple[str, str], tuple[TaxonomyFile, object]] = {}
    problems = []
    for file in files:
        for key, row in file.rows.items():
            for column, value in row.items():
                other, said = first.setdefault((key, column), (file, value))
                if said != value:
                    problems.append(
                        f"{_at(file, key)}.{column}: {value!r}, but {_at(other, key)} says {said!r}"
                    )
    return problems


def _chains(aliases: dict[str, str]) -> list[str]:
    """Return a line for each canonical name that is itself another name of something."""
    return [
        f"aliases: {name!r} is a canonical name and also another name of {aliases[name]!r}; give all of them one"
        for name in sorted(set(aliases.values()))
        if aliases.get(name, name) != name
    ]


def _misnamed(layer: Layer, taxonomy: Taxonomy) -> Iterator[tuple[str, str]]:
    """Yield (place, canonical name) of rows whose data set is written otherwise."""
    aliases = taxonomy.aliases
    for file in layer.files:
        for key, row in file.rows.items():
            if "dataset" in row and canonical(row["dataset"], aliases) != row["dataset"]:
                yield f"{_at(file, key)}.dataset: {row['dataset']!r}", canonical(row["dataset"], aliases)


def _two_spellings(layer: Layer) -> list[str]:
    """Return a line for each corpus that is written in two ways."""
    first: dict[str, str] = {}
    problems = []
    for file in layer.files:
        for key, row in file.rows.items():
            for corpus in row.get("corpora", ()):
                if (known := first.setdefault(fold(corpus), corpus)) != corpus:
                    problems.append(f"{_at(file, key)}.corpora: {corpus!r} is written {known!r} elsewhere")
    return problems


def _unknown_benchmarks(layer: Layer) -> list[str]:
    """Return a line for each row whose task no reader's benchmark could offer."""
    known = sorted({load_reader(name).BENCHMARK for name in known_readers()})
    problems = []
    for file in layer.files:
        for key in file.rows:
            benchmark = key.partition("/")[0]
            if not is_pattern(benchmark) and benchmark not in known:
                problems.append(f"{_at(file, key)}: no reader's benchmark is called {benchmark!r}")
    return problems


def _unknown_tasks(layer: Layer, known: Sequence[str]) -> list[str]:
    """Return a line for each row whose task id looks like a known one, mistyped."""
    benchmarks = {key.partition("/")[0] for key in known}
    near = Neighbours(known)
    told = frozenset(known)
    problems = []
    for file in layer.files:
        for key in file.rows:
            benchmark = key.partition("/")[0]
            if is_pattern(key) or key in told:
                continue
            if benchmark in benchmarks:
                if hint := near.hint(key):
                    problems.append(f"{_at(file, key)}: {benchmark!r} is not known to have this task{hint}")
            elif hint := did_you_mean(benchmark, benchmarks):
                problems.append(f"{_at(file, key)}: no shipped row is of the benchmark {benchmark!r}{hint}")
    return problems


def _unknown_patterns(layer: Layer, tasks: Sequence[str]) -> list[str]:
    """Return a line for each pattern that matches no task with a row."""
    return [
        f"{_at(file, key)}: the pattern matches no task that has a row"
        for file in layer.files
        for key in file.rows
        if is_pattern(key) and not matching(tasks, key)
    ]


# ---------------------------------------------------------------------------------------- look-alikes


def _look_alikes(taxonomy: Taxonomy, layer: Layer, shipped: Taxonomy | None) -> list[str]:
    """Return a line for each two data sets whose names are one edit apart and that no file calls distinct.

    Where `shipped` is given, one of the two is new in `layer`.
    """
    names = _datasets(taxonomy)
    old = _datasets(shipped) if shipped else frozenset[str]()
    mine = _datasets(Taxonomy((layer,))) - old if shipped else names
    distinct = {pair for each in taxonomy.layers for file in each.files for pair in file.distinct}
    return [
        f"data sets {a!r} and {b!r} are one edit apart: make one an alias of the other, or list them under `distinct`"
        for a, b in look_alikes(names)
        if frozenset((a, b)) not in distinct and (a in mine or b in mine)
    ]


def _datasets(taxonomy: Taxonomy) -> frozenset[str]:
    """Return every canonical data set that a row or an alias names."""
    aliases = taxonomy.aliases
    rows = (row for layer in taxonomy.layers for file in layer.files for row in file.rows.values())
    return frozenset(aliases.values()) | {
        canonical(row["dataset"], aliases) for row in rows if "dataset" in row
    }


def look_alikes(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return the pairs of long names that are one letter, or an underscore, apart; digits are meant as they are.

    >>> look_alikes(["adversarial_qa", "adverserial_qa", "conll2002", "conll2003", "glue_rte", "gluerte"])
    [('adversarial_qa', 'adverserial_qa'), ('glue_rte', 'gluerte')]
    """
    pairs: set[tuple[str, str]] = set()
    by_signature: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        bare = name.replace("_", "")
        if len(bare) < _SHORTEST or name.startswith("task"):
            continue
        for signature in {bare, *(bare[:i] + bare[i + 1 :] for i in range(len(bare)))}:
            others = by_signature.setdefault(signature, [])
            pairs.update((other, name) for other in others)
            others.append(name)
    return sorted(pair for pair in pairs if _one_edit_apart(*(name.replace("_", "") for name in pair)))


def _one_edit_apart(a: str, b: str) -> bool:
    """Return whether one letter was added, left out or changed, or two neighbours were swapped."""
    if len(a) > len(b):
        a, b = b, a
    start = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), len(a))
    rest = next((i for i, (x, y) in enumerate(zip(a[::-1], b[::-1])) if x != y), len(a))
    old, new = a[start : len(a) - min(rest, len(a) - start)], b[start : len(b) - min(rest, len(b) - start)]
    if any(c.isdigit() for c in old + new):
        return False
    swapped = len(old) == len(new) == 2 and old == new[::-1]
    return swapped or (len(old) <= 1 and len(new) <= 1)


# ---------------------------------------------------------------------------------------------- recipe


def check_recipe(settings: Settings) -> Findings:
    """Check a recipe's taxonomy files and which tasks of its sources have no row.

    Raises:
        RecipeError, StorageError: see `read_catalogue`.
        DataError: a reader finds files that are not as its format says.
    """
    files = [settings.path(file) for file in settings.curate.taxonomy]
    found = check_files(files)
    if found.problems:
        return found
    found.warnings = [line for line in found.warnings if "not known to have this task" not in line]
    plans = read_catalogue(settings).plans
    taxonomy = load_taxonomy(taxonomy_files(files))
    found.add(_uncovered(plans, taxonomy))
    offered = {plan.task for plan in plans}
    offered |= {f"{load_reader(plan.reader).BENCHMARK}/{plan.name}" for plan in plans}
    near = Neighbours(offered)
    for layer in taxonomy.layers[1:]:
        for file in layer.files:
            unused = [key for key in file.rows if not is_pattern(key) and key not in offered]
            found.warnings += [
                f"{_at(file, key)}: no source offers this task{near.hint(key)}" for key in unused
            ]
    return found


def _uncovered(plans: Iterable[TaskPlan], taxonomy: Taxonomy) -> Findings:
    """Return a line for each task without a category in the taxonomy; a problem where its files state none either."""
    found = Findings()
    near = Neighbours(taxonomy.keys)
    for plan in plans:
        if "category" in plan.row:
            continue
        try:
            stated = load_reader(plan.reader).read(plan.entry, plan.source).facts.get("category")
        except DataError as error:
            found.problems.append(
                f"{plan.task}: no row with a category, and its files cannot be read: {error}"
            )
            continue
        if stated:
            found.warnings.append(f"{plan.task}: no row; its files say {stated!r}{near.hint(plan.task)}")
        else:
            found.problems.append(
                f"{plan.task}: no row, and its files state no category{near.hint(plan.task)}"
            )
    return found
