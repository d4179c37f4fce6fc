"""What `diff` prints: counts by kind of change, the first few of each, and whether the second version contains the first."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from taskmill.commands.figures import count, counted, named
from taskmill.commands.terminal import Terminal
from taskmill.splits.publishing.comparing.comparison import Comparison, View, moves, place

Row = dict[str, Any]

CHANGES = {
    "gone": "gone",
    "added": "added",
    "changed": "changed",
    "moved": "moved",
    "rewritten": "with other content",
    "cleanness": "with another clean flag",
}
NUM_MOVES = 5
"""Most lines of where examples moved from and to."""
FIRST = ("level", "role", "category", "license")
"""Columns of a task that are named before all others."""
NUM_VALUE = 60
"""Most characters of a setting's value."""


def show(found: Comparison, num_shown: int) -> None:
    """Print a comparison; `num_shown` is the most lines of a kind."""
    out = Terminal()
    sides = (("A", found.before), ("B", found.after))
    rows = [[letter, v.name, v.root[:12], f"{v.ids.num_rows:,}", v.label] for letter, v in sides]
    out.table(["", "name", "root", ">examples", "from"], rows)
    out.line("")
    for line in verdict(found.before, found.after, found.problems):
        out.line(line)
    if found.same is not (found.before.root == found.after.root):
        said = "the same, and their root digests differ" if found.same else "not those of their root digests"
        out.line(f"The rows of A and B are {said}: a file was changed, `taskmill verify` names it.")
    if found.same and not found.sources and not found.settings:
        out.line("Nothing differs.")
        return
    _counts(out, found)
    _sources(out, found, num_shown)
    _settings(out, found, num_shown)
    for kind, table in found.tables.items():
        if kind == "tasks_changed":
            lines = _tasks_changed(table.to_pylist())
            _kind(out, kind, len(lines), lines[:num_shown])
        else:
            shown = table.slice(0, num_shown).to_pylist()
            _kind(out, kind, table.num_rows, [LINES[kind](row) for row in shown])


def verdict(before: View, after: View, problems: Sequence[str]) -> list[str]:
    """Return in words whether a version contains another: the proof that `diff` and `extend` print."""
    if problems:
        return [f"B ({after.name}) does not contain A ({before.name}):", *(f"  {line}" for line in problems)]
    examples, decisions = before.ids.num_rows, before.decisions.num_rows
    stand = f"{counted(decisions, 'decisions')} {'stands' if decisions == 1 else 'stand'}"
    return [
        f"B contains A: its {counted(examples, 'examples')} have the same content, level and split, and its {stand}"
        if examples != 1
        else f"B contains A: its 1 example has the same content, level and split, and its {stand}"
    ]


def _counts(out: Terminal, found: Comparison) -> None:
    """Print how many of each noun changed in which way."""
    lines: dict[str, list[str]] = {}
    for noun, changed in (("sources", found.sources), ("settings", found.settings)):
        kinds = [row.get("change", "changed") for row in changed]
        lines[noun] = [f"{count(kinds.count(k))} {k}" for k in ("gone", "added", "changed") if k in kinds]
    for kind, table in found.tables.items():
        noun, _, change = kind.partition("_")
        lines.setdefault(noun, [])
        number = table.num_rows if kind != "tasks_changed" else len(table["task"].unique())
        if number:
            lines[noun].append(f"{count(number)} {CHANGES[change]}")
    for noun, columns in found.columns.items():
        named_columns = ", ".join(f"{name} ({count(number)})" for name, number in columns.items())
        lines[noun] += [f"other values in {named_columns}"] if columns else []
    for name, (before, after) in found.num_rows.items():
        lines[name] = [
            f"{count(before)} rows before, {count(after)} now" if before != after else "other rows"
        ]
    out.title("What changed")
    width = max(map(len, lines))
    for noun, changes in lines.items():
        if changes:
            out.line(f"{noun.replace('_', '-'):<{width}}  {', '.join(changes)}")
        if noun == "examples":
            for old, new, number in moves(found.tables["examples_moved"])[:NUM_MOVES]:
                out.line(f"{'':<{width}}    {count(number)} from {old} to {new}")


def _kind(out: Terminal, kind: str, total: int, lines: Sequence[str]) -> None:
    noun, _, change = kind.partition("_")
    if not lines:
        return
    out.title(f"{noun.capitalize()} {CHANGES[change]}")
    for line in lines:
        out.line(line)
    out.more(total - len(lines), f"{noun}; -k {total} shows them, --json all there is")


def _sources(out: Terminal, found: Comparison, num_shown: int) -> None:
    lines = []
    for row in found.sources:
        parts = [_change(f["field"], f["before"], f["after"]) for f in row["fields"]]
        parts += [_files(kind, names) for kind, names in row["files"].items() if row["change"] == "changed"]
        files = sum(map(len, row["files"].values()))
        said = parts or [f"{row['change']}, {counted(files, 'files')}"]
        lines.append(f"{row['source']}: {'; '.join(said)}")
    _lines(out, "Sources", lines, num_shown)


