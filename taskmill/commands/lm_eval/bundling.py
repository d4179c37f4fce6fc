"""One Python file out of functions of several modules, so that what runs inside the harness needs no Taskmill.

    bundle("taskmill.commands.lm_eval.scoring", ["rows", "ranked", "generated"], "Scores answers.")

Takes the named top-level definitions and, again and again, every top-level definition that these use, across modules of
Taskmill; other packages are imported as they are in the modules. Each definition is copied as it is written. Reads the
modules' source; runs none of it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import taskmill


@dataclass(frozen=True)
class _Module:
    name: str
    source: str
    definitions: dict[str, list[ast.stmt]]
    """Name -> the statement that defines it, and the text below it that says what it is."""
    imports: dict[str, ast.Import | ast.ImportFrom]
    """Name -> the import that binds it, of other packages too."""


def bundle(module: str, names: Iterable[str], header: str) -> str:
    """Return the source of one file with the named definitions and all that they use, below the docstring `header`.

    A name that several modules define becomes another one in all of them but the first.

    Raises:
        ValueError: a module of Taskmill is used as a whole or under another name, which a copy cannot follow.
    """
    modules: dict[str, _Module] = {}
    order: list[tuple[str, str]] = []
    outer: set[str] = set()
    pending = [(module, name) for name in names]
    while pending:
        where, name = pending.pop(0)
        if (where, name) in order:
            continue
        here = modules.setdefault(where, _read(where))
        if name in here.definitions:
            order.append((where, name))
            pending += [(where, used) for used in _used(here.definitions[name]) if used in _known(here)]
        elif (statement := here.imports[name]) and _is_ours(statement):
            pending.append(_followed(statement, name))
        else:
            outer.add(_line(statement, name))
    return f'"""{header}"""\n\n{_written(modules, order, outer)}'


def _read(name: str) -> _Module:
    source = _path(name).with_suffix(".py").read_text(encoding="utf-8")
    definitions: dict[str, list[ast.stmt]] = {}
    imports: dict[str, ast.Import | ast.ImportFrom] = {}
    last: list[ast.stmt] = []
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Expr) and last:
            last.append(statement)
        last = [statement]
        for bound in _bound(statement):
            definitions[bound] = last
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            imports |= {(alias.asname or alias.name): statement for alias in statement.names}
    return _Module(name, source, definitions, imports)


def _bound(statement: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement defines."""
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        yield statement.name
    elif isinstance(statement, ast.Assign):
        yield from (target.id for target in statement.targets if isinstance(target, ast.Name))
    elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        yield statement.target.id


def _known(module: _Module) -> set[str]:
    return {*module.definitions, *module.imports}


def _used(statements: list[ast.stmt]) -> list[str]:
    """Return the names that statements read, in order."""
    names: dict[str, None] = {}
    for node in (node for statement in statements for node in ast.walk(statement)):
        if isinstance(node, ast.ImportFrom) and _is_ours(node):
            raise ValueError(f"a function imports {node.module} in its body; import it above")
        if isinstance(node, ast.Name):
            names[node.id] = None
    return list(names)


def _is_ours(statement: ast.stmt) -> bool:
    names = [statement.module or ""] if isinstance(statement, ast.ImportFrom) else []
    if isinstance(statement, ast.Import):
        names = [alias.name for alias in statement.names]
    return any(name.split(".")[0] == taskmill.__name__ for name in names)


def _followed(statement: ast.Import | ast.ImportFrom, name: str) -> tuple[str, str]:
    """Return (module, name) of what an import of Taskmill binds."""
    given = next(alias for alias in statement.names if (alias.asname or alias.name) == name)
    if isinstance(statement, ast.Import) or given.asname not in (None, given.name):
        raise ValueError(f"{name} is imported under another name, or is a module; import the function itself")
    where = str(statement.module)
    if _path(f"{where}.{name}").with_suffix(".py").is_file():
        raise ValueError(f"{where}.{name} is a module; import the functions of it that are used")
    return where, name


def _path(module: str) -> Path:
    """Return the file of a module of Taskmill, without its ending."""
    return Path(taskmill.__file__).parent.joinpath(*module.split(".")[1:])


def _line(statement: ast.Import | ast.ImportFrom, name: str) -> str:
    """Return an import of another package, of this name alone."""
    alias = next(alias for alias in statement.names if (alias.asname or alias.name) == name)
    if isinstance(statement, ast.ImportFrom):
        return ast.unparse(ast.ImportFrom(statement.module, [alias], statement.level))
    return ast.unparse(ast.Import([alias]))


def _written(modules: dict[str, _Module], order: list[tuple[str, str]], outer: set[str]) -> str:
    """Return the file: imports, then the definitions, module after module from the bottom up, as they stood there."""
    future = "from __future__ import annotations"
    lines = sorted(outer - {future}, key=lambda line: (line.startswith("from"), line))
    parts = ["\n".join([future, "", *lines])]
    depth = {where: place for place, (where, _) in enumerate(order)}
    for where in sorted(depth, key=lambda w: (-depth[w], w)):
        module = modules[where]
        chosen = {id(module.definitions[n]): module.definitions[n] for w, n in order if w == where}
        taken = {n for w, n in order if depth[w] > depth[where]}
        mine = {n for w, n in order if w == where} & taken
        for statements in sorted(chosen.values(), key=lambda many: many[0].lineno):
            parts.append(_renamed(_text(module.source, statements), mine, where.rpartition(".")[2]))
    return "\n\n\n".join(parts) + "\n"


def _renamed(text: str, names: Iterable[str], module: str) -> str:
    for name in sorted(names):
        text = re.sub(rf"(?<![\w.]){name}\b", f"{name}_of_{module}", text)
    return text


def _text(source: str, statements: list[ast.stmt]) -> str:
    """Return statements as they are written, decorators included."""
    first = statements[0]
    start = min([first.lineno, *(d.lineno for d in getattr(first, "decorator_list", ()))])
    return "\n".join(source.splitlines()[start - 1 : statements[-1].end_lineno])
