"""Recipes: what a run is made from, as frozen dataclasses. `recipe_files` reads them, `recipe_check` checks them.

A smallest recipe:

    name: my-benchmark
    data_root: data
    sources:
      - {reader: super_natural_instructions, path: natural-instructions}
    plan:
      held_out: {categories: [Textual Entailment]}
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from taskmill.recipe_evaluate import Code as Code
from taskmill.recipe_evaluate import Endpoint as Endpoint
from taskmill.recipe_evaluate import Evaluate as Evaluate
from taskmill.recipe_evaluate import Sampling as Sampling
from taskmill.recipe_evaluate import TaskScoring as TaskScoring
from taskmill.recipe_render import Condition as Condition
from taskmill.recipe_render import MetaICL as MetaICL
from taskmill.recipe_render import Render as Render
from taskmill.recipe_render import TkInstruct as TkInstruct
from taskmill.recipe_training import Architecture as Architecture
from taskmill.recipe_training import Auxiliary as Auxiliary
from taskmill.recipe_training import Lora as Lora
from taskmill.recipe_training import Mix as Mix
from taskmill.recipe_training import Tokenize as Tokenize
from taskmill.recipe_training import Train as Train

PACKAGE = Path(__file__).parent
Action = Literal["keep", "drop_train_task", "drop_eval_task", "drop_train_examples", "drop_eval_examples"]
Level = Literal["held_out", "partial", "supervised"]


@dataclass(frozen=True)
class Source:
    """One upstream collection: which reader reads it and where it lies."""

    reader: str
    """Name of a file in `taskmill/curation/sources/`."""
    path: str = "."
    """Folder, file or archive (zip, tar), relative to `data_root`, or to the top of the `hub` repository."""
    hub: str | None = None
    """Data set repository of the Hugging Face Hub to read from, pinned: `owner/name@COMMIT`, 40 hex digits."""
    repository: str | None = None
    """Where local files come from, for the record; a `hub` repository is its own."""
    revision: str | None = None
    """Commit or version of that repository; by default a digest of the files."""
    benchmark: str | None = None
    """Name of the benchmark its tasks belong to; by default the reader's own."""
    include: tuple[str, ...] = ("*",)
    """Shell patterns of task names to read."""
    exclude: tuple[str, ...] = ()
    """Shell patterns of task names to leave."""
    options: dict[str, Any] = field(default_factory=dict)
    """Settings of the reader itself; the reader refuses those it does not know."""


@dataclass(frozen=True)
class Licenses:
    """Which licences a task may have; one with several must pass with each."""

    allow: tuple[str, ...] = ("*",)
    """Shell patterns of SPDX identifiers that may be used; `unknown` stands for none stated."""
    deny: tuple[str, ...] = ()
    """Shell patterns of SPDX identifiers that may not; stronger than `allow`."""


@dataclass(frozen=True)
class Curate:
    """How sources become categorised tasks."""

    max_examples: int = 100_000
    """Most examples kept of a task, counted on rows whose upstream split is train or unknown."""
    max_examples_by_benchmark: dict[str, int] = field(default_factory=lambda: {"flan": 30_000})
    """Other limits for single benchmarks (OPT-IML section 2.2: FLAN 30,000)."""
    only_new: tuple[str, ...] = ("crossfit", "exmix", "t5")
    """Benchmarks that keep only tasks whose data set no other benchmark has."""
    on_error: Literal["stop", "skip"] = "stop"
    """What a damaged record does: stop the stage, or be kept aside in dropped.parquet."""
    on_missing: Literal["stop", "skip"] = "stop"
    """What a source whose `path` is not there does: stop the stage, or be left out; the manifest names it."""
    licenses: Licenses = Licenses()
    """Licences that tasks may have; the examples of others are dropped with the reason `license`."""
    taxonomy: tuple[str, ...] = ()
    """Further taxonomy files (YAML or CSV), relative to the recipe; their rows win over the shipped ones."""
    casts: tuple[str, ...] = ()
    """Folders of further casts, relative to the recipe; they win over the shipped ones."""


@dataclass(frozen=True)
class HeldOut:
    """Categories that are never trained on."""

    categories: tuple[str, ...] = ()
    """Names of categories; none of their tasks is trained on."""
    tasks: tuple[str, ...] = ("*",)
    """Selectors of the tasks of these categories that are evaluated; the others are excluded."""
    num_categories: int = 0
    """Further categories to hold out, drawn by the seed among those that nothing else of the plan names."""


