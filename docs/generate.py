"""Write the reference pages from the code: settings, tables and commands. `--check` compares instead of writing."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from taskmill import recipe_reference, records
from taskmill.cli import cli

DOCS = Path(__file__).resolve().parent
NOTE = "<!-- Written by docs/generate.py from the code; edit the code instead. -->\n\n"


def settings_page() -> str:
    """Every setting of a recipe."""
    lines = ["# Settings of a recipe", ""]
    lines.append(
        "Keys are dotted; `[]` stands for the number of a list's item, `<name>` for a name of your own."
    )
    lines += ["", "| key | type | default | what it does |", "| --- | --- | --- | --- |"]
    texts = recipe_reference.help_texts()
    for key, kind, default in recipe_reference.describe():
        shown = default if len(default) < 80 else "see `taskmill recipes show`"
        text = texts.get(key, "").replace("|", "/")
        lines.append(f"| `{key}` | {kind.replace('|', '/')} | `{shown}` | {text} |")
    return NOTE + "\n".join(lines) + "\n"


def tables_page() -> str:
    """Every table of a run."""
    lines = ["# Tables of a run", ""]
    lines.append(
        "Parquet, zstd, page checksums. A `?` marks columns that may be null. Predictions and scores are explained in "
        "[evaluation.md](evaluation.md#looking-at-it)."
    )
    for name, schema in records.SCHEMAS.items():
        key = records.primary_key(name)
        lines += ["", f"## {name}", ""]
        if key:
            lines += [f"Sorted by {', '.join(key)}.", ""]
        lines += ["| column | type |", "| --- | --- |"]
        lines += [f"| {f.name}{'?' if f.nullable else ''} | {_type(f.type)} |" for f in schema]
    lines += ["", "# Tables of a published benchmark", ""]
    lines.append(
        "Written by `taskmill publish` and `taskmill export benchmark`; see [publishing.md](publishing.md)."
    )
    for name, schema in records.PUBLISHED.items():
        lines += ["", f"## published {name}", "", "| column | type |", "| --- | --- |"]
        lines += [f"| {f.name}{'?' if f.nullable else ''} | {_type(f.type)} |" for f in schema]
    return NOTE + "\n".join(lines) + "\n"


def _type(kind: object) -> str:
    return str(kind).replace("list<item: ", "list of ").replace("list<element: ", "list of ").rstrip(">")


def commands_page() -> str:
    """Every command's help."""
    lines = ["# Commands", ""]
    for name, command in _commands(cli, "taskmill"):
        context = click.Context(command, info_name=name, max_content_width=110)
        lines += [f"## {name}", "", "```text", command.get_help(context).rstrip(), "```", ""]
    return NOTE + "\n".join(lines)


def _commands(group: click.Group, prefix: str) -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = [(prefix, group)]
    for name in sorted(group.commands):
        command = group.commands[name]
        if isinstance(command, click.Group):
            found += _commands(command, f"{prefix} {name}")
        else:
            found.append((f"{prefix} {name}", command))
    return found


PAGES = {"settings.md": settings_page, "tables.md": tables_page, "commands.md": commands_page}


def main() -> int:
    """Write or check the pages; returns the exit code."""
    check = "--check" in sys.argv[1:]
    stale = []
    for name, page in PAGES.items():
        path, text = DOCS / name, page()
        if check:
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                stale.append(name)
        else:
            path.write_text(text, encoding="utf-8")
    if stale:
        sys.stderr.write(f"out of date: {', '.join(stale)}; run `make docs`\n")
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
