"""Casts: how one data set's upstream rows become examples, as YAML data shared by every benchmark that has the set.

Reads `casts/<name>.yaml` of the recipe's folders, then of the package. `docs/casts.md` has every key with an example. A small
one:

    dataset: super_glue/cb            # canonical name
    datasets: [super_glue/cb]         # PromptSource folders whose templates it feeds
    format: jsonl                     # jsonl, json (+ records), csv, tsv (+ columns), lines (+ pattern), parallel, parquet
    files: {train: [train.jsonl], unlabeled: [unlabeled.jsonl]}
    fields: [premise, hypothesis, {label: {path: label, classes: [entailment, contradiction], default: -1}}]
    references: {path: label, labels: [entailment, contradiction], default: -1}
    output_fields: [label]

`sources/_values.py` says what a value may be. A cast without `files` reads `train`, `dev`, `test` and `unlabeled` files of its
format. `split: {path: .., map: {..}}` takes the split from the record instead. `explode: {item: passage.questions}` makes one
example per element and binds each to `item`; a later entry may begin at an earlier name, and `{item: [questions, answers]}`
goes along two lists together. `shape` and `keywords` say how the fields are called where a benchmark has one written instruction
instead of templates; `facts` are columns of tasks/tasks that the cast's author knows.

A data set that is published in several layouts has `layouts: {name: changed keys}`; a file belongs to the first layout
whose `files` fit it; one that changes `format` begins without the keys of another format. The layout `hub` is always there:
it reads the Parquet files of the data set's repository on the Hub,
which `sources/_casted.py` finds by themselves; `splits: {train: [train_r1]}` there says how they are called.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from taskmill.curation import cast_keys as keys
from taskmill.curation.cast_keys import parse_facts as parse_facts
from taskmill.curation.cast_keys import parse_files as parse_files
from taskmill.curation.sources._records import Format
from taskmill.curation.sources._values import Value
from taskmill.curation.sources._yaml import load_yaml
from taskmill.errors import RecipeError, did_you_mean, nearest, shorten
from taskmill.shapes import SHAPES

SHIPPED = Path(__file__).parent / "casts"
HUB_SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
"""Split -> names that Parquet files of a Hub repository begin with, unless a cast says otherwise."""
_LAYOUT_KEYS = (
    "format",
    "records",
    "columns",
    "separator",
    "pattern",
    "files",
    "explode",
    "fields",
    "references",
    "options",
    "group",
    "id",
    "split",
    "keywords",
)
_KEYS = ("dataset", "datasets", *_LAYOUT_KEYS, "output_fields", "quality", "shape", "layouts", "facts")


@dataclass(frozen=True)
class Cast:
    """A parsed cast, or one of its layouts."""

    name: str
    dataset: str
    datasets: tuple[str, ...]
    form: Format
    files: Mapping[str, tuple[str, ...]]
    """Split (or `unlabeled`) -> patterns relative to the data set's folder; of the layout hub: beginnings of names."""
    explode: tuple[tuple[str, str | tuple[str, ...]], ...]
    """(name, path): one example per element of the list at the path, bound to the name; of several paths, an object of
    their elements by the last part of each path."""
    fields: Mapping[str, Value]
    references: Value | None
    options: Value | None
    group: tuple[Value, ...]
    id: tuple[Value, ...]
    split: Value | None
    """Where the record says its split; None: its file does."""
    output_fields: tuple[str, ...]
    quality: Value | None
    shape: str | None
    keywords: Mapping[str, str | Value]
    """Field of the shape -> field of the cast, or a value of the record."""
    facts: Mapping[str, Any]
    raw: Mapping[str, Any] = field(compare=False)
    """As written: JSON values."""
    layouts: Mapping[str, Cast] = field(default_factory=dict)
    """Name -> the cast with the keys that this layout changes; always has `hub`."""

    @property
    def configs(self) -> list[str]:
        """Folders of a Hub repository that may hold the data set: what follows the first / of `datasets`, or all of it."""
        named = (name.partition("/")[2] or name for name in self.datasets)
        return [*dict.fromkeys(named), "plain_text", "default"]