@dataclass(frozen=True)
class PartialCategories:
    """Categories whose tasks are divided by the seed into evaluated and trained ones."""

    categories: tuple[str, ...] = ()
    """Names of categories."""
    num_tasks: int = 1
    """Tasks evaluated of each; variants of one family count as one and stay together."""


@dataclass(frozen=True)
class Validation:
    """Examples of evaluated tasks that are set aside to choose models by (OPT-IML section 4.1: 35 tasks, 250 each)."""

    tasks: tuple[str, ...] = ()
    """Selectors of evaluated tasks."""
    max_examples: int = 250
    """Most examples a task, in whole groups."""
    rest: Literal["test", "exclude"] = "test"
    """What becomes of the other examples of these tasks."""


@dataclass(frozen=True)
class Trained:
    """Which of the tasks that the plan leaves to training are trained on; supervised tasks always are."""

    tasks: tuple[str, ...] = ("*",)
    """Selectors."""
    num_tasks: int | None = None
    """Tasks drawn by the seed, variants of a family together; a larger number adds to a smaller one's."""
    num_categories: int | None = None
    """Categories, those with most tasks first (OPT-IML section 5.1); `forced` ones count among them."""
    forced: tuple[str, ...] = ()
    """Categories that are always in."""


@dataclass(frozen=True)
class Plan:
    """Which tasks are trained on and which are evaluated, at which level.

    A selector is a shell pattern over task ids, or `column=PATTERN` over a column of the task table: benchmark,
    category, dataset, family, upstream_role, language, kind.
    """

    held_out: HeldOut = HeldOut()
    partial: tuple[str, ...] = ()
    """Selectors of tasks that are evaluated and not trained, in categories that are trained."""
    partial_categories: PartialCategories = PartialCategories()
    supervised: tuple[str, ...] = ()
    """Selectors of tasks that are trained and evaluated on other examples."""
    validation: Validation = Validation()
    train: Trained = Trained()
    exclude: tuple[str, ...] = ()
    """Selectors of tasks that take no part."""
    categories: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Categories of the plan's own: a name and the selectors of its tasks, which leave the task table's category for it."""
    variants: Literal["exclude", "decide"] = "exclude"
    """What becomes of train tasks of the same family as a held-out or partial task: they leave training at once, or are
    left to decisions like all that share text."""
    num_demonstration_groups: int = 32
    """Groups set aside as demonstrations where an evaluation task has no train or demonstration rows."""
    carve_share: float = 0.1
    """Share of a supervised task's groups that becomes its test where upstream has no labelled one."""
    layout: str | None = None
    """A published division (`taskmill recipes layouts`) or a YAML file of the same form; the other keys add to it."""


@dataclass(frozen=True)
class NearDuplicates:
    """How near-duplicate examples are found: MinHash signatures, banded, candidates verified."""

    threshold: float = 0.8
    """Jaccard similarity of the sets of grams from which two examples are near-duplicates."""
    num_perm: int = 128
    """Length of a signature."""
    seed: int = 1
    """Of the permutations, as datasketch counts it."""


@dataclass(frozen=True)
class Overlap:
    """How text shared between train and evaluation tasks is found."""

    n: int = 13
    """Words per gram."""
    normalisation: Literal["words-1", "gpt3", "lm-eval", "tokenizer"] = "words-1"
    """How text becomes words; the others are for comparison with published figures."""
    tokenizer: str | None = None
    """Folder or Hub id of the tokenizer whose ids are the words, for `tokenizer`."""
    revision: str | None = None
    """Commit or tag of a tokenizer on the Hub."""
    frequent_groups: int = 50
    """A gram found in more groups than this is marked frequent."""
    num_evidence: int = 20
    """Windows kept per pair, the worst first."""
    near_duplicates: NearDuplicates = NearDuplicates()


@dataclass(frozen=True)
class When:
    """Conditions of a rule; all that are given must hold."""

    same_dataset: bool | None = None
    """Whether both tasks are made from the same data set."""
    level: tuple[Level, ...] = ()
    """Levels of the evaluation task."""
    same_task: bool | None = None
    """Whether a task is paired with itself (supervised)."""
    hit_fraction_over: float | None = None
    """Share of evaluation examples with a common gram, frequent grams included."""
    hit_fraction_rare_over: float | None = None
    """The same without frequent grams."""
    hit_fraction_rare_at_most: float | None = None
    """The same from above: 0 fits pairs that share nothing but frequent grams."""
    hit_input_over: float | None = None
    """Share of evaluation examples with a common gram in their input."""
    hit_output_over: float | None = None
    """The same in their output."""
    num_hit_at_most: int | None = None
    """Evaluation examples with a common gram or equal as a whole, from above: a handful may not be worth a task."""
    touched_fraction_over: float | None = None
    """Examples of the train task that share text with the evaluation task, over all that it trains on."""
    same_output_fraction_over: float | None = None
    """Hit evaluation examples whose output equals a touching train example's, over all hit ones."""
    same_output_fraction_at_most: float | None = None
    """The same from above: 0 fits shared inputs with unrelated outputs."""
    train_task: tuple[str, ...] = ()
    """Patterns of the train task's id."""
    eval_task: tuple[str, ...] = ()
    """Patterns of the evaluation task's id."""


