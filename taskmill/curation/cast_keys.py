"""The keys of a cast: what each may hold, what is wrong with it, and its parsed form.

Every function adds what is wrong to `problems`, as `key: problem`, and returns something harmless in its place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from taskmill.curation.sources import _files
from taskmill.curation.sources._records import FORMATS, Format
from taskmill.curation.sources._value_keys import parse_value
from taskmill.curation.sources._values import Value, map_key
from taskmill.errors import did_you_mean, shorten
from taskmill.records import METRICS
from taskmill.shapes import SHAPES

FILE_SPLITS: dict[str, str] = {
    **_files.SPLIT_NAMES,
    **dict.fromkeys(("null", "unlabeled"), "unlabeled"),
}
ENDINGS = {"jsonl": "jsonl", "json": "json", "csv": "csv", "tsv": "tsv", "lines": "txt"}
_TEXT = (lambda found: isinstance(found, str) and bool(found), "a text")
_LIST = (lambda found: isinstance(found, list) and all(isinstance(f, str) for f in found), "a list of texts")
FACTS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("category", "definition", "license", "license_evidence", "family", "subtask"), _TEXT),
    **dict.fromkeys(("homepage", "repository"), _TEXT),
    **dict.fromkeys(("languages", "corpora"), _LIST),
    "metric": (lambda found: found in METRICS, f"one of {', '.join(METRICS)}"),
    "multiple_choice": (lambda found: isinstance(found, bool), "true or false"),
}


def text_keys(raw: Any) -> Any:
    """Return JSON values: keys that YAML read as null, numbers or truth values become their JSON text."""
    if isinstance(raw, dict):
        return {map_key(key): text_keys(value) for key, value in raw.items()}
    if isinstance(raw, (list, tuple)):
        return [text_keys(item) for item in raw]
    return raw if raw is None or isinstance(raw, (str, int, float)) else str(raw)


def one_text(raw: dict[str, Any], key: str, problems: list[str]) -> str | None:
    """Return the text under a key, if any."""
    found = raw.get(key)
    if found is not None and not (isinstance(found, str) and found):
        problems.append(f"{key}: found {shorten(found)}; expected a text")
        return None
    return found


def text_list(found: Any, key: str, problems: list[str]) -> tuple[str, ...]:
    """Return a list of texts; a single text is a list of one."""
    listed = [found] if isinstance(found, str) else found
    if isinstance(listed, list) and all(isinstance(item, str) and item for item in listed):
        return tuple(listed)
    problems.append(f"{key}: found {shorten(found)}; expected a list of texts")
    return ()


def parse_fields(found: Any, problems: list[str]) -> dict[str, Value]:
    """Parse a mapping of fields to values, or a list of names that are their own paths and of such mappings."""
    if isinstance(found, list) and all(isinstance(part, (str, dict)) for part in found):
        listed = [{part: part} if isinstance(part, str) else part for part in found]
        found = {key: value for part in listed for key, value in part.items()}
    if not isinstance(found, dict) or not found or not all(isinstance(key, str) for key in found):
        problems.append(
            f"fields: found {shorten(found)}; expected a mapping of at least one field to its path, or a list of names"
        )
        return {}
    return {key: parse_value(value, f"fields.{key}", problems) for key, value in found.items()}


def optional_value(raw: dict[str, Any], key: str, problems: list[str]) -> Value | None:
    """Parse the value under a key, if any."""
    return parse_value(raw[key], key, problems) if raw.get(key) is not None else None


def split_value(raw: dict[str, Any], problems: list[str]) -> Value | None:
    """Parse `split`, whose values are named by `map` or are names of splits themselves."""
    value = optional_value(raw, "split", problems)
    for name in (value.map or {}).values() if value is not None else ():
        if name is not None and name not in FILE_SPLITS:
            known = ", ".join(FILE_SPLITS)
            hint = did_you_mean(str(name), FILE_SPLITS)
            problems.append(f"split.map: unknown split {name!r}{hint}; known: {known}")
    return value


def default_files(form: Format) -> dict[str, tuple[str, ...]]:
    """Return the files of a cast that names none: `train.jsonl`, `dev.jsonl` .., by its format's usual ending."""
    ending = ENDINGS.get(form.name)
    names: dict[str, tuple[str, ...]] = {}
    for name, split in {**_files.SPLIT_NAMES, "unlabeled": "unlabeled"}.items():
        if ending:
            names[split] = (*names.get(split, ()), f"{name}.{ending}")
    return names


