"""The evidence of overlaps for reading: worst pairs, both texts, and where in them the shared words stand.

Reads overlaps and splits, and the examples that the evidence names. Windows hold normalised words; `mark` finds them
in the text as it was written.

    >>> mark("The cat, SAT on a mat.", ["cat sat on"])
    [('The ', False), ('cat, SAT on', True), (' a mat.', False)]
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from taskmill.commands.finished import FinishedRun, Row
from taskmill.normalisers import WORDS, Normaliser, named
from taskmill.splits.sharing.sides import sides
from taskmill.text import N, words

Tone = int
"""How a part of a text is marked: UNMARKED, SHARED, or FREQUENT where all that it is shared by is frequent."""
UNMARKED, SHARED, FREQUENT = 0, 1, 2
Pieces = list[tuple[str, bool]]
"""A text in parts, each with whether it is marked."""
Toned = list[tuple[str, Tone]]
"""A text in parts, each with its tone."""
Mark = TypeVar("Mark", bound=int)
Texts = dict[str, list[str]]
"""The texts of each side of an example."""

_GAP = " \u2026 "
_ASCII = re.compile(r"[A-Za-z0-9]+")
_RUN = re.compile(r"[^\W_]+|[\W_]+")
_UNBROKEN = re.compile(r"[^\s\0]+")
_PART = re.compile(r".{1,2000}\S*\s*", re.DOTALL)
_LONG = 8000
"""Characters of a text that is cut into parts first."""


def _atoms(text: str) -> Iterator[tuple[int, int, list[str]]]:
    """Yield (start, end, normalised words) of stretches of a text, as small as the words can be told apart."""
    for found in re.finditer(r"\S+", text):
        part, start = found.group(), found.start()
        if part.isascii():
            for run in _ASCII.finditer(part):
                yield start + run.start(), start + run.end(), [run.group().lower()]
            continue
        whole = words(part)
        spans = [(m.start(), m.end()) for m in _RUN.finditer(part)]
        pieces = [(a, b, words(part[a:b])) for a, b in spans]
        if any(len(p[2]) > 1 for p in pieces):
            pieces = [(i, i + 1, words(character)) for i, character in enumerate(part)]
        if [w for p in pieces for w in p[2]] != whole:
            pieces = [(0, len(part), whole)]
        yield from ((start + a, start + b, found_words) for a, b, found_words in pieces if found_words)


def _places(text: str, normaliser: Normaliser) -> list[tuple[int, int, list[str]]]:
    """Return `_atoms` for any words that are cut at white space; none where the words cannot be placed."""
    if normaliser is WORDS:
        return list(_atoms(text))
    atoms = [(m.start(), m.end(), normaliser.words(m.group())) for m in _UNBROKEN.finditer(text)]
    fits = [word for atom in atoms for word in atom[2]] == normaliser.words(text)
    return [atom for atom in atoms if atom[2]] if fits else []


def word_spans(text: str, normaliser: Normaliser = WORDS) -> list[tuple[int, int]]:
    """Return where in a text each of its words stands: (start, end); none where that cannot be told."""
    return [(start, end) for start, end, found in _places(text, normaliser) for _ in found]


def mark(text: str, windows: Sequence[str], normaliser: Normaliser | None = WORDS) -> Pieces:
    """Return a text in parts, those that lie in one of the windows marked; nothing is marked where none is found.

    Args:
        text: as it was written.
        windows: normalised words, joined by spaces.
        normaliser: what cut the words; None for words that stand nowhere in a text, such as token ids.
    """
    return _plain(tones(text, dict.fromkeys(windows, SHARED), normaliser))


def _plain(pieces: Toned) -> Pieces:
    return [(part, bool(tone)) for part, tone in pieces]


def tones(text: str, windows: Mapping[str, Tone], normaliser: Normaliser | None = WORDS) -> Toned:
    """Return a text in parts, each with its tone: of the windows that it lies in, SHARED if any has it.

    Of a long text only the stretches in which windows stand are looked at word by word.

    Args:
        text: as it was written.
        windows: normalised words, joined by spaces, with SHARED or FREQUENT.
        normaliser: see `mark`.
    """
    if normaliser is None or not windows:
        return [(text, UNMARKED)] if text else []
    stretches = [(text, True)] if len(text) <= _LONG else _stretches(text, windows, normaliser)
    joined = Toned()
    for stretch, is_shared in stretches:
        for piece, tone in _tones(stretch, windows, normaliser) if is_shared else [(stretch, UNMARKED)]:
            if joined and tone == UNMARKED == joined[-1][1]:
                joined[-1] = joined[-1][0] + piece, UNMARKED
            else:
                joined.append((piece, tone))
    return joined


def _tones(text: str, windows: Mapping[str, Tone], normaliser: Normaliser) -> Toned:
    atoms = _places(text, normaliser)
    flat = [(word, number) for number, atom in enumerate(atoms) for word in atom[2]]
    inside: dict[int, Tone] = {}
    for first, size, tone in _found([word for word, _ in flat], windows):
        for _, number in flat[first : first + size]:
            inside[number] = min(tone, inside.get(number, tone))
    return _pieces(text, [(a, b, inside.get(n, UNMARKED)) for n, (a, b, _) in enumerate(atoms)])


def _stretches(text: str, windows: Mapping[str, Tone], normaliser: Normaliser) -> list[tuple[str, bool]]:
    """Cut a text at white space into stretches in which windows stand and others."""
    parts = _PART.findall(text)
    line = [(word, number) for number, part in enumerate(parts) for word in normaliser.words(part)]
    shared = set[int]()
    for first, size, _ in _found([word for word, _ in line], windows):
        shared.update(number for _, number in line[first : first + size])
    grouped = itertools.groupby(range(len(parts)), key=shared.__contains__)
    return [("".join(parts[number] for number in group), is_shared) for is_shared, group in grouped]


def _found(line: Sequence[str], windows: Mapping[str, Tone]) -> Iterator[tuple[int, int, Tone]]:
    """Yield (first word, words, tone) of each place in a line of words where a window stands."""
    by_size: dict[int, dict[str, Tone]] = {}
    for window, tone in windows.items():
        by_size.setdefault(len(window.split(" ")), {})[window] = tone
    for size, wanted in by_size.items():
        starts = {window.split(" ", 1)[0] for window in wanted}
        for first in range(len(line) - size + 1):
            if line[first] in starts and (tone := wanted.get(" ".join(line[first : first + size]), UNMARKED)):
                yield first, size, tone


def _pieces(text: str, spans: Sequence[tuple[int, int, Tone]]) -> Toned:
    """Join stretches of one tone that follow one another, with what stands between them."""
    runs: list[list[int]] = []
    before = UNMARKED
    for start, end, tone in spans:
        if tone and tone == before:
            runs[-1][1] = end
        elif tone:
            runs.append([start, end, tone])
        before = tone
    pieces, place = Toned(), 0
    for start, end, tone in runs:
        pieces += [(text[place:start], UNMARKED), (text[start:end], tone)]
        place = end
    return [piece for piece in [*pieces, (text[place:], UNMARKED)] if piece[0]]


def clip(pieces: list[tuple[str, Mark]], around: int = 160) -> list[tuple[str, Mark]]:
    """Shorten what is not marked to `around` characters beside each mark, or in all where nothing is marked.

    Marks of more than ten times as many lose their middle.
    """
    shown, last = list[tuple[str, Mark]](), len(pieces) - 1
    if not is_marked(pieces):
        return [
            (t if len(t) <= 3 * around else t[: 3 * around].rstrip() + _GAP.rstrip(), unmarked)
            for t, unmarked in pieces
        ]
    for place, (text, marked) in enumerate(pieces):
        head, tail = (around if place > 0 else 0), (around if place < last else 0)
        if marked:
            head = tail = 5 * around
        if len(text) <= head + tail + 40:
            shown.append((text, marked))
        else:
            shown.append((text[:head] + _GAP + (text[-tail:] if tail else ""), marked))
    return shown


# ---------------------------------------------------------------------------------------------- pairs


def worst_pairs(run: FinishedRun, tasks: Sequence[str] | None, count: int, num_windows: int = 2) -> list[Row]:
    """Return the pairs with the highest figures, each with its decision and evidence.

    Args:
        run: where overlap is finished.
        tasks: only pairs with one of these on a side; None for all.
        count: most pairs.
        num_windows: most (train example, evaluation example) of evidence a pair.
    """
    pairs = run.rows("overlap", "pairs")
    if tasks is not None:
        wanted = set(tasks)
        pairs = [p for p in pairs if p["train_task"] in wanted or p["eval_task"] in wanted]
    pairs.sort(key=lambda p: (-_badness(p), -p["hit_fraction"], p["train_task"], p["eval_task"]))
    pairs = pairs[:count]
    decisions = {(d["train_task"], d["eval_task"]): d for d in run.rows("split", "decisions")}
    keys = {(p["train_task"], p["eval_task"]) for p in pairs}
    evidence = [e for e in run.rows("overlap", "evidence") if (e["train_task"], e["eval_task"]) in keys]
    shown = {key: _joined([e for e in evidence if _key(e) == key])[:num_windows] for key in keys}
    ids = {e[name] for items in shown.values() for e in items for name in ("train_example", "eval_example")}
    examples = run.examples(ids)
    levels = {row["task"]: row["level"] for row in run.rows("overlap", "plan")}
    normaliser = normaliser_of(run)
    return [
        {
            **{k: v for k, v in pair.items() if k != "evidence"},
            "level": levels.get(pair["eval_task"]),
            "evidence_digest": pair["evidence"].hex(),
            "decision": decisions.get(_key(pair)),
            "evidence": [_texts(run, item, examples, normaliser) for item in shown[_key(pair)]],
        }
        for pair in pairs
    ]


def _badness(pair: Row) -> float:
    """Return the share of evaluation examples that share a window or are short and equal as a whole."""
    return float((pair["num_hit"] + pair["num_short_equal"]) / max(1, pair["num_eval"]))


def _key(row: Row) -> tuple[str, str]:
    return row["train_task"], row["eval_task"]


def _joined(evidence: Sequence[Row]) -> list[Row]:
    """Return one item for each pair of examples, with all its windows."""
    items: dict[tuple[str, str], Row] = {}
    for row in evidence:
        key = row["train_example"], row["eval_example"]
        item = items.setdefault(key, {"train_example": key[0], "eval_example": key[1], "windows": []})
        item["windows"].append(row["window"])
    return list(items.values())


def normaliser_of(run: FinishedRun) -> Normaliser | None:
    """Return what cut the text of a run into words; None for token ids, which stand nowhere in a text."""
    name = run.recipe.get("values", {}).get("overlap", {}).get("normalisation", WORDS.name)
    return None if name == "tokenizer" else named(name)


def _texts(run: FinishedRun, item: Row, examples: dict[str, Row], normaliser: Normaliser | None) -> Row:
    """Return an item of evidence with both examples' texts in parts: every window that they share is marked."""
    train = _sides(run, examples.get(item["train_example"]))
    evaluation = _sides(run, examples.get(item["eval_example"]))
    size = len(item["windows"][0].split(" "))
    windows = dict.fromkeys((*item["windows"], *shared_windows(train, evaluation, size, normaliser)), SHARED)
    return {
        **item,
        "train": {name: _plain(parts) for name, parts in marked_sides(train, windows, normaliser).items()},
        "eval": {
            name: _plain(parts) for name, parts in marked_sides(evaluation, windows, normaliser).items()
        },
    }


