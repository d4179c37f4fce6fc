"""The layers of the design, read off the imports of every file."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "taskmill"
FILES = sorted(p.relative_to(PACKAGE).as_posix() for p in PACKAGE.rglob("*.py"))

FLOOR_0 = {
    "__init__",
    "boilerplate",
    "compiling",
    "errors",
    "grams",
    "find_kernels",
    "group_kernels",
    "jit",
    "kernels",
    "leaves",
    "marks",
    "minhash",
    "minhash_kernels",
    "normalisers",
    "records",
    "safe_yaml",
    "seeding",
    "selectors",
    "shapes",
    "text",
    "utf8",
    "windows",
    "words",
}
FLOOR_1 = {
    "artifact",
    "cache",
    "changes",
    "digests",
    "engine",
    "hub_client",
    "plain",
    "recipe",
    "recipe_check",
    "recipe_evaluate",
    "recipe_files",
    "recipe_reference",
    "recipe_render",
    "recipe_training",
    "recipe_values",
    "settings",
    "runs",
    "storage",
    "watching",
}
SIBLINGS = {"curation", "splits", "templates", "training", "evaluation"}
EVALUATION_MAY = {
    f"taskmill.training.{name}"
    for name in (
        "tokens",
        "encoding.encoder",
        "encoding.fitting",
        "encoding.rows",
        "encoding.tokenizer",
        "models.model",
        "updating.objective",
    )
}
TENSORS = {"torch", "transformers", "peft", "accelerate", "safetensors"}


def floor(module: str) -> int:
    """Return the floor of a module such as `taskmill.splits.planning.levels`."""
    parts = module.split(".")[1:] or ["__init__"]
    if parts[0] in SIBLINGS:
        return 2
    if len(parts) == 1 and parts[0] in FLOOR_0:
        return 0
    return 1 if len(parts) == 1 and parts[0] in FLOOR_1 else 3


def module_name(file: str) -> str:
    return ".".join(
        ["taskmill", *file.removesuffix(".py").removesuffix("__init__").strip("/").split("/")]
    ).rstrip(".")


def imports(file: str) -> Iterator[str]:
    """Yield every module that a file imports, inside functions too, but for types only."""
    tree = ast.parse((PACKAGE / file).read_text(encoding="utf-8"))
    for node in list(ast.walk(tree)):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            for alias in node.names:
                below = f"{node.module}.{alias.name}"
                yield below if is_module(below) else str(node.module)


def is_module(name: str) -> bool:
    path = PACKAGE.parent.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


@pytest.mark.parametrize("file", FILES)
def test_imports_point_down(file: str) -> None:
    name = module_name(file)
    mine = floor(name)
    for other in imports(file):
        if not other.startswith("taskmill"):
            continue
        theirs = floor(other)
        assert theirs <= mine, f"{file} (floor {mine}) imports {other} (floor {theirs})"
        if mine == theirs == 2 and name.split(".")[1] != other.split(".")[1]:
            assert name.startswith("taskmill.evaluation") and other in EVALUATION_MAY, (
                f"{file} imports {other}"
            )


@pytest.mark.parametrize("file", FILES)
def test_heavy_packages_stay_where_they_belong(file: str) -> None:
    used = {name.partition(".")[0] for name in imports(file)}
    assert "pydantic" not in used or file == "recipe_check.py"
    assert "click" not in used or file.startswith(("cli", "commands/"))
    assert "jinja2" not in used or file == "report.py" or file.startswith(("templates/", "commands/review/"))
    assert not used & {"flask", "werkzeug", "waitress"} or file.startswith("commands/review/")
    if used & TENSORS:
        assert file.startswith(("training/", "evaluation/")) or file == "normalisers.py"
        assert file != "training/mixture.py" and not file.startswith(
            ("training/mixing/", "training/packing/")
        )
    assert not used & {"random", "requests"}, "chance comes from taskmill.seeding"


@pytest.mark.parametrize("file", [f for f in FILES if f.endswith("__init__.py")])
def test_packages_hold_a_docstring_only(file: str) -> None:
    tree = ast.parse((PACKAGE / file).read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    rest = [ast.unparse(node) for node in tree.body[1:]]
    assert all(text.startswith("__version__ = ") for text in rest) and (not rest or file == "__init__.py")


@pytest.mark.parametrize("file", FILES)
def test_files_are_short_and_described(file: str) -> None:
    text = (PACKAGE / file).read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), f"{file}: no docstring"
    assert len(text.splitlines()) <= 500
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno is not None and node.end_lineno - node.lineno < 60, f"{file}: {node.name}"


def test_the_walk_sees_what_it_should() -> None:
    assert floor("taskmill.errors") == 0 and floor("taskmill.storage") == 1
    assert floor("taskmill.curation.sources.flan") == 2 and floor("taskmill.commands.inspect") == 3
    assert "taskmill.errors" in set(imports("storage.py"))
    assert (
        module_name("curation/__init__.py") == "taskmill.curation"
        and module_name("__init__.py") == "taskmill"
    )