# ------------------------------------------------------------------------------------------- finding


def known_casts(folders: Sequence[Path]) -> dict[str, Path]:
    """Return the casts of the folders and then of the package, by name; the first of a name wins.

    Raises:
        RecipeError: a folder does not exist.
    """
    absent = [f"curate.casts: no such folder: {folder}" for folder in folders if not folder.is_dir()]
    if absent:
        raise RecipeError(absent)
    casts: dict[str, Path] = {}
    for folder in [*folders, SHIPPED]:
        for path in sorted(folder.glob("*.yaml")):
            casts.setdefault(path.stem, path)
    return dict(sorted(casts.items()))


def load_cast(name: str, folders: Sequence[Path]) -> Cast:
    """Read a cast by name.

    Raises:
        RecipeError: there is none of that name, or it has problems.
    """
    known = known_casts(folders)
    if name not in known:
        hint = did_you_mean(name, known) or f"; known: {', '.join(known)}"
        raise RecipeError([f"casts: no cast {name!r}{hint}"])
    return _load(known[name])


def casts_by_folder(folders: Sequence[Path]) -> dict[str, Cast]:
    """Return each cast by its own name and by the folder of each data set that it serves (`super_glue/cb`).

    Raises:
        RecipeError: a cast has problems.
    """
    found: dict[str, Cast] = {}
    for name, path in known_casts(folders).items():
        cast = _load(path)
        for key in (name, *cast.datasets):
            found.setdefault(key, cast)
    return dict(sorted(found.items()))


def _load(path: Path) -> Cast:
    """Read a cast file.

    Raises:
        RecipeError: it cannot be read, or has problems.
    """
    try:
        return _parse_file(path.read_text(encoding="utf-8"), path.stem, f"casts/{path.name}")
    except (OSError, ValueError) as error:
        raise RecipeError([f"casts/{path.name}: cannot be read as YAML: {error}"]) from error


@functools.lru_cache(maxsize=1024)
def _parse_file(text: str, name: str, where: str) -> Cast:
    return parse_cast(load_yaml(text), name, where)


# ------------------------------------------------------------------------------------------- parsing


def parse_cast(raw: Any, name: str, where: str) -> Cast:
    """Parse a cast; `where` begins each problem, such as the file's name.

    Raises:
        RecipeError: every problem found, one line each.
    """
    if not isinstance(raw, dict):
        raise RecipeError([f"{where}: found {shorten(raw)}; expected a mapping with {', '.join(_KEYS)}"])
    raw = keys.text_keys(raw)
    problems = _unknown(raw, _KEYS)
    cast = _parse(raw, name, problems)
    layouts = raw.get("layouts") or {}
    if not isinstance(layouts, dict) or not all(isinstance(change, dict) for change in layouts.values()):
        problems.append(f"layouts: found {shorten(layouts)}; expected a mapping of names to changed keys")
        layouts = {}
    parsed = {key: _parse_layout(raw, key, change, cast, problems) for key, change in layouts.items()}
    parsed.setdefault("hub", replace(cast, form=Format("parquet"), files=HUB_SPLITS))
    if problems:
        raise RecipeError([f"{where}: {problem}" for problem in problems])
    return replace(cast, layouts=parsed)


def _unknown(raw: Mapping[str, Any], known: Sequence[str]) -> list[str]:
    return [
        f"unknown key {key!r}{did_you_mean(str(key), known) or f'; it may be one of {chr(44).join(known)}'}"
        for key in raw
        if key not in known
    ]


