"""What operators, methods and filters build, counted before they build it.

One rule per name serves the method (`text.replace(..)`) and the filter (`text|replace(..)`): both take the value and the
same arguments. Reads nothing and writes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from jinja2 import Undefined

from taskmill.templates.sandboxing.limits import (
    ITEM_SIZE,
    MAX_BITS,
    MAX_EXPONENT,
    MAX_INDENT,
    MAX_WIDTH,
    Budget,
    OverBudgetError,
)

LONG_NUMBER = re.compile(r"\d{5,}")
_WIDE_NUMBER = re.compile(r"\d{4}")
NESTED_FIELD = re.compile(r"\{[^{}]*\{")
FORMAT_FIELD = re.compile(r"%[-#0 +.\d]*\*")

_STR_METHODS_WORDS = """
    capitalize casefold center count endswith expandtabs find format format_map index isalnum isalpha
    isascii isdecimal isdigit isidentifier islower isnumeric isprintable isspace istitle isupper join ljust
    lower lstrip partition removeprefix removesuffix replace rfind rindex rjust rpartition rsplit rstrip
    split splitlines startswith strip swapcase title translate upper zfill
"""
STR_METHODS = frozenset(_STR_METHODS_WORDS.split())
_LIST_METHODS_WORDS = """
    append clear copy count extend index insert pop remove reverse sort
"""
LIST_METHODS = frozenset(_LIST_METHODS_WORDS.split())
_DICT_METHODS_WORDS = """
    clear copy get items keys pop popitem setdefault update values
"""
DICT_METHODS = frozenset(_DICT_METHODS_WORDS.split())
NUMBER_METHODS = frozenset(["bit_length", "is_integer"])
_MUTATING_WORDS = """
    append clear extend insert pop popitem remove reverse setdefault sort update
"""
MUTATING = frozenset(_MUTATING_WORDS.split())
METHODS: Mapping[type, frozenset[str]] = MappingProxyType(
    {
        str: STR_METHODS,
        list: LIST_METHODS,
        dict: DICT_METHODS,
        tuple: frozenset(["count", "index"]),
        int: NUMBER_METHODS,
        float: NUMBER_METHODS,
        bool: NUMBER_METHODS,
        bytes: frozenset(),
        set: frozenset(),
    }
)
"""Type -> the methods that a template may call."""


class Arguments:
    """The arguments of a call by place or name."""

    __slots__ = ("args", "kwargs")

    def __init__(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Take what follows the value."""
        self.args, self.kwargs = args, kwargs

    def get(self, place: int, name: str, default: Any = None) -> Any:
        """Return one argument, or its default."""
        return self.args[place] if place < len(self.args) else self.kwargs.get(name, default)


Rule = Callable[[Budget, Any, Arguments], None]


def _width(number: Any, limit: int = MAX_WIDTH) -> int:
    if not isinstance(number, int):
        return 0
    if number > limit:
        raise OverBudgetError(f"{number if number < 10**18 else 'a number'} is wider than {limit}")
    return max(number, 0)


def _pad(budget: Budget, value: Any, given: Arguments) -> None:
    budget.build(_width(given.get(0, "width", 80)))


def _expand_tabs(budget: Budget, value: Any, given: Arguments) -> None:
    budget.build(_width(given.get(0, "tabsize", 8)) * str(value).count("\t"))


def _indent(budget: Budget, value: Any, given: Arguments) -> None:
    width = given.get(0, "width", 4)
    budget.build((str(value).count("\n") + 1) * (len(width) if isinstance(width, str) else _width(width)))


def _batch(budget: Budget, value: Any, given: Arguments) -> None:
    width = _width(given.get(0, "linecount", given.kwargs.get("slices", 0)))
    budget.build(ITEM_SIZE * width)


def _wrap(budget: Budget, value: Any, given: Arguments) -> None:
    _width(given.get(0, "width", 79))
    wrap = given.get(2, "wrapstring")
    budget.build((len(str(value)) + 1) * (len(wrap) if isinstance(wrap, str) else 1))


def _truncate(budget: Budget, value: Any, given: Arguments) -> None:
    budget.measure(given.get(2, "end", ""))


def _json(budget: Budget, value: Any, given: Arguments) -> None:
    indent = given.get(0, "indent")
    width = len(indent) if isinstance(indent, str) else _width(indent, MAX_INDENT)
    budget.measure(value)
    if not width:
        return
    pending = [(value, 1)]
    while pending:
        item, level = pending.pop()
        inner = item.values() if isinstance(item, dict) else item if isinstance(item, (list, tuple)) else ()
        budget.build(level * width * (len(inner) + 1))
        pending += [(child, level + 1) for child in inner]


def _replace(budget: Budget, value: Any, given: Arguments) -> None:
    text, old, new = str(value), str(given.get(0, "old", "")), str(given.get(1, "new", ""))
    budget.build(len(text) + text.count(old) * max(0, len(new) - len(old)))


def _translate(budget: Budget, value: Any, given: Arguments) -> None:
    table = given.get(0, "table")
    inner = table.values() if isinstance(table, dict) else ()
    budget.build(len(str(value)) * max((len(v) for v in inner if isinstance(v, str)), default=1))


def _round(budget: Budget, value: Any, given: Arguments) -> None:
    precision = given.get(0, "precision", 0)
    if isinstance(precision, int) and abs(precision) > 300:
        raise OverBudgetError("round: a precision beyond 300")


