"""A run's settings without a place of this machine: what a published recipe says instead of local paths.

Sources: `data_root` becomes `.`, so that whoever rebuilds names a folder with `--data-root`, in which every local source lies
where the names of its files begin. That is its path relative to data_root; a source elsewhere has the last part of its
path (with an archive, from the archive on). Two sources may not end up inside each other, unless they are so here; options
may not name files outside of the folder. Hub sources stay, sources that were missing go.
Files: a path below the recipe's folder stays as it is; any other becomes its last part, or `files/SETTING/` before it where
that is taken. Models and tokenizers of training keep a Hub id or a relative path; the file is not published. What only this
machine or its user can decide goes: an endpoint, and whether programs are run.

Reads the files that settings name; writes nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from taskmill.errors import shorten
from taskmill.recipe import Resolved, Source, known_formats, known_layouts
from taskmill.recipe_evaluate import is_function
from taskmill.recipe_values import PINNED

RESERVED = ("recipe.json", "recipe.yaml", "decisions.csv")
"""Names in the folder of a published recipe that are none of the user's files."""
ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".tbz2", ".bz2", ".txz", ".xz")
_TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "config.json",
)
_CHAT = ("chat_template.jinja", "chat_template.json", *_TOKENIZER[:3])
_YAML = ("*.yaml", "*.yml")
_ON_HUB = re.compile(PINNED.pattern + "/", re.ASCII)
_PUBLISHED = ("manifest.json", "ids/*/*.parquet", "tables/*.parquet")
"""What a benchmark that grows needs of the one it grows from."""


@dataclass(frozen=True)
class Named:
    """A file or folder that a setting names."""

    key: str
    """Dotted, with the number in a list."""
    name: str
    """As the recipe writes it."""
    patterns: tuple[str, ...] = ()
    """What is read of a folder."""
    beside: tuple[str, ...] = ()
    """What is read beside a file, where it is there."""


def named_files(values: Mapping[str, Any]) -> Iterator[Named]:
    """Yield every file and folder that the settings of a recipe name, but for sources, decisions, models and code."""
    for number, name in enumerate(values["curate"]["taxonomy"]):
        yield Named(f"curate.taxonomy.{number}", name)
    for number, name in enumerate(values["curate"]["casts"]):
        yield Named(f"curate.casts.{number}", name, ("*.yaml",))
    for number, name in enumerate(values["render"]["templates"]):
        yield Named(f"render.templates.{number}", name, tuple(f"**/{pattern}" for pattern in _YAML))
    layout, chat = values["plan"]["layout"], values["render"]["format"]
    if layout is not None and layout not in known_layouts():
        yield Named("plan.layout", layout)
    if chat not in known_formats():
        yield Named("render.format", chat, _CHAT, () if chat.endswith((".yaml", ".yml")) else _CHAT)
    if values["overlap"]["tokenizer"] is not None:
        yield Named("overlap.tokenizer", values["overlap"]["tokenizer"], _TOKENIZER)
    if values["extends"] is not None:
        yield Named("extends", values["extends"], _PUBLISHED)


def portable_files(values: dict[str, Any], base: Path, problems: list[str]) -> dict[str, bytes]:
    """Rewrite the paths of files in `values` and return the files, by their path in the published recipe's folder.

    A file that is not there, and two that would have one place, are added to `problems`.
    """
    found = [
        named for named in named_files(values) if named.key != "overlap.tokenizer" or _is_here(named, base)
    ]
    found.sort(key=lambda named: not _stays(named.name))  # those that stay take their places first
    files: dict[str, bytes] = {}
    for named in found:
        name = named.name if _stays(named.name) else _moved(named, files)
        put(values, named.key, name)
        for place, path in _contents(named, base / named.name, os.path.normpath(name), problems):
            data = path.read_bytes()
            if files.setdefault(place, data) != data:
                problems.append(f"{named.key}: {named.name!r}: another setting has another file at {place}")
    return files


def _is_here(named: Named, base: Path) -> bool:
    return (base / named.name).exists()


def _stays(name: str) -> bool:
    """Return whether a path lies below the recipe's folder under a name that a published folder can have."""
    parts = PurePosixPath(os.path.normpath(name)).parts
    hidden = any(part.startswith(".") for part in parts)
    return bool(parts) and not PurePosixPath(name).is_absolute() and not hidden and parts[0] not in RESERVED