def _sides(run: FinishedRun, example: Row | None) -> Texts:
    """Return the texts of the input and of the output of an example; nothing for an example that is not there."""
    if example is None:
        return {}
    task = run.tasks.get(example["task"])
    return side_texts(example, task["output_fields"] if task is not None else ())


def side_texts(example: Row, output_fields: Sequence[str]) -> Texts:
    """Return the texts of the input and of the output of an example, given its task's `output_fields`."""
    fields = json.loads(example["fields"])
    inputs, outputs = sides(fields, example["references"], example["options"], output_fields)
    return {"input": inputs, "output": outputs}


def shared_windows(one: Texts, other: Texts, size: int, normaliser: Normaliser | None) -> set[str]:
    """Return the windows of `size` words that two examples share."""
    return set() if normaliser is None else _grams(one, size, normaliser) & _grams(other, size, normaliser)


def _grams(texts: Texts, size: int, normaliser: Normaliser) -> set[str]:
    found = [normaliser.words(text) for side in texts.values() for text in side]
    return {" ".join(line[i : i + size]) for line in found for i in range(len(line) - size + 1)}


def marked_sides(
    texts: Texts, windows: Mapping[str, Tone], normaliser: Normaliser | None
) -> dict[str, Toned]:
    """Return each side's texts, a line each, in marked parts; a window of a whole short example runs over them all."""
    known = dict(sorted(windows.items()))
    parts = {name: [tones(text, known, normaliser) for text in side] for name, side in texts.items()}
    if normaliser is not None and not any(is_marked(pieces) for side in parts.values() for pieces in side):
        parts = {name: [_whole(text, known, normaliser) for text in side] for name, side in texts.items()}
    return {name: _lines(side) for name, side in parts.items()}


