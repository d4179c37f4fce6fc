"""What the command `contamination` shows and writes: evidence with both texts, the terminal, files, a page, cleaned copies."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from taskmill.commands.contamination_files import write_without
from taskmill.commands.contamination_sides import Side
from taskmill.commands.evidence import Pieces, clip, mark
from taskmill.commands.figures import count, counted, percent, visible
from taskmill.commands.terminal import Terminal
from taskmill.normalisers import Normaliser
from taskmill.splits.auditing.contamination import Contamination, Result
from taskmill.storage import AtomicFile, TableWriter, canonical_json, write_bytes, write_json

Row = dict[str, Any]
HITS = pa.schema(
    [
        pa.field(name.rstrip("?"), kind, nullable=name.endswith("?"))
        for name, kind in (
            ("file", pa.string()),
            ("record", pa.int64()),
            ("num_grams", pa.int64()),
            ("frequent", pa.bool_()),
            ("equal", pa.bool_()),
            ("window?", pa.string()),
            ("train_file", pa.string()),
            ("train_record", pa.int64()),
        )
    ]
)
"""Columns of hits.parquet: an evaluation record each; `equal` ones are short and equal as a whole, and have no window."""
TOUCHED = pa.schema(
    [
        pa.field(name, kind, nullable=False)
        for name, kind in (
            ("file", pa.string()),
            ("record", pa.int64()),
            ("frequent", pa.bool_()),
            ("equal", pa.bool_()),
        )
    ]
)
"""Columns of touched.parquet: a train record each; `frequent` where all that it shares is frequent."""
NUM_FILES = 40
"""Files listed on the terminal; the rest is counted."""
NUM_HEADERS = 3
"""Different headers shown."""


def hit_rows(found: Contamination, result: Result, train: Side, evaluation: Side) -> list[Row]:
    """Return a row of HITS for each evaluation record that is hit or equal, in order."""
    hits = result.evaluation
    windows = found.index.windows(hits.gram)
    rows: list[tuple[Any, ...]] = [
        (int(record), int(num), bool(frequent), False, window, int(source))
        for record, num, frequent, window, source in zip(
            hits.record, hits.num_grams, hits.is_frequent, windows, hits.train_record
        )
    ]
    rows += [
        (int(r), 0, False, True, None, int(source))
        for r, source in zip(result.short_equal, result.short_train)
    ]
    table = []
    for record, *facts, source in sorted(rows, key=lambda row: row[0]):
        file, number = evaluation.place(record)
        train_file, train_number = train.place(source)
        cells = (file.name, number, *facts, train_file.name, train_number)
        table.append(dict(zip(HITS.names, cells)))
    return table


def worst_hits(
    found: Contamination,
    result: Result,
    train: Side,
    evaluation: Side,
    num_shown: int,
) -> list[Row]:
    """Return the hit records with most shared grams, frequent ones last, with both texts in marked parts."""
    hits = result.evaluation
    order = np.lexsort((hits.record, -hits.num_grams, hits.is_frequent))[:num_shown]
    records, sources = hits.record[order].tolist(), hits.train_record[order].tolist()
    own, others = evaluation.find(set(records)), train.find(set(sources))
    windows = found.index.windows(hits.gram[order])
    worst = []
    for row, record, source, window in zip(order.tolist(), records, sources, windows):
        file, number = evaluation.place(record)
        train_file, train_number = train.place(source)
        grams = _grams(own[record], found.n, found.normaliser) & _grams(
            others[source], found.n, found.normaliser
        )
        worst.append(
            {
                "file": file.name,
                "record": number,
                "train_file": train_file.name,
                "train_record": train_number,
                "num_grams": int(hits.num_grams[row]),
                "frequent": bool(hits.is_frequent[row]),
                "window": window,
                "evaluation": _marked(own[record], sorted({window, *grams}), found.normaliser),
                "train": _marked(others[source], sorted({window, *grams}), found.normaliser),
            }
        )
    return worst


def _grams(texts: Sequence[str], n: int, normaliser: Normaliser) -> set[str]:
    lines = [normaliser.words(text) for text in texts]
    return {" ".join(line[i : i + n]) for line in lines for i in range(len(line) - n + 1)}


def _marked(texts: Sequence[str], windows: Sequence[str], normaliser: Normaliser) -> Pieces:
    """Return the texts that hold a window, a line each, in parts with whether each lies in one."""
    cut = None if normaliser.name == "tokenizer" else normaliser
    found = [mark(text, windows, cut) for text in texts]
    held = [parts for parts in found if any(marked for _, marked in parts)]
    joined = Pieces()
    for place, parts in enumerate(held or [[(text, False)] for text in texts]):
        joined += [("\n", False), *parts] if place else parts
    return clip(joined)


# -------------------------------------------------------------------------------------------- files


def write_results(out: Path, body: Row, hits: Sequence[Row], train: Side, result: Result) -> None:
    """Write hits.parquet, hits.jsonl, touched.parquet, report.html and, last, report.json into a folder.

    Raises:
        StorageError: the disk refuses.
    """
    with TableWriter(out / "hits.parquet", HITS) as table:
        table.write(hits)
    with TableWriter(out / "touched.parquet", TOUCHED) as touched:
        for row in _touched_rows(train, result):
            touched.append(row)
    with AtomicFile(out / "hits.jsonl") as lines:
        for hit in hits:
            lines.write(canonical_json(hit) + b"\n")
    write_bytes(out / "report.html", page(body).encode("utf-8", "replace"))
    write_json(out / "report.json", body)


def _touched_rows(train: Side, result: Result) -> Iterator[Row]:
    """Yield a row of TOUCHED for each train record that is touched or equal, in order."""
    numbers = np.concatenate([result.touched, result.equal])
    equal = np.arange(len(numbers)) >= len(result.touched)
    frequent = ~equal & ~np.isin(numbers, result.touched_rare)
    for row in np.argsort(numbers, kind="stable").tolist():
        file, record = train.place(int(numbers[row]))
        yield {
            "file": file.name,
            "record": record,
            "frequent": bool(frequent[row]),
            "equal": bool(equal[row]),
        }


def write_clean(out: Path, side: Side, dropped: Sequence[np.ndarray[Any, Any]]) -> list[Row]:
    """Write a copy of each file of a side without some records below `out`/clean; returns a row for each.

    Args:
        out: folder of the results.
        side: the side that is copied.
        dropped: int64 arrays of records that are left out, numbered over the side; damaged ones are left out too.

    Raises:
        DataError: a file cannot be read.
        StorageError: a copy cannot be written.
    """
    gone = np.unique(np.concatenate([np.empty(0, np.int64), *dropped]))
    taken, rows = set[str](), list[Row]()
    for at, file in enumerate(side.files):
        name = file.relative if file.relative not in taken else f"{at}/{file.relative}"
        taken.add(name)
        target = out / "clean" / name
        own = gone[(gone >= side.first[at]) & (gone < side.first[at + 1])] - side.first[at]
        numbers = frozenset(side.numbers[at][own].tolist())
        row = {"file": file.name, "num_dropped": len(numbers), "num_damaged": side.damaged[at]}
        if not side.unread[at]:
            with AtomicFile(target) as sink:
                row |= {"copy": str(target), "num_kept": write_without(file, numbers | side.broken[at], sink)}
        else:
            row |= {"copy": None, "num_kept": 0}
        rows.append(row)
    return rows


# ----------------------------------------------------------------------------------------- terminal


class Printer(Terminal):
    """Writes the result to stdout."""

    def show(self, body: Row) -> None:
        """Write the figures of both sides, the worst hits and the cleaned copies."""
        self.sides(body)
        for side in ("train", "evaluation"):
            for message in body[side]["errors"]:
                self.line(("damaged  ", "red"), message)
            self.more(body[side]["num_damaged"] - len(body[side]["errors"]), "damaged records")
        self.headers([*body["train"]["files"], *body["evaluation"]["files"]])
        for name in body["same_files"]:
            self.line(("both sides  ", "red"), f"{name} is compared with itself")
        if body["worst"]:
            self.title("most shared windows", f"{counted(len(body['worst']), 'records')} of evaluation")
        for row in body["worst"]:
            self.hit(row)
        if body["clean"]:
            self.title("cleaned copies")
            names = ("copy", ">kept", ">dropped", ">damaged")
            cells = (
                [row["copy"] or f"none of {row['file']}"]
                + [count(row[f"num_{key}"]) for key in ("kept", "dropped", "damaged")]
                for row in body["clean"]
            )
            self.table(names, cells)

    def sides(self, body: Row) -> None:
        """Write both tables."""
        check, train, evaluation = body["check"], body["train"], body["evaluation"]
        self.line(
            (f"{check['n']}-grams", "bold"),
            f" ({check['normalisation']}) of {counted(train['num_records'], 'train records')} in "
            f"{counted(evaluation['num_records'], 'evaluation records')}; a gram in more than "
            f"{check['frequent']} records is frequent",
        )
        names = (
            "evaluation",
            ">records",
            ">hit",
            ">share",
            ">hit, not frequent",
            ">share",
            ">short",
            ">equal",
        )
        self.title("evaluation records that share a window with a train record")
        self.table(names, (_evaluation_cells(row) for row in _listed(evaluation)))
        self.more(len(evaluation["files"]) - NUM_FILES, "files; --json lists all")
        self.title("train records that share a window with an evaluation record")
        others = ("train", ">records", ">touched", ">share", ">touched, not frequent", ">equal")
        self.table(others, (_train_cells(row) for row in _listed(train)))
        self.more(len(train["files"]) - NUM_FILES, "files; --json lists all")

    def headers(self, files: Sequence[Row]) -> None:
        """Say what the first lines of CSV and TSV files were taken for: no name tells a header from a record."""
        named = dict[tuple[str, ...], list[str]]()
        for row in files:
            if row["columns"]:
                named.setdefault(tuple(row["columns"]), []).append(row["file"])
        for columns, names in list(named.items())[:NUM_HEADERS]:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            said = f"{', '.join(map(repr, columns))}  (--no-header where this is a record)"
            self.line(("first line  ", "dim"), f"{names[0]}{more} has the columns ", said)
        self.more(len(named) - NUM_HEADERS, "headers; --json lists all")

    def hit(self, row: Row) -> None:
        """Write one hit with both texts, the windows marked."""
        note = f"{counted(row['num_grams'], 'windows')} shared" + (
            ", all frequent" if row["frequent"] else ""
        )
        self.line("")
        self.line(("evaluation  ", "cyan"), f"{row['file']}, record {row['record']}", (f"  {note}", "dim"))
        self.marked(row["evaluation"], "    ")
        self.line(("train  ", "cyan"), f"{row['train_file']}, record {row['train_record']}")
        self.marked(row["train"], "    ")


def _listed(side: Row) -> list[Row]:
    """Return the rows of a side's files, the worst first, and of all of them."""
    key = "num_hit" if "num_hit" in side else "num_touched"
    files = sorted(side["files"], key=lambda row: (-row[key] / max(1, row["num_records"]), row["file"]))[
        :NUM_FILES
    ]
    return files if len(side["files"]) == 1 else [*files, {**side, "file": "all"}]