def _moved(named: Named, files: Mapping[str, bytes]) -> str:
    """Return a new place for a file from elsewhere: its last part, or behind its setting where that is taken."""
    last = PurePosixPath(os.path.normpath(named.name)).name.lstrip(".") or "files"
    taken = last in RESERVED or any(place == last or place.startswith(f"{last}/") for place in files)
    return f"files/{named.key}/{last}" if taken else last


def _contents(named: Named, path: Path, place: str, problems: list[str]) -> Iterator[tuple[str, Path]]:
    """Yield (place, file) of everything that is read of what a setting names."""
    if path.is_file():
        yield place, path
        around = PurePosixPath(place).parent
        for other in named.beside:
            if (path.parent / other).is_file() and other != path.name:
                yield (around / other).as_posix(), path.parent / other
    elif path.is_dir() and named.patterns:
        listed = {one for pattern in named.patterns for one in path.glob(pattern) if one.is_file()}
        for one in sorted(listed):
            yield f"{place}/{one.relative_to(path).as_posix()}", one
    else:
        problems.append(f"{named.key}: {named.name!r} is not there any more; it is part of what is published")


def put(values: dict[str, Any], key: str, value: Any) -> None:
    """Set a value by its dotted key, in which a number counts in a list."""
    *parents, last = key.split(".")
    place: Any = values
    for part in parents:
        place = place[int(part)] if isinstance(place, list) else place[part]
    if isinstance(place, list):
        place[int(last)] = value
    else:
        place[last] = value


def without_machine(values: dict[str, Any]) -> None:
    """Take out of `values` what only this machine or its user can decide, and the folders of models."""
    for section, key in (("train", "model"), ("tokenize", "tokenizer")):
        values[section][key] = _last_part(values[section][key])
    for entry in values["evaluate"]["tasks"]:
        if entry["metric"] is not None and is_function(entry["metric"]):
            entry["metric"] = _last_part(entry["metric"])
    values["evaluate"]["endpoint"] = None
    values["evaluate"]["code"]["run"] = False


def _last_part(name: str | None) -> str | None:
    """Return a Hub id or a relative path as it is, and the last part of any other."""
    outside = name is not None and (Path(name).is_absolute() or ".." in PurePosixPath(name).parts)
    return Path(name).name if name is not None and outside else name


# ---------------------------------------------------------------------------------------------- sources


def portable_sources(
    resolved: Resolved, upstream: Sequence[Mapping[str, Any]], problems: list[str]
) -> list[str]:
    """Return the portable path of every source.

    Args:
        resolved: the recipe of the run.
        upstream: what curate's manifest says of each source.
        problems: gets those of sources that cannot be told apart in one folder, or that name a place of this machine.
    """
    root = resolved.path(resolved.recipe.data_root)
    found: list[str] = []
    here: dict[int, Path] = {}
    for number, (source, entry) in enumerate(zip(resolved.recipe.sources, upstream, strict=True)):
        if source.hub is not None:
            found.append(source.path)
            continue
        if source.repository is not None and (source.repository.startswith(("/", "~", "file:"))):
            problems.append(
                f"sources.{number}.repository: {shorten(source.repository)} is a place of this machine; name one where "
                f"others find the files, or leave it out, and make the run again"
            )
        place = Path(os.path.normpath(root / source.path))
        inside = place.is_relative_to(root)
        path = place.relative_to(root).as_posix() if inside else _beginning(place, entry["files"])
        problems += _outside(number, source, place, root if inside else place.parent)
        found.append(path)
        if not entry.get("missing"):
            here[number] = place
    problems += _clashes({number: found[number] for number in here}, here)
    return found