def is_marked(pieces: Iterable[tuple[str, Tone]]) -> bool:
    """Return whether anything of a text is marked."""
    return any(marked for _, marked in pieces)


def _whole(text: str, windows: Mapping[str, Tone], normaliser: Normaliser) -> Toned:
    """Return a text marked from its first to its last word where a window holds all its words."""
    line = " ".join(normaliser.words(text))
    found = [tone for window, tone in windows.items() if line and f" {line} " in f" {window} "]
    return tones(text, {line: min(found)} if found else {}, normaliser)


def _lines(side: Sequence[Toned]) -> Toned:
    """Put a line break between texts."""
    joined = Toned()
    for place, pieces in enumerate(side):
        joined += [("\n", UNMARKED), *pieces] if place else pieces
    return joined


# ---------------------------------------------------------------------------------- near-duplicates


def near_duplicates(run: FinishedRun, count: int) -> Row:
    """Return how many examples have a near-duplicate, and clusters: the largest of each set of tasks.

    Sets with an evaluation example in their cluster come first, then those with more examples.

    Args:
        run: where overlap is finished.
        count: most clusters.
    """
    rows = run.rows("overlap", "near_duplicates")
    clusters: dict[tuple[int, str], list[Row]] = {}
    for row in rows:
        clusters.setdefault((row["cluster"], row["survivor"]), []).append(row)
    kinds: dict[tuple[bool, tuple[str, ...]], list[list[Row]]] = {}
    for mine in clusters.values():
        kinds.setdefault((_within_train(mine), tuple(sorted(_tasks(mine)))), []).append(mine)
    ordered = sorted(kinds, key=lambda kind: (kind[0], -sum(map(len, kinds[kind])), kind[1]))[:count]
    shown = [min(kinds[kind], key=lambda mine: (-len(mine), mine[0]["survivor"])) for kind in ordered]
    examples = run.examples({e for mine in shown for e in (mine[0]["survivor"], _furthest(mine)["example"])})
    normaliser = normaliser_of(run)
    return {
        "num": len(rows),
        "num_clusters": len(clusters),
        "num_kinds": len(kinds),
        "num_across": sum(row["relation"] == "across" for row in rows),
        "num_exact": sum(row["jaccard"] == 1 for row in rows),
        "clusters": [
            {**_cluster(run, mine, examples, normaliser), "num_alike": len(kinds[kind]) - 1}
            for kind, mine in zip(ordered, shown)
        ],
    }