def _evaluation_cells(row: Row) -> list[str]:
    return [
        row["file"],
        count(row["num_records"]),
        count(row["num_hit"]),
        percent(row["hit_fraction"], 2),
        count(row["num_hit_rare"]),
        percent(row["hit_fraction_rare"], 2),
        count(row["num_short"]),
        count(row["num_short_equal"]),
    ]


def _train_cells(row: Row) -> list[str]:
    share = row["num_touched"] / max(1, row["num_records"])
    counts = [count(row[f"num_{key}"]) for key in ("touched_rare", "equal")]
    return [row["file"], count(row["num_records"]), count(row["num_touched"]), percent(share, 2), *counts]


# --------------------------------------------------------------------------------------------- page

_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#1c1f24}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.2rem .8rem .2rem 0;text-align:right}
td:first-child,th:first-child{text-align:left}th{color:#6a7280;font-weight:500}
pre{white-space:pre-wrap;background:#f5f6f8;padding:.8rem;border-radius:6px}mark{background:#ffe08a}
@media(prefers-color-scheme:dark){body{background:#15181c;color:#dfe3e8}pre{background:#1e2329}mark{background:#7a5c00;color:#fff}}"""


def page(body: Row) -> str:
    """Return one self-contained HTML page with the tables and the worst hits; every text is escaped."""
    evaluation = ("evaluation", "records", "hit", "share", "hit, not frequent", "share", "short", "equal")
    train = ("train", "records", "touched", "share", "touched, not frequent", "equal")
    check = body["check"]
    parts = [
        f"<h1>Contamination</h1><p>{check['n']}-grams ({_escaped(check['normalisation'])}); a gram in more than "
        f"{check['frequent']} records is frequent.</p>",
        _table(evaluation, [_evaluation_cells(row) for row in _listed(body["evaluation"])]),
        _table(train, [_train_cells(row) for row in _listed(body["train"])]),
    ]
    for row in body["worst"]:
        parts.append(f"<h2>{_escaped(row['file'])}, record {row['record']}: {row['num_grams']} shared</h2>")
        parts.append(f"<pre>{_marks(row['evaluation'])}</pre>")
        parts.append(f"<p>{_escaped(row['train_file'])}, record {row['train_record']}</p>")
        parts.append(f"<pre>{_marks(row['train'])}</pre>")
    text = "\n".join(parts)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Contamination</title>'
        f"<style>{_STYLE}</style><body>\n{text}\n</body></html>\n"
    )


def _escaped(text: str) -> str:
    return html.escape(visible(text))


def _marks(parts: Sequence[tuple[str, bool]]) -> str:
    return "".join(f"<mark>{_escaped(text)}</mark>" if marked else _escaped(text) for text, marked in parts)


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{_escaped(name)}</th>" for name in names)
    lines = ("<tr>" + "".join(f"<td>{_escaped(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>"