@dataclass(frozen=True)
class Rule:
    """One decision for every overlapping pair that meets the conditions; the first rule that fits wins."""

    name: str
    """Written beside each decision it makes; must be unique."""
    action: Action
    """What is done with the pair."""
    when: When = When()
    """Conditions; an empty one fits every pair."""
    why: str = ""
    """The reason in words, written beside each decision."""


DEFAULT_RULES = (
    Rule(
        "same-dataset",
        "drop_train_task",
        When(same_dataset=True, level=("held_out", "partial"), same_task=False),
        "the train task is made from the evaluation task's own data set",
    ),
    Rule(
        "supervised-instances",
        "drop_train_examples",
        When(level=("supervised",), hit_fraction_rare_over=0.0),
        "supervised leakage is judged example by example",
    ),
    Rule(
        "frequent-only",
        "keep",
        When(hit_fraction_over=0.0, hit_fraction_rare_at_most=0.0),
        "everything shared is text that very many groups share",
    ),
    Rule(
        "same-output",
        "drop_train_examples",
        When(same_output_fraction_over=0.5),
        "shared text with equal outputs gives the answer away",
    ),
)


@dataclass(frozen=True)
class Split:
    """How overlapping pairs are decided."""

    threshold: float = 0.01
    """Pairs whose hit_fraction is above this must be decided (OPT-IML section 2.3: 1 %)."""
    rules: tuple[Rule, ...] = DEFAULT_RULES
    decisions: str | None = None
    """CSV of people's decisions, relative to the recipe; copied into the run when that has none."""
    near_duplicates: Literal["keep", "drop_across", "drop"] = "keep"
    """What becomes of train examples whose surviving near-duplicate is an evaluation example (drop_across), or any other
    example (drop)."""


@dataclass(frozen=True)
class Recipe:
    """Everything a run is made from."""

    name: str
    """Names the run: `runs/<name>` unless --run says otherwise."""
    sources: tuple[Source, ...]
    data_root: str = "."
    """Folder that source paths begin at, relative to the recipe file."""
    seed: int = 0
    """Every draw is a hash of this number, a purpose and an id."""
    limit: int | None = None
    """Examples read per task, for a quick look; such a run cannot be published."""
    extends: str | None = None
    """Folder of a published benchmark that this one grows from, relative to the recipe: each of its examples keeps its
    place (`taskmill extend` writes it)."""
    curate: Curate = Curate()
    plan: Plan = Plan()
    overlap: Overlap = Overlap()
    split: Split = Split()
    render: Render = Render()  # noqa: RUF009 (frozen)
    mix: Mix = Mix()  # noqa: RUF009
    tokenize: Tokenize = Tokenize()  # noqa: RUF009
    train: Train = Train()  # noqa: RUF009
    evaluate: Evaluate = Evaluate()  # noqa: RUF009


@dataclass(frozen=True)
class Resolved:
    """A recipe with where each of its values came from and the folder its paths are relative to."""

    recipe: Recipe
    origin: dict[str, str]
    """Dotted key -> `file:line`, `--set` or `default`."""
    base: Path
    text: str
    """The YAML as written."""

    def path(self, relative: str) -> Path:
        """Return a path of the recipe, made absolute."""
        return (self.base / relative).resolve()


def known_readers() -> list[str]:
    """Return the names of the readers: the files of `curation/sources`."""
    folder = PACKAGE / "curation" / "sources"
    return sorted(p.stem for p in folder.glob("*.py") if not p.stem.startswith("_"))


def known_layouts() -> list[str]:
    """Return the names of the shipped layouts: the files below `splits/planning/layouts`."""
    return _names_below(PACKAGE / "splits" / "planning" / "layouts")


def known_formats() -> list[str]:
    """Return the names of the shipped chat formats: the files of `templates/chat/formats`."""
    return _names_below(PACKAGE / "templates" / "chat" / "formats")


def _names_below(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).with_suffix("").as_posix() for p in folder.rglob("*.yaml"))