def _tasks(cluster: Sequence[Row]) -> Counter[str]:
    """Return how many examples of each task a cluster has."""
    return Counter([cluster[0]["survivor_task"], *(row["task"] for row in cluster)])


def _within_train(cluster: Sequence[Row]) -> bool:
    return all(row["relation"] == "train" for row in cluster)


def _furthest(cluster: Sequence[Row]) -> Row:
    """Return the member that is least like the survivor."""
    return min(cluster, key=lambda row: (row["jaccard"], row["example"]))


def _cluster(
    run: FinishedRun, members: Sequence[Row], examples: dict[str, Row], normaliser: Normaliser | None
) -> Row:
    """Return a cluster with the texts of its survivor and of the member least like it; what they share is marked."""
    furthest = _furthest(members)
    size = run.recipe.get("values", {}).get("overlap", {}).get("n", N)
    survivor, other = (_sides(run, examples.get(furthest[name])) for name in ("survivor", "example"))
    windows = dict.fromkeys(shared_windows(survivor, other, size, normaliser), SHARED)
    return {
        "survivor": members[0]["survivor"],
        "size": len(members) + 1,
        "across": not _within_train(members),
        "tasks": sorted(_tasks(members).items(), key=lambda item: (-item[1], item[0])),
        "jaccard": furthest["jaccard"],
        "containment": furthest["containment"],
        "example": furthest["example"],
        "texts": {
            name: {
                side: clip(_plain(parts))
                for side, parts in marked_sides(texts, windows, normaliser).items()
                if parts
            }
            for name, texts in (("survivor", survivor), ("example", other))
        },
    }