def local_names(files: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names of a source's files, without those that options take from the Hub (`owner/name@COMMIT/...`)."""
    return [str(file["name"]) for file in files if not _ON_HUB.match(str(file["name"]))]


def _beginning(place: Path, files: Sequence[Mapping[str, Any]]) -> str:
    """Return where the names of a source's files begin: the last part of its path, or from the archive that it leads into."""
    names = local_names(files)
    for length in range(1, len(place.parts)):
        start = "/".join(place.parts[-length:])
        is_top = length == 1 or place.parts[-length].lower().endswith(ARCHIVES)
        if is_top and all(name == start or name.startswith(f"{start}/") for name in names):
            return start
    return place.name


def _outside(number: int, source: Source, place: Path, root: Path) -> Iterator[str]:
    """Yield a problem for every option that names something on this machine outside of the source's root."""
    for key, text in texts(source.options):
        parts = PurePosixPath(text).parts
        if len(text) > 1000 or "\0" in text or (".." not in parts and not text.startswith("/")):
            continue
        other = Path(os.path.normpath(place / text))
        if len(parts) > 1 and other.exists() and not other.is_relative_to(root):
            yield (
                f"sources.{number}.options.{key}: {shorten(text)} lies outside of data_root, where nobody else has it; "
                f"put it below {root} and make it again"
            )


def _clashes(paths: Mapping[int, str], here: Mapping[int, Path]) -> Iterator[str]:
    """Yield a problem for sources that would lie in each other where they are rebuilt and do not here."""
    for one, outer in paths.items():
        for other, inner in paths.items():
            within = PurePosixPath(inner).is_relative_to(PurePosixPath(outer))
            if one == other or not within or (inner == outer and one > other):
                continue
            rest = PurePosixPath(inner).relative_to(PurePosixPath(outer))
            if here[one] / rest != here[other]:
                yield (
                    f"sources.{other}.path: would be {inner!r} where the benchmark is rebuilt, in the {outer!r} of "
                    f"sources.{one}, which is another folder here; put both below data_root under names of their own"
                )


# ----------------------------------------------------------------------------------- looking for places


def texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted key, text) of every text in JSON values."""
    if isinstance(value, str):
        yield key, value
    items: Any = (
        value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    )
    for name, item in items:
        yield from texts(item, f"{key}.{name}" if key else str(name))


def places_in(values: Mapping[str, Any], folders: Sequence[Path]) -> list[str]:
    """Return a problem for every text of the settings that holds one of some absolute folders."""
    names = sorted({str(folder).rstrip("/") for folder in folders if len(folder.parts) > 1})
    if not names:
        return []
    pattern = re.compile(rf"(?<![\w./-])({'|'.join(map(re.escape, names))})(?:/|\Z|(?=\s))")
    return [
        f"{key}: {shorten(text)} names {found[1]}, a folder of this machine; a published recipe may not"
        for key, text in texts(values)
        if (found := pattern.search(text))
    ]


_ABSOLUTE = re.compile(r"(?:^|(?<=[\s'\"=,:;\[({]))(?:~?/[\w.-]+|[A-Za-z]:\\\w)", re.MULTILINE)


def names_place(text: str) -> bool:
    """Return whether a text seems to hold an absolute path; an address with `//` is none."""
    return _ABSOLUTE.search(text) is not None


def leads_out(values: Mapping[str, Any]) -> list[str]:
    """Return a problem for every path of a published recipe that leads out of its folder, or of the data's."""
    named = [(one.key, one.name) for one in named_files(values)]
    named += [(f"sources.{number}.path", source["path"]) for number, source in enumerate(values["sources"])]
    named += [("data_root", values["data_root"])]
    named += [
        (f"{section}.{key}", values[section][key])
        for section, key in (("train", "model"), ("tokenize", "tokenizer"))
        if values[section][key] is not None
    ]
    scored = [entry["metric"] for entry in values["evaluate"]["tasks"]]
    named += [
        (f"evaluate.tasks.{number}.metric", metric)
        for number, metric in enumerate(scored)
        if metric is not None and is_function(metric)
    ]
    if values["split"]["decisions"] is not None:
        named.append(("split.decisions", values["split"]["decisions"]))
    named = [
        (key, name)
        for key, name in named
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts
    ]
    for number, source in enumerate(values["sources"]):
        found = texts(source["options"], f"sources.{number}.options")
        named += [(key, text) for key, text in found if _climbs(source["path"], text)]
    return [f"{key}: found {shorten(name)}; expected a path below the folder" for key, name in named]


def _climbs(path: str, text: str) -> bool:
    """Return whether an option's text, as a path relative to a source's, leads out of the folder that the source lies in.

    What begins with `/` may also be words: it is a path where the folder that it begins with exists.
    """
    if "\n" in text or "\0" in text or len(text) > 1000:
        return False
    if text.startswith("/"):
        parts = PurePosixPath(text).parts
        return len(parts) > 2 and Path(*parts[:2]).exists()
    return ".." in text.split("/") and os.path.normpath(f"{path}/{text}").split("/")[0] == ".."