def values(raw: dict[str, Any], key: str, problems: list[str]) -> tuple[Value, ...]:
    """Parse the values of `group` or `id`; one that a record lacks is null, not damage."""
    found = raw.get(key)
    if found is None:
        return ()
    value = parse_value(found, key, problems)
    values = value.items if value.items is not None else (value,)
    return tuple(replace(item, default=item.default if item.has_default else None) for item in values)


def parse_format(raw: dict[str, Any], problems: list[str]) -> Format:
    """Parse `format` and the keys that go with it; jsonl where nothing is said."""
    name = one_text({"format": "jsonl", **raw}, "format", problems)
    if name not in FORMATS:
        hint = did_you_mean(name, FORMATS) if name else ""
        problems.append(f"format: found {name!r}; expected one of {', '.join(FORMATS)}{hint}")
        return Format("jsonl")
    columns = raw.get("columns")
    suffixes: Any = {}
    if name == "jsonl" and columns is not None:
        suffixes, columns = columns, None
        if not (is_text_map(suffixes) and all(suffixes.values())):
            problems.append(f"columns: found {shorten(suffixes)}; expected columns and their files' suffixes")
            suffixes = {}
    if name == "parallel":
        suffixes, columns = columns, None
        if not (isinstance(suffixes, dict) and len(suffixes) > 1 and is_text_map(suffixes)):
            problems.append(
                f"columns: found {shorten(suffixes)}; expected at least two columns and their suffixes"
            )
            suffixes = {"a": ".a", "b": ".b"}
    return Format(
        name,
        records=one_text(raw, "records", problems),
        columns=() if columns is None else text_list(columns, "columns", problems),
        separator=parse_separator(raw, name, problems),
        pattern=parse_pattern(raw, name, problems),
        suffixes=suffixes,
    )


def parse_separator(raw: dict[str, Any], form: str, problems: list[str]) -> str:
    """Parse `separator`, a single character that goes with the format csv alone."""
    text = one_text(raw, "separator", problems) or ","
    if len(text) > 1 or text in '\n\r"' or (form != "csv" and "separator" in raw):
        problems.append(f"separator: found {text!r}; expected a single character, with format csv only")
        return ","
    return text


def is_text_map(found: Any) -> bool:
    """Say whether this is a mapping of texts to texts."""
    return isinstance(found, dict) and all(
        isinstance(k, str) and isinstance(v, str) for k, v in found.items()
    )


def parse_pattern(raw: dict[str, Any], form: str, problems: list[str]) -> re.Pattern[str] | None:
    """Parse `pattern`, which has named groups and goes with the format lines alone."""
    text = one_text(raw, "pattern", problems)
    if form != "lines" and text is None:
        return None
    try:
        pattern = re.compile(text or "")
    except (re.error, OverflowError, RecursionError) as error:
        problems.append(f"pattern: {text!r} is not a regular expression: {error}")
        return None
    if form != "lines" or not pattern.groupindex:
        problems.append(
            f"pattern: found {text!r}; expected named groups (?P<name>..), with format lines only"
        )
    return pattern


def parse_files(found: Any, key: str, problems: list[str]) -> dict[str, tuple[str, ...]]:
    """Parse split -> patterns; what is wrong is added to `problems`."""
    if not isinstance(found, dict):
        problems.append(f"{key}: found {shorten(found)}; expected a mapping of splits to file patterns")
        return {}
    files: dict[str, tuple[str, ...]] = {}
    for name, patterns in found.items():
        if name not in FILE_SPLITS:
            known = ", ".join(FILE_SPLITS)
            problems.append(
                f"{key}: unknown split {name!r}{did_you_mean(str(name), FILE_SPLITS)}; known: {known}"
            )
            continue
        texts = text_list(patterns, f"{key}.{name}", problems)
        for text in texts:
            parts = PurePosixPath(text).parts
            if text.startswith("/") or ".." in parts or not parts or not is_pattern(text):
                problems.append(
                    f"{key}.{name}: found {text!r}; expected a pattern below the data set's folder"
                )
        split = FILE_SPLITS[name]
        files[split] = files.get(split, ()) + texts
    return files