def _files(kind: str, names: Sequence[str]) -> str:
    more = f" and {count(len(names) - 1)} more" if len(names) > 1 else ""
    return f"{named('files', len(names))} {kind}: {names[0]}{more}"


def _settings(out: Terminal, found: Comparison, num_shown: int) -> None:
    lines = [_change(r["setting"], r["before"], r["after"]) for r in found.settings]
    _lines(out, "Settings", lines, num_shown)


def _lines(out: Terminal, title: str, lines: Sequence[str], num_shown: int) -> None:
    if not lines or not num_shown:
        return
    out.title(title)
    for line in lines[:num_shown]:
        out.line(line)
    out.more(len(lines) - num_shown, f"{title.lower()}; -k {len(lines)} shows them, --json all there is")


def _change(name: str, before: Any, after: Any) -> str:
    """Return how a value changed; of two lists what only one of them has."""
    lists = [before, after]
    if all(isinstance(v, list) and v and not any(isinstance(i, dict | list) for i in v) for v in lists):
        gone = [item for item in before if item not in after]
        added = [item for item in after if item not in before]
        said = [f"{word} {_value(items)}" for word, items in (("without", gone), ("with", added)) if items]
        return f"{name}: {', '.join(said) or 'in another order'}"
    return f"{name}: {_value(before)} -> {_value(after)}"


def _value(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= NUM_VALUE else f"{text[: NUM_VALUE - 3]}..."


# ------------------------------------------------------------------------------------ a line for each kind


def _task(row: Row) -> str:
    role = f"{row['level']} {row['role']}" if row["level"] else row["role"]
    return f"{row['task']}: {role}, {row['category']}, {counted(row['num_kept'], 'examples')}"


def _tasks_changed(rows: Sequence[Row]) -> list[str]:
    """Return a line for each task: how its level and role changed, and which other columns."""
    columns: dict[str, dict[str, Row]] = {}
    for row in rows:
        columns.setdefault(row["task"], {})[row["column"]] = row
    lines = []
    for task, mine in columns.items():
        parts = [f"{n} {_plain(mine[n]['before'])} -> {_plain(mine[n]['after'])}" for n in FIRST if n in mine]
        others = [name for name in mine if name not in FIRST]
        lines.append(f"{task}: {', '.join([*parts, *others])}")
    return lines


def _plain(value: str | None) -> str:
    return "none" if value is None else value


def _example(row: Row) -> str:
    return f"{row['example']}: {place(row)}"


def _moved(row: Row) -> str:
    old, new = (
        place({name: row[f"{name}_{side}"] for name in ("level", "split", "reason")})
        for side in ("before", "after")
    )
    rule = f", by {row['rule_after']}" if row["rule_after"] else ""
    return f"{row['example']}: {old} -> {new}{rule}"


def _rewritten(row: Row) -> str:
    return f"{row['example']}: content {row['content_before'][:12]} -> {row['content_after'][:12]}"


def _cleanness(row: Row) -> str:
    flags = [
        f"{name} {str(row[f'{name}_before']).lower()} -> {str(row[f'{name}_after']).lower()}"
        for name in ("clean", "clean_rare")
        if row[f"{name}_before"] != row[f"{name}_after"]
    ]
    return f"{row['example']}: {', '.join(flags)}"


def _pair(row: Row) -> str:
    return f"{row['train_task']} -> {row['eval_task']}"


def _decision(row: Row) -> str:
    return f"{_pair(row)}: {row['action']} ({_who(row['rule'], row['by'])})"


def _who(rule: str, by: str) -> str:
    return f"rule {rule}" if rule else f"by {by}"


def _decision_changed(row: Row) -> str:
    now = _who(row["rule_after"], row["by_after"])
    if row["action_before"] != row["action_after"]:
        return f"{_pair(row)}: {row['action_before']} -> {row['action_after']} ({now})"
    return f"{_pair(row)}: {row['action_after']} about other evidence ({now})"


def _template(row: Row) -> str:
    return f"{row['template']} of {row['task']}"


def _template_changed(row: Row) -> str:
    return f"{_template(row)}: digest {row['digest_before'][:12]} -> {row['digest_after'][:12]}"


LINES: dict[str, Callable[[Row], str]] = {
    "tasks_gone": _task,
    "tasks_added": _task,
    "examples_gone": _example,
    "examples_added": _example,
    "examples_moved": _moved,
    "examples_rewritten": _rewritten,
    "examples_cleanness": _cleanness,
    "decisions_gone": _decision,
    "decisions_added": _decision,
    "decisions_changed": _decision_changed,
    "templates_gone": _template,
    "templates_added": _template,
    "templates_changed": _template_changed,
}
"""Kind of change -> its line."""
