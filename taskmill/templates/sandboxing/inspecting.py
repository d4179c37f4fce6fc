"""Refuse a template by its text and syntax tree, before Jinja compiles it or computes any of its constants.

Two passes: `measure_source` counts length, brackets and blocks in the stream of tokens, before a parser recurses into
them; `inspect` walks the tree. Each refusal is one message: the line, what stands there and the limit. What cannot be
seen beforehand, because it depends on the row, is counted while the template renders (`limits`).
Reads nothing and writes nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

from jinja2 import Environment, TemplateSyntaxError, nodes

from taskmill.templates.sandboxing.counting import FORMAT_FIELD, LONG_NUMBER, NESTED_FIELD
from taskmill.templates.sandboxing.extents import Extent, extent, range_length
from taskmill.templates.sandboxing.limits import (
    MAX_BLOCKS,
    MAX_BRACKETS,
    MAX_BRANCHES,
    MAX_ELIFS,
    MAX_EXPONENT,
    MAX_INDENT,
    MAX_LEVELS,
    MAX_LOOPS,
    MAX_REPEATED,
    MAX_SIGNS,
    MAX_SOURCE,
    MAX_STEPS,
    MAX_WIDTH,
    OverBudgetError,
    UnsafeTemplateError,
)

_OPENING_WORDS = """
    if for macro call filter with block autoescape raw generation
"""
_OPENING = frozenset(_OPENING_WORDS.split())
_ELSEWHERE = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends, nodes.Block)
_ESCAPING = (nodes.ScopedEvalContextModifier, nodes.EvalContextModifier)
REFUSED_NAMES = {
    "self": "the template itself",
    "super": "another template",
    "lipsum": "a maker of random text",
}
REFUSED_FILTERS = frozenset(["attr", "pprint", "urlize"])
"""`attr` walks attributes; `urlize` and `pprint` take time that grows faster than their text."""
_BY_ATTRIBUTE_WORDS = """
    groupby join map max min rejectattr selectattr sort sum unique
"""
_BY_ATTRIBUTE = frozenset(_BY_ATTRIBUTE_WORDS.split())
_INTERNAL_WORDS = """
    mro func_code func_globals func_closure func_defaults im_class im_func im_self gi_code gi_frame
    gi_yieldfrom cr_code cr_frame cr_await ag_code ag_frame f_back f_builtins f_code f_globals f_locals
    tb_frame tb_next co_code