def _parse(raw: dict[str, Any], name: str, problems: list[str]) -> Cast:
    """Parse everything but layouts."""
    fields = keys.parse_fields(raw.get("fields"), problems)
    form = keys.parse_format(raw, problems)
    stated = keys.parse_files(raw["files"], "files", problems) if raw.get("files") is not None else None
    cast = Cast(
        name=name,
        dataset=keys.one_text(raw, "dataset", problems) or name,
        datasets=keys.text_list(raw.get("datasets", []), "datasets", problems),
        form=form,
        files=keys.default_files(form) if stated is None else stated,
        explode=keys.parse_explode(raw.get("explode"), problems),
        fields=fields,
        references=keys.optional_value(raw, "references", problems),
        options=keys.optional_value(raw, "options", problems),
        group=keys.values(raw, "group", problems),
        id=keys.values(raw, "id", problems),
        split=keys.split_value(raw, problems),
        output_fields=keys.text_list(raw.get("output_fields", []), "output_fields", problems),
        quality=keys.optional_value(raw, "quality", problems),
        shape=keys.parse_shape(raw, problems),
        keywords=keys.parse_keywords(raw.get("keywords") or {}, fields, problems),
        facts=parse_facts(raw.get("facts", {}), problems),
        raw=raw,
    )
    _check_names(cast, problems)
    return cast


def _parse_layout(
    raw: dict[str, Any], name: str, change: dict[str, Any], cast: Cast, problems: list[str]
) -> Cast:
    """Parse the cast with the keys that a layout changes; null takes a key away, `fields` are changed one by one."""
    found: list[str] = []
    change, splits = dict(change), None
    if name == "hub":
        splits = keys.parse_splits(change.pop("splits", {}), found)
        change = {"format": "parquet", **change}
    found += _unknown(change, _LAYOUT_KEYS)
    gone = ("layouts", "records", "columns", "separator", "pattern") if "format" in change else ("layouts",)
    merged = {**{key: value for key, value in raw.items() if key not in gone}, **change}
    for key in ("fields", "keywords"):
        if change.get(key) is not None and raw.get(key) is not None:
            merged[key] = [*keys.as_list(raw[key]), *keys.as_list(change[key])]
    if isinstance(merged.get("keywords"), list):
        merged["keywords"] = {
            k: v for part in merged["keywords"] if isinstance(part, dict) for k, v in part.items()
        }
    layout = _parse(merged, cast.name, found)
    if splits is not None:
        layout = replace(layout, files={**HUB_SPLITS, **splits})
    if set(layout.fields) != set(cast.fields):
        extra = ", ".join(sorted(set(layout.fields) ^ set(cast.fields)))
        found.append(f"fields: {extra} stand in one layout alone; every layout has the same fields")
    problems += [f"layouts.{name}: {problem}" for problem in found if problem not in problems]
    return layout


def _check_names(cast: Cast, problems: list[str]) -> None:
    """Check what hangs together: output fields are fields, a shape has its fields."""
    for path in cast.output_fields:
        if path.split(".")[0] not in cast.fields:
            problems.append(f"output_fields: the cast has no field {path!r}{did_you_mean(path, cast.fields)}")
    if cast.shape is None:
        return
    names = set(cast.keywords or cast.fields)
    shape = SHAPES[cast.shape]
    needed, allowed = set(shape.needs), set(shape.fields)
    extra = names - allowed - {renamed(cast, path) for path in cast.output_fields}
    if needed - names or extra:
        absent = ", ".join(f"{name}: FIELD" for name in sorted(needed - names))
        hint = next(
            (f" (is {near!r} meant?)" for name in sorted(extra) if (near := nearest(name, allowed))), ""
        )
        if extra and not hint:
            hint = f"; there is no place for {', '.join(sorted(extra))}"
        hint += (
            f"; `keywords: {{{absent}}}` says which field it is"
            if absent and names and not cast.keywords
            else ""
        )
        problems.append(
            f"shape: {cast.shape} needs {', '.join(sorted(needed))} and may have {', '.join(sorted(allowed))}, beside "
            f"output_fields; found {', '.join(sorted(names)) or 'no field'}{hint}"
        )


def renamed(cast: Cast, path: str) -> str | None:
    """Return the path of an output field as a keywords task calls it, or None if that has no such field."""
    if not cast.keywords:
        return path
    head, *rest = path.split(".")
    name = next((new for new, old in cast.keywords.items() if old == head), None)
    return None if name is None else ".".join([name, *rest])