def is_pattern(text: str) -> bool:
    """Say whether a shell pattern can be used, without looking at any file."""
    try:
        return "\0" not in text and not list(Path(__file__).with_name("no such folder").glob(text))
    except (ValueError, NotImplementedError, re.error):
        return False


def parse_explode(found: Any, problems: list[str]) -> tuple[tuple[str, str | tuple[str, ...]], ...]:
    """Parse `explode` into pairs of a name and a path, or paths of lists of one length that are gone along together."""
    if found is None:
        return ()
    named = {"item": found} if isinstance(found, str) else found
    if (
        not isinstance(named, dict)
        or not all(map(_is_path, named))
        or not all(map(_are_paths, named.values()))
    ):
        problems.append(f"explode: found {shorten(found)}; expected a path, or a mapping of names to paths")
        return ()
    return tuple((name, path if isinstance(path, str) else tuple(path)) for name, path in named.items())


def _is_path(found: Any) -> bool:
    return isinstance(found, str) and bool(found)


def _are_paths(found: Any) -> bool:
    return _is_path(found) or (isinstance(found, list) and len(found) > 0 and all(map(_is_path, found)))


def parse_shape(raw: dict[str, Any], problems: list[str]) -> str | None:
    """Parse `shape`."""
    shape = one_text(raw, "shape", problems)
    if shape is not None and shape not in SHAPES:
        hint = did_you_mean(shape, SHAPES)
        problems.append(f"shape: found {shape!r}; expected one of {', '.join(SHAPES)}{hint}")
        return None
    return shape


def parse_keywords(found: Any, fields: Mapping[str, Value], problems: list[str]) -> dict[str, str | Value]:
    """Parse names of a shape's fields -> field of the cast, or a value taken from the upstream record."""
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        problems.append(f"keywords: found {shorten(found)}; expected a mapping of names to fields")
        return {}
    named: dict[str, str | Value] = {}
    for name, target in found.items():
        if not isinstance(target, str):
            named[name] = parse_value(target, f"keywords.{name}", problems)
            continue
        named[name] = target
        if target not in fields:
            problems.append(
                f"keywords.{name}: the cast has no field {target!r}{did_you_mean(target, fields)}"
            )
    return named


def parse_facts(found: Any, problems: list[str]) -> dict[str, Any]:
    """Check columns of tasks/tasks that a cast or recipe states; what is wrong is added to `problems`."""
    if not isinstance(found, dict):
        problems.append(f"facts: found {shorten(found)}; expected a mapping")
        return {}
    for key, value in found.items():
        if key not in FACTS:
            hint = did_you_mean(str(key), FACTS) or f"; it may be one of {', '.join(FACTS)}"
            problems.append(f"facts: unknown key {key!r}{hint}")
        elif not FACTS[key][0](value):
            problems.append(f"facts.{key}: found {shorten(value)}; expected {FACTS[key][1]}")
    return dict(found)


def parse_splits(found: Any, problems: list[str]) -> dict[str, tuple[str, ...]]:
    """Parse split -> names that a Hub repository gives it; an empty list: the repository has none."""
    if not isinstance(found, dict):
        problems.append(f"splits: found {shorten(found)}; expected a mapping of splits to names")
        return {}
    known = ("train", "validation", "test", "unlabeled")
    named = {split: text_list(names, f"splits.{split}", problems) for split, names in found.items()}
    for split in named:
        if split not in known:
            hint = did_you_mean(str(split), known)
            problems.append(f"splits: unknown split {split!r}{hint}; known: {', '.join(known)}")
    problems += [
        f"splits.{split}: found {name!r}; expected the name of a split, without / and *"
        for split, names in named.items()
        for name in names
        if not re.fullmatch(r"[\w-]+", name)
    ]
    return named


def as_list(found: Any) -> list[Any]:
    """Return fields as a list of names and mappings."""
    return list(found) if isinstance(found, list) else [found]