"""
_INTERNAL = frozenset(_INTERNAL_WORDS.split())
_PRIVATE_FIELD = re.compile(r"\{[^{}]*[.\[]\s*_")
_PADDING = {"center": 0, "ljust": 0, "rjust": 0, "zfill": 0, "expandtabs": 0, "indent": 0, "wordwrap": 0}
_COUNTED = {**_PADDING, "batch": 0, "slice": 0}


def measure_source(environment: Environment, source: str) -> None:
    """Refuse a text that is long or deeply nested, before anything recurses into it.

    Raises:
        OverBudgetError: too long, or too many brackets, blocks, signs or branches within one another.
        TemplateSyntaxError: the text cannot be cut into tokens.
    """
    if len(source) > MAX_SOURCE:
        raise OverBudgetError(f"the template has {len(source)} characters (the limit is {MAX_SOURCE})")
    brackets = signs = branches = blocks = 0
    tag: list[str] = []
    for line, kind, text in environment.lex(source):
        if kind in ("whitespace", "comment", "linecomment"):
            continue
        if kind == "block_end":
            blocks = _after_tag(blocks, tag)
        if kind in ("block_begin", "block_end", "variable_begin"):
            tag, branches, signs, brackets = [], 0, 0, 0
            continue
        tag.append(text)
        brackets += (text in ("(", "[", "{")) - (text in (")", "]", "}")) if kind == "operator" else 0
        signs = signs + 1 if text in ("-", "+", "not") else 0
        branches += text == "else"
        _limit(line, "brackets within one another", brackets, MAX_BRACKETS)
        _limit(line, "signs in a row", signs, MAX_SIGNS)
        _limit(line, "`else` in one expression", branches, MAX_BRANCHES)
        _limit(line, "blocks within one another", blocks, MAX_BLOCKS)


def _after_tag(blocks: int, tag: list[str]) -> int:
    """Return how many blocks are open after `tag`, the words of a `{% .. %}`."""
    first = tag[0] if tag else ""
    if first in _OPENING or (first == "set" and "=" not in tag):
        return blocks + 1
    return max(blocks - 1, 0) if first.startswith("end") else blocks


def _limit(line: int, what: str, number: float, limit: int) -> None:
    if number > limit:
        shown = f"{number:,.0f}" if number < 1e15 else f"over {1e15:,.0f}"
        raise OverBudgetError(f"line {line}: {shown} {what} (the limit is {limit:,})")


def _unsafe(node: nodes.Node, what: str) -> UnsafeTemplateError:
    return UnsafeTemplateError(f"line {node.lineno}: {what}")


def inspect(environment: Environment, source: str) -> nodes.Template:
    """Parse a template and refuse what is unsafe or costly whatever the row.

    Returns:
        The syntax tree.

    Raises:
        UnsafeTemplateError: it reaches for Python, for other templates or for itself.
        OverBudgetError: it is too long, too deep, or does more by its constants alone than a render may.
        TemplateSyntaxError: it is no template.
    """
    measure_source(environment, source)
    try:
        tree = environment.parse(source)
    except RecursionError as error:
        raise OverBudgetError("the template is nested too deeply to be read") from error
    except ValueError as error:  # a number with more digits than Python reads
        raise TemplateSyntaxError(str(error), 1) from error
    _check_levels(tree)
    may_return = False
    for node, steps, loops in _walk(tree):
        may_return = may_return or isinstance(node, (nodes.For, nodes.Macro))
        _limit(node.lineno, "loops within one another", loops, MAX_LOOPS)
        _limit(node.lineno, "steps of loops over constants", steps, MAX_STEPS)
        _check_names(node)
        _check_costs(node)
    if may_return:
        _check_recursion(tree)
    return tree


def _check_levels(tree: nodes.Template) -> None:
    """Refuse a deep tree; what comes after this may recurse."""
    pending: list[tuple[nodes.Node, int]] = [(tree, 0)]
    while pending:
        node, level = pending.pop()
        _limit(node.lineno, "levels of expressions and blocks", level, MAX_LEVELS)
        pending += [(child, level + 1) for child in node.iter_child_nodes()]


def _walk(tree: nodes.Template) -> Iterator[tuple[nodes.Node, float, int]]:
    """Yield every node, how often loops over constants come by, and how many loops are around it."""
    pending: list[tuple[nodes.Node, float, int]] = [(tree, 1.0, 0)]
    while pending:
        node, steps, loops = pending.pop()
        yield node, steps, loops
        times, deeper = 1.0, 0
        if isinstance(node, nodes.For):
            over = extent(node.iter)
            times, deeper = max(1.0, over.size) if over is not None else 1.0, 1
        for child in node.iter_child_nodes():
            outside = isinstance(node, nodes.For) and child is node.iter
            pending.append((child, steps, loops) if outside else (child, steps * times, loops + deeper))


# ------------------------------------------------------------------------------------ what it reaches for


def _check_names(node: nodes.Node) -> None:
    if isinstance(node, _ELSEWHERE):
        raise _unsafe(node, f"{{% {type(node).__name__.lower()} %}}: a template stands alone")
    if isinstance(node, _ESCAPING):
        raise _unsafe(node, "{% autoescape %}: texts are never escaped")
    if isinstance(node, nodes.Name):
        _check_identifier(node, node.name)
        if node.name in REFUSED_NAMES:
            raise _unsafe(node, f"`{node.name}` is {REFUSED_NAMES[node.name]}")
    elif isinstance(node, (nodes.Macro, nodes.Keyword)):
        _check_identifier(node, node.name if isinstance(node, nodes.Macro) else node.key)
    elif isinstance(node, nodes.NSRef):
        _check_attribute(node, node.attr)
    elif isinstance(node, nodes.Getattr):
        _check_attribute(node, node.attr)
        if isinstance(node.node, nodes.Const) and node.attr in ("format", "format_map"):
            _check_fields(node, node.node.value)
    elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        if str(node.arg.value).startswith("__"):
            raise _unsafe(node, f"the item {node.arg.value!r} is the name of an internal attribute")
    elif isinstance(node, (nodes.Filter, nodes.FilterBlock)):
        _check_filter(node if isinstance(node, nodes.Filter) else node.filter)


def _check_identifier(node: nodes.Node, name: str) -> None:
    """Refuse a name that Python would read as another one."""
    if unicodedata.normalize("NFKC", name) != name or name.startswith("__"):
        raise _unsafe(node, f"the name {name!r} is not one that templates may use")


def _check_attribute(node: nodes.Node, name: str) -> None:
    plain = unicodedata.normalize("NFKC", name)
    if plain.startswith("__") or plain in _INTERNAL:
        raise _unsafe(node, f"the attribute {name!r} is internal to Python")


def _check_fields(node: nodes.Node, text: object) -> None:
    if isinstance(text, str) and _PRIVATE_FIELD.search(text):
        raise _unsafe(node, "a format that reads an internal attribute")


def _check_filter(node: nodes.Filter) -> None:
    if node.name in REFUSED_FILTERS:
        raise _unsafe(node, f"the filter `{node.name}` is not offered")
    if node.name not in _BY_ATTRIBUTE:
        return
    for argument in _arguments(node):
        if isinstance(argument, nodes.Const) and isinstance(argument.value, str):
            parts = argument.value.split(".")
            if any(part.startswith("__") for part in parts) or parts[0] in REFUSED_FILTERS:
                raise _unsafe(node, f"`{node.name}` with {argument.value!r}")


def _arguments(node: nodes.Filter | nodes.Call) -> Iterable[nodes.Expr]:
    return [*node.args, *(keyword.value for keyword in node.kwargs)]


# ------------------------------------------------------------------------------------- what it would cost


def _check_costs(node: nodes.Node) -> None:
    if isinstance(node, nodes.Pow):
        _check_power(node)
    elif isinstance(node, nodes.If):
        _limit(node.lineno, "`elif` of one block", len(node.elif_), MAX_ELIFS)
    elif isinstance(node, nodes.Mul):
        _check_extent(node, extent(node))
    elif isinstance(node, nodes.Mod) and isinstance(node.left, nodes.Const):
        _check_format(node, node.left.value, FORMAT_FIELD)
    elif isinstance(node, nodes.Filter):
        if node.name == "format" and isinstance(node.node, nodes.Const):
            _check_format(node, node.node.value, FORMAT_FIELD)
        _check_widths(node, node.name)
    elif isinstance(node, nodes.Call):
        if isinstance(node.node, nodes.Name) and node.node.name == "range":
            _limit(node.lineno, "items in a range", range_length(node) or 0, MAX_STEPS)
        elif isinstance(node.node, nodes.Getattr):
            called = node.node
            if called.attr in ("format", "format_map") and isinstance(called.node, nodes.Const):
                _check_format(node, called.node.value, NESTED_FIELD)
            _check_widths(node, called.attr)


def _check_extent(node: nodes.Node, found: Extent | None) -> None:
    if found is None:
        return
    if found.is_number:
        if found.size > 1e300:
            raise OverBudgetError(f"line {node.lineno}: a product of over 300 digits (the limit is 300)")
        return
    _limit(node.lineno, "characters or items by repetition", found.size, MAX_REPEATED)


def _check_power(node: nodes.Pow) -> None:
    exponent = extent(node.right)
    if exponent is not None:
        _limit(node.lineno, "as an exponent", exponent.size, MAX_EXPONENT)
    elif any(isinstance(part, nodes.Pow) for part in (node.left, node.right)):
        raise OverBudgetError(
            f"line {node.lineno}: a power of a power whose size is unknown (the limit is one)"
        )
    whole = extent(node)
    if whole is not None and whole.size > 1e300:
        raise OverBudgetError(f"line {node.lineno}: a power of over 300 digits (the limit is 300)")


def _check_format(node: nodes.Node, text: object, computed: re.Pattern[str]) -> None:
    if isinstance(text, str) and (LONG_NUMBER.search(text) or computed.search(text)):
        raise OverBudgetError(
            f"line {node.lineno}: a format whose width is computed, or of five digits or more "
            f"(the limit is {MAX_WIDTH:,})"
        )


def _check_widths(node: nodes.Filter | nodes.Call, name: str) -> None:
    limit = MAX_INDENT if name == "tojson" else MAX_WIDTH if name in _COUNTED else None
    if limit is None:
        return
    for argument in _arguments(node):
        found = extent(argument)
        if found is not None and found.is_number:
            _limit(node.lineno, f"as a width of `{name}`", found.size, limit)


# ------------------------------------------------------------------------------------------- recursion


def _check_recursion(tree: nodes.Template) -> None:
    """Refuse macros that come back to themselves, and loops that may."""
    for loop in tree.find_all(nodes.For):
        if loop.recursive:
            raise OverBudgetError(f"line {loop.lineno}: a recursive loop (the limit is one level)")
    macros = {macro.name: macro for macro in tree.find_all(nodes.Macro)}
    names = {
        name: {n.name for n in macro.find_all(nodes.Name) if n.name in macros}
        for name, macro in macros.items()
    }
    for name, macro in macros.items():
        reached, pending = set[str](), [*names[name]]
        while pending:
            other = pending.pop()
            if other not in reached:
                reached.add(other)
                pending += names[other]
        if name in reached:
            raise OverBudgetError(
                f"line {macro.lineno}: the macro `{name}` calls itself (the limit is one level)"
            )
