"""Reading the upstream files of a data set through its cast; shared by the readers that use casts."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from taskmill.curation.casting import (
    Cast,
    casts_by_folder,
    known_casts,
    load_cast,
    parse_cast,
    renamed,
)
from taskmill.curation.reader import Columns, SourceFolder, TaskData, TaskEntry
from taskmill.curation.sources import _files
from taskmill.curation.sources._cast_record import caster, scopes_of, split_of
from taskmill.curation.sources._files import Record
from taskmill.curation.sources._records import Format, companions, guess_format, read_records
from taskmill.curation.sources._values import Unusable
from taskmill.errors import DataError, RecipeError, did_you_mean

log = logging.getLogger("taskmill")
OPTIONS = {
    "casts": "names of the casts to read, or a mapping of casts to their folders; by default every cast that has files",
}


class DataFile(NamedTuple):
    """A file of a data set."""

    split: str
    """Upstream's split, or `unlabeled`."""
    path: Path
    layout: str
    """Name of the cast's layout that it has; empty: that of the cast itself."""


def find_data(
    cast: Cast,
    folders: Sequence[Path],
    files: Mapping[str, tuple[str, ...]] | None = None,
    name: str | None = None,
) -> list[DataFile]:
    """Return every file of a data set below its folders, each once; `files` are patterns instead of the cast's own.

    A folder that holds none of the cast's own files is read as a repository of the Hub, whose Parquet files lie in the
    folder itself, in that of the configuration (that of `name`, such as `super_glue/cb`, if it is given) or in `data`.
    """
    configs = [name.split("/", 1)[1]] if name and "/" in name else cast.configs
    found: dict[Path, DataFile] = {}
    for folder in folders:
        data = list(_matches(files or _patterns(cast), folder))
        if not data and files is None:
            inner = (folder / place for place in (*configs, "data"))
            data = next((own for below in inner if (own := list(_matches(_patterns(cast), below)))), [])
        if not data and files is None:
            data = _hub_files(cast, folder, configs)
        for split, path in data:
            found.setdefault(path, DataFile(split, path, layout_of(cast, path)))
    return list(found.values())


def _patterns(cast: Cast) -> dict[str, tuple[str, ...]]:
    """Return split -> patterns of all layouts but the Hub's."""
    patterns: dict[str, tuple[str, ...]] = {}
    for layout in (cast, *(other for name, other in cast.layouts.items() if name != "hub")):
        for split, listed in layout.files.items():
            patterns[split] = tuple(dict.fromkeys((*patterns.get(split, ()), *listed)))
    return patterns


def _matches(files: Mapping[str, tuple[str, ...]], folder: Path) -> Iterator[tuple[str, Path]]:
    for split, patterns in files.items():
        for pattern in patterns:
            for path in sorted([*folder.glob(pattern), *folder.glob(pattern + ".gz")]):
                if path.is_file():
                    yield split, path


def _hub_files(cast: Cast, folder: Path, configs: Sequence[str]) -> list[tuple[str, Path]]:
    """Return the Parquet files of the first folder of a Hub repository that has any of the cast's splits."""
    patterns = {
        split: tuple(
            pattern
            for name in names
            for pattern in (f"{name}-*-of-*.parquet", f"{name}.parquet", f"{name}/*.parquet")
        )
        for split, names in cast.layouts["hub"].files.items()
    }
    places = (folder, *(folder / config for config in configs), folder / "data")
    return next((found for place in places if (found := list(_matches(patterns, place)))), [])


def layout_of(cast: Cast, path: Path) -> str:
    """Return the layout that a file has: the Hub's if it is Parquet, else the first whose patterns fit its name."""
    if path.name.endswith(".parquet"):
        return "hub"
    name = path.with_name(path.name.removesuffix(".gz"))
    for key, layout in (("", cast), *cast.layouts.items()):
        if key != "hub" and any(name.match(p) for patterns in layout.files.values() for p in patterns):
            return key
    return ""


def _layout(cast: Cast, key: str) -> Cast:
    return cast.layouts[key] if key else cast


def check_companions(cast: Cast, files: Sequence[DataFile], source: SourceFolder) -> list[Path]:
    """Return every file that reading these will open.

    Raises:
        DataError: a side of a parallel text is missing.
    """
    opened = [side for file in files for side in companions(_layout(cast, file.layout).form, file.path)]
    for path in opened:
        if not path.is_file():
            problem = f"no such file, which the cast {cast.name!r} reads beside its other sides"
            raise DataError(problem, file=source.relative(path))
    return opened


def task_facts(cast: Cast, *, keywords: bool) -> dict[str, Any]:
    """Return the facts of a task that comes through a cast; `keywords`: fields are called as its shape says."""
    output_fields = [renamed(cast, path) if keywords else path for path in cast.output_fields]
    metadata: dict[str, Any] = {"cast": cast.name}
    if keywords:
        metadata["shape"] = cast.shape
    return {
        **cast.facts,
        "dataset": cast.dataset,
        "output_fields": [path for path in output_fields if path is not None],
        "metadata": metadata,
    }


