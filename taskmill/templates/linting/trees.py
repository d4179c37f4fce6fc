"""What a template's syntax tree says: what its input prints, on what that hangs, and which text is its own.

Reads and writes nothing. A path is a field, or a place below it such as `answers.text`; positions in lists are no part of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from jinja2 import nodes

SEPARATOR = "|||"
_OPAQUE = ("length", "count")
"""Filters whose result says nothing of what a value holds."""
_SILENT_WORDS = """
    append clear extend insert remove reverse sort update
"""
_SILENT = frozenset(_SILENT_WORDS.split())
"""Methods that return nothing."""
Bindings = dict[str, frozenset[str]]
"""Name that the template sets itself -> the paths that its value comes from."""


@dataclass
class Input:
    """The part of a template before its first separator."""

    printed: list[tuple[str, int]] = field(default_factory=list)
    """(path, line) of what is printed."""
    decided: list[tuple[str, int]] = field(default_factory=list)
    """(path, line) of what decides about text of the input."""
    constant: list[str] = field(default_factory=list)
    """Text that stands in the input of every record."""
    is_conditional: bool = False
    """Whether the separator stands inside of a condition or loop."""


def read_input(tree: nodes.Template) -> Input:
    """Return what the input of a template is made of."""
    reader = _InputReader()
    reader.body(tree.body, {}, conditional=False)
    return reader.found


def has_separator(tree: nodes.Node) -> bool:
    """Say whether any text of a template holds a separator."""
    texts = (node.data for node in tree.find_all(nodes.TemplateData))
    constants = (node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str))
    return any(SEPARATOR in text for text in (*texts, *constants))


class _InputReader:
    """Walks a template up to its first separator."""

    def __init__(self) -> None:
        self.found = Input()

    def body(self, body: Sequence[nodes.Node], bound: Bindings, conditional: bool) -> bool:
        """Walk statements; return whether the separator has come by."""
        for node in body:
            if isinstance(node, nodes.Output):
                if self._output(node, bound, conditional):
                    self.found.is_conditional |= conditional
                    return True
            elif isinstance(node, nodes.If):
                if self._branches(node, bound):
                    return True
            elif isinstance(node, nodes.For):
                inner = {
                    **bound,
                    **dict.fromkeys(_targets(node.target), frozenset(paths_of(node.iter, bound))),
                }
                if self.body(node.body, inner, True):
                    return True
            elif isinstance(node, nodes.Assign):
                sources = frozenset(paths_of(node.node, bound))
                bound.update(dict.fromkeys(_targets(node.target), sources))
            elif isinstance(node, (nodes.Macro, nodes.AssignBlock)):
                continue
            else:
                inside = getattr(node, "body", None)
                if isinstance(inside, list) and self.body(inside, dict(bound), conditional):
                    return True
        return False

    def _output(self, node: nodes.Output, bound: Bindings, conditional: bool) -> bool:
        for part in node.nodes:
            text = part.data if isinstance(part, nodes.TemplateData) else None
            if text is None and isinstance(part, nodes.Const) and isinstance(part.value, str):
                text = part.value
            if text is None and _changes(part):
                continue
            if text is None:
                self.found.printed += [(path, part.lineno) for path in sorted(set(paths_of(part, bound)))]
                continue
            before, separator, _ = text.partition(SEPARATOR)
            if not conditional:
                self.found.constant.append(before)
            if separator:
                return True
        return False

    def _branches(self, node: nodes.If, bound: Bindings) -> bool:
        arms = [(node.test, node.body), *((arm.test, arm.body) for arm in node.elif_), (None, node.else_)]
        if has_separator(node):
            closed = False
            for _, body in arms:
                closed |= self.body(body, dict(bound), True)
            return closed
        if any(_prints(body) for _, body in arms):
            for test, _ in arms:
                if test is not None:
                    self.found.decided += [(p, node.lineno) for p in sorted(set(paths_of(test, bound)))]
        for _, body in arms:
            self.body(body, bound, True)
        return False


def _changes(node: nodes.Node) -> bool:
    """Say whether an expression stands there for what it changes, and prints nothing: `{{ items.append(x) or "" }}`."""
    if isinstance(node, nodes.Or):
        return _changes(node.left)
    if isinstance(node, nodes.Filter) and node.name in ("default", "d") and node.node is not None:
        return _changes(node.node)
    called = node.node if isinstance(node, nodes.Call) else None
    return isinstance(called, nodes.Getattr) and called.attr in _SILENT


def _prints(body: Iterable[nodes.Node]) -> bool:
    """Say whether statements print anything but white space."""
    for node in body:
        for output in (node, *node.find_all(nodes.Output)):
            parts = output.nodes if isinstance(output, nodes.Output) else []
            if any(not isinstance(part, nodes.TemplateData) or part.data.strip() for part in parts):
                return True
    return False


def _targets(target: nodes.Node) -> list[str]:
    names = [target] if isinstance(target, nodes.Name) else target.find_all(nodes.Name)
    return [name.name for name in names]


def paths_of(node: nodes.Node, bound: Bindings) -> Iterator[str]:
    """Yield the paths that an expression's value comes from."""
    if isinstance(node, nodes.Filter) and node.name in _OPAQUE:
        return
    if isinstance(node, nodes.Test) and node.name in ("defined", "undefined"):
        return
    if isinstance(node, nodes.Name):
        yield from bound.get(node.name, (node.name,))
        return
    if isinstance(node, (nodes.Getattr, nodes.Getitem)):
        key = node.attr if isinstance(node, nodes.Getattr) else None
        if isinstance(node, nodes.Getitem):
            if isinstance(node.arg, nodes.Const):
                key = node.arg.value if isinstance(node.arg.value, str) else None
            else:
                yield from paths_of(node.arg, bound)
        below = list(paths_of(node.node, bound))
        yield from below if key is None else [f"{path}.{key}" for path in below]
        return
    if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Getattr):
        yield from paths_of(node.node.node, bound)
        for argument in (*node.args, *node.kwargs):
            yield from paths_of(argument, bound)
        return
    for child in node.iter_child_nodes():
        yield from paths_of(child, bound)


def choice_indexes(tree: nodes.Template) -> list[tuple[int | str, int]]:
    """Return (index, line) of each `answer_choices[..]`: a number, or the path of the field that holds it."""
    own = {node.name for node in tree.find_all(nodes.Name) if node.ctx != "load"}
    found: list[tuple[int | str, int]] = []
    for node in tree.find_all(nodes.Getitem):
        if not (isinstance(node.node, nodes.Name) and node.node.name == "answer_choices"):
            continue
        if isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, int):
            found.append((int(node.arg.value), node.lineno))
        elif isinstance(node.arg, nodes.Neg) and isinstance(node.arg.node, nodes.Const):
            found.append((-int(node.arg.node.value), node.lineno))
        elif (path := _plain_path(node.arg)) is not None and path.partition(".")[0] not in own:
            found.append((path, node.lineno))
    return found


def _plain_path(node: nodes.Node) -> str | None:
    """Return the path of a field that an expression names and does nothing with."""
    if isinstance(node, nodes.Name):
        return node.name
    if isinstance(node, nodes.Getattr):
        before = _plain_path(node.node)
        return None if before is None else f"{before}.{node.attr}"
    if (
        isinstance(node, nodes.Getitem)
        and isinstance(node.arg, nodes.Const)
        and isinstance(node.arg.value, str)
    ):
        before = _plain_path(node.node)
        return None if before is None else f"{before}.{node.arg.value}"
    return None