def _sum(budget: Budget, value: Any, given: Arguments) -> None:
    start = given.get(1, "start", 0)
    if isinstance(start, (list, tuple)) and isinstance(value, (list, tuple)):
        inner = sum(len(item) for item in value if isinstance(item, (list, tuple)))
        budget.build(ITEM_SIZE * (inner + len(start)) * (len(value) + 1) // 2)


def _format(budget: Budget, value: Any, given: Arguments) -> None:
    count_format(budget, str(value), [*given.args, *given.kwargs.values()])


def _listed(budget: Budget, value: Any, given: Arguments) -> None:
    budget.shallow(given.get(0, "iterable", ()))


RULES: Mapping[str, tuple[Rule, ...]] = MappingProxyType(
    dict.fromkeys(("center", "ljust", "rjust", "zfill"), (_pad,))
    | {
        "expandtabs": (_expand_tabs,),
        "indent": (_indent,),
        "batch": (_batch,),
        "slice": (_batch,),
        "wordwrap": (_wrap,),
        "truncate": (_truncate,),
        "tojson": (_json,),
        "replace": (_replace,),
        "translate": (_translate,),
        "round": (_round,),
        "sum": (_sum,),
        "extend": (_listed,),
        "update": (_listed,),
    }
)
"""Name of a filter or method -> what it builds beyond its value and arguments."""
FILTER_RULES: Mapping[str, tuple[Rule, ...]] = MappingProxyType({**RULES, "format": (_format,)})


_LISTING_WORDS = """
    abs batch choice count d default dictsort first float groupby int items last length list map max min
    most_frequent random reject rejectattr reverse round select selectattr slice sort sum unique
"""
LISTING = frozenset(_LISTING_WORDS.split())
"""Filters that look at the items of a list, or at a number, and make no text of them."""


_BY_ITEM = frozenset(["append", "get", "items", "keys", "pop", "setdefault", "values"])
"""Methods of lists and dictionaries whose work does not grow with the value."""
_PLAIN_TEXT = STR_METHODS - RULES.keys() - {"join", "format", "format_map"}
"""Methods of texts that build no more than the text itself."""


def count_filter(
    budget: Budget, name: str, value: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> None:
    """Count a call of the filter `name`."""
    budget.step()
    if value.__class__ is str or name in LISTING:
        budget.shallow(value)
    else:
        budget.measure(value)
    for argument in (*args, *kwargs.values()):
        budget.shallow(argument)
    for rule in FILTER_RULES.get(name, ()):
        rule(budget, value, Arguments(args, kwargs))


def count_method(budget: Budget, owner: Any, name: str, args: Any, kwargs: Mapping[str, Any]) -> Any:
    """Count a call of the method `name` of a text, list or dictionary; return the arguments to call it with."""
    budget.step()
    if name in _BY_ITEM:
        return args
    if isinstance(owner, str):
        budget.build(len(owner))
    else:
        budget.shallow(owner)
    for argument in args:
        if argument.__class__ is str:
            budget.build(len(argument))
    if name in _PLAIN_TEXT:
        return args
    if name == "join" and args:
        return (count_join(budget, owner, args[0]), *args[1:])
    if name in ("extend", "update") and args and not isinstance(args[0], (str, dict, list, tuple)):
        args = (list(args[0]), *args[1:])
    if name in ("format", "format_map"):
        count_format(budget, owner, [*args, *kwargs.values()], braces=True)
    for rule in RULES.get(name, ()):
        rule(budget, owner, Arguments(args, kwargs))
    return args


def count_join(budget: Budget, separator: Any, items: Any) -> Any:
    """Count what joining `items` builds; return them as a list, so that an iterator is read once."""
    if not isinstance(items, (str, list, tuple, dict)):
        if not isinstance(items, Iterable) or isinstance(items, Undefined):
            return items
        items = list(items)
    size = len(separator) * len(items) if isinstance(separator, str) else 0
    for item in items:
        if item.__class__ is str:
            size += len(item)
        else:
            budget.measure(item)
    budget.build(size)
    return items


def count_format(budget: Budget, text: str, values: Any, braces: bool = False) -> None:
    """Count a formatted text.

    Raises:
        OverBudgetError: a width is wide, or computed from a value.
    """
    fields = text.count("{" if braces else "%")
    if braces:
        computed = fields > 1 and NESTED_FIELD.search(text)
    else:
        computed = "*" in text and FORMAT_FIELD.search(text)
    wide = _WIDE_NUMBER.findall(text)
    if computed or (wide and LONG_NUMBER.search(text)):
        raise OverBudgetError("a format with a computed width, or one of five digits or more")
    for _ in range(fields):
        budget.measure(values)
    budget.build(len(text) + MAX_WIDTH * len(wide))


def count_operator(budget: Budget, operator: str, left: Any, right: Any) -> None:
    """Count what one of `+ * ** %` builds."""
    if operator == "+":
        if isinstance(left, (str, list, tuple)):
            budget.shallow(left)
            budget.shallow(right)
    elif operator == "*":
        _count_product(budget, left, right)
    elif operator == "**":
        whole = isinstance(left, int) and isinstance(right, int)
        if whole and (right > MAX_EXPONENT or left.bit_length() * max(right, 0) > MAX_BITS):
            raise OverBudgetError("a power with too many digits")
    elif isinstance(left, (str, bytes)):
        count_format(budget, left if isinstance(left, str) else left.decode("latin-1"), right)


def _count_product(budget: Budget, left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int):
        if left.bit_length() + right.bit_length() > MAX_BITS:
            raise OverBudgetError("a product with too many digits")
        return
    for value, times in ((left, right), (right, left)):
        if isinstance(times, int) and isinstance(value, (str, bytes, list, tuple)):
            budget.build(len(value) * max(times, 0) * (1 if isinstance(value, (str, bytes)) else ITEM_SIZE))