def read_data(
    cast: Cast,
    split: str,
    path: Path,
    source: SourceFolder,
    data: TaskData,
    *,
    keywords: bool,
    options: bool = True,
) -> None:
    """Add the examples of one file; upstream ids begin with the split.

    Raises:
        DataError: the file or a record is damaged and the recipe says stop.
    """
    example_of, explode = caster(cast, keywords=keywords), cast.explode
    with _files.reading(data, source, path):
        for record in read_records(_form_of(cast), path, source):
            if not _files.is_record(data, source, path, record):
                continue
            try:
                scopes = list(scopes_of(record.value, explode)) if explode else [record.value]
            except Unusable as error:
                _damage(data, source, path, record, error)
                continue
            if not scopes:
                _files.leave(data, source, path, record, "empty_list", "no element to make an example of")
            for scope in scopes:
                try:
                    example = example_of(scope)
                    place = split if cast.split is None else split_of(cast.split, scope)
                except Unusable as error:
                    _damage(data, source, path, record, error)
                    continue
                number = example["upstream_id"]
                _files.accept(
                    data,
                    source,
                    path,
                    record,
                    example["fields"],
                    example["references"],
                    options=example["options"] if options else None,
                    upstream_id=_files.usable_id(f"{place}-{number}") if number else None,
                    upstream_split=None if place == "unlabeled" else place,
                    group=example["group"],
                    quality=example["quality"],
                )


def _form_of(cast: Cast) -> Format:
    """Return how the cast's files are read: of Parquet, only lists and objects of columns that its text names."""
    if cast.form.name != "parquet":
        return cast.form
    return replace(
        cast.form,
        wanted=frozenset(text for named in _texts(cast.raw) for text in (named, named.split(".")[0])),
    )


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in a JSON value, keys among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for item in value:
            yield from _texts(item)
        for item in value.values() if isinstance(value, dict) else ():
            yield from _texts(item)


def _damage(data: TaskData, source: SourceFolder, path: Path, record: Record, error: Unusable) -> None:
    where = {"field": error.field, "value": error.value, "expected": error.expected}
    _files.damage(data, source, path, record, error.reason, error.problem, **where)


# ---------------------------------------------------------------- benchmarks of one written instruction


def discover(source: SourceFolder) -> list[TaskEntry]:
    """List the data sets that lie below the folder and have a cast: `<folder>/<cast>` or `<folder>/<data set>`.

    Raises:
        DataError: the folder is missing, or a cast that the recipe names has no files.
        RecipeError: a cast does not exist or has problems.
    """
    _files.need_folder(source, source.path, "a folder with one folder a data set")
    wanted = source.options.get("casts")
    if wanted is None:
        found = [_entry(cast, folders, source) for cast, folders in _present(source)]
    else:
        named = wanted if isinstance(wanted, Mapping) else dict.fromkeys(_names(wanted))
        found = [_named(str(name), folder, source) for name, folder in named.items()]
    if not found:
        known = ", ".join(known_casts(source.casts))
        raise DataError(
            "no cast has a folder of files here",
            file=source.relative(source.path),
            expected=f"a folder named like one of the casts: {known}",
        )
    return sorted(found, key=lambda entry: entry.name)


def _names(wanted: Any) -> list[str]:
    listed = [wanted] if isinstance(wanted, str) else wanted
    if isinstance(listed, (list, tuple)) and all(isinstance(name, str) for name in listed):
        return list(listed)
    raise RecipeError([f"sources: option casts: found {wanted!r}; expected names of casts"])


def _present(source: SourceFolder) -> Iterator[tuple[Cast, list[Path]]]:
    """Yield each cast whose own folder is there and holds its files; only casts with a shape."""
    seen: set[str] = set()
    for name, cast in casts_by_folder(source.casts).items():
        folder = source.path / name
        if cast.name in seen or not folder.is_dir():
            continue
        why = "the cast has no `shape`, which this reader needs"
        if cast.shape is not None:
            if find_data(cast, [folder]):
                seen.add(cast.name)
                yield cast, [folder]
                continue
            why = f"no file that the cast {cast.name!r} reads{_what_is_there([folder])}"
        if any(path.is_file() for path in folder.iterdir()):
            log.warning("%s is not read: %s", source.relative(folder), why)


def _named(name: str, folders: Any, source: SourceFolder) -> TaskEntry:
    """Return the entry of a cast that the recipe names, with its folder or folders where it gives any."""
    cast = load_cast(name, source.casts)
    if folders is not None:
        return _entry(cast, [below(source, folder) for folder in _names(folders)], source)
    own = [source.path / part for part in (cast.name, cast.dataset) if (source.path / part).is_dir()]
    return _entry(cast, own[:1] or [source.path], source)


def below(source: SourceFolder, folder: str) -> Path:
    """Return a folder that an option names, relative to the source.

    Raises:
        DataError: it does not exist.
    """
    path = Path(os.path.normpath(source.path / folder))
    return _files.need_folder(source, path, "a folder of upstream files")


def need_data(
    cast: Cast,
    folders: Sequence[Path],
    source: SourceFolder,
    files: Mapping[str, tuple[str, ...]] | None = None,
    name: str | None = None,
) -> list[DataFile]:
    """Return a data set's files; see `find_data`.

    Raises:
        DataError: no file fits, or a side of a parallel text is missing.
    """
    found = find_data(cast, folders, files, name)
    if not found:
        patterns = sorted({pattern for listed in (files or _patterns(cast)).values() for pattern in listed})
        if files is None:
            patterns += [f"{name}-*-of-*.parquet" for name in cast.layouts["hub"].files["train"]]
        where = ", ".join(map(source.relative, folders))
        problem = f"no file that the cast {cast.name!r} reads"
        expected = f"one of {', '.join(patterns) or 'files that it names'}"
        raise DataError(problem, file=where, expected=expected + _what_is_there(folders))
    check_companions(cast, found, source)
    _tell_unread(cast, found, source)
    return found


def _what_is_there(folders: Sequence[Path]) -> str:
    """Say which files of data lie in the folders, if any, and how to name them."""
    there = (
        path.relative_to(folder).as_posix()
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if guess_format(path) and path.is_file()
    )
    shown = list(itertools.islice(there, 4))
    if not shown:
        return ""
    names = ", ".join(shown[:3]) + (", .." if len(shown) > 3 else "")
    likely = next((name for name in shown if "train" in name), shown[0])
    return f"; there is {names}: say which is which, such as `files: {{train: [{likely}]}}`"


def _tell_unread(cast: Cast, found: Sequence[DataFile], source: SourceFolder) -> None:
    """Log the Parquet files beside those of a Hub repository that are of no split that the cast names."""
    read = {file.path for file in found}
    beside = {
        path
        for folder in {p.parent for p in read if p.suffix == ".parquet"}
        for path in folder.glob("*.parquet")
    }
    if unread := sorted(map(source.relative, beside - read)):
        shown = ", ".join(unread[:5]) + (", .." if len(unread) > 5 else "")
        message = "cast %s: %d Parquet files are not read, being of no split that it names: %s (see `layouts.hub.splits`)"
        log.info(message, cast.name, len(unread), shown)


def _entry(cast: Cast, folders: Sequence[Path], source: SourceFolder) -> TaskEntry:
    if cast.shape is None:
        known = [name for name, other in casts_by_folder(source.casts).items() if other.shape]
        hint = did_you_mean(cast.name, known)
        raise RecipeError([f"casts/{cast.name}.yaml: the cast has no `shape`, which this reader needs{hint}"])
    return make_entry(cast.name, cast, need_data(cast, folders, source), source)


def make_entry(
    name: str, cast: Cast, found: Sequence[DataFile], source: SourceFolder, **detail: Any
) -> TaskEntry:
    """Return the entry of a task that is read through a cast; the cast itself is part of its detail."""
    entry = _files.make_entry(name, check_companions(cast, found, source))
    matched = [[file.split, entry.files.index(file.path), file.layout] for file in found]
    return replace(
        entry, detail={"cast": dict(cast.raw), "cast_name": cast.name, "matched": matched, **detail}
    )


def read(entry: TaskEntry, source: SourceFolder) -> TaskData:
    """Read one data set, its fields called as the cast's shape says.

    Raises:
        DataError: a file or record is damaged and the recipe says stop.
    """
    return read_entry(entry, source, keywords=True)


def read_entry(entry: TaskEntry, source: SourceFolder, *, keywords: bool, options: bool = True) -> TaskData:
    """Read the files of an entry through the cast in its detail; `options`: keep the options that the cast states.

    Raises:
        DataError: a file or record is damaged and the recipe says stop.
    """
    cast = parse_cast(entry.detail["cast"], entry.detail["cast_name"], entry.detail["cast_name"])
    data = TaskData(task_facts(cast, keywords=keywords), Columns())
    for split, place, layout in entry.detail["matched"]:
        path = entry.files[place]
        read_data(_layout(cast, layout), split, path, source, data, keywords=keywords, options=options)
    if cast.group and data.columns.group and not any(data.columns.group):
        names = ", ".join(sorted({name for value in cast.group for name in value.paths}))
        message = (
            "%s: no record has what the cast names as `group` (%s): groups are found by shared texts instead"
        )
        log.warning(message, entry.name, names)
    return data
