"""Jinja environments in which a template can neither reach Python nor grow without bound.

`strict_environment` is for our own library: undefined names raise, values cannot be changed.
`promptsource_environment` has PromptSource's semantics: undefined names render empty, lists may be changed.
Both inspect a template before they compile it (`inspecting`) and count what a render does against a `Budget`: loop
steps and characters built. The counts depend on template and row alone. Reads nothing and writes nothing.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import (
    Callable,
    ItemsView,
    Iterable,
    KeysView,
    Mapping,
    MutableMapping,
    Sequence,
    ValuesView,
)
from types import BuiltinMethodType, FunctionType, MethodType, NoneType
from typing import Any, ClassVar

from jinja2 import StrictUndefined, Template, TemplateRuntimeError, Undefined, nodes, pass_context
from jinja2.filters import make_attrgetter
from jinja2.nodes import EvalContext
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedEnvironment
from jinja2.utils import Cycler, Joiner

from taskmill import seeding
from taskmill.templates.sandboxing.counting import (
    METHODS,
    MUTATING,
    count_filter,
    count_join,
    count_method,
    count_operator,
)
from taskmill.templates.sandboxing.generating import CountingGenerator
from taskmill.templates.sandboxing.inspecting import REFUSED_FILTERS, inspect
from taskmill.templates.sandboxing.limits import (
    ITEM_SIZE,
    MAX_CALLS,
    Budget,
    OverBudgetError,
    TooLongError,
    UnsafeTemplateError,
)
from taskmill.watching import activity

__all__ = [
    "CountedEnvironment",
    "OverBudgetError",
    "StrictEnvironment",
    "TooLongError",
    "UnsafeTemplateError",
    "promptsource_environment",
    "strict_environment",
]

_PRINTED = (str, int, float, NoneType, range, Undefined, KeysView, ValuesView, ItemsView)
_LOOP_WORDS = """
    changed cycle depth depth0 first index index0 last length nextitem previtem revindex revindex0
"""
_LOOP = frozenset(_LOOP_WORDS.split())
_UNCOUNTED_WORDS = """
    abs choice count d default first float last length random
"""
_UNCOUNTED = frozenset(_UNCOUNTED_WORDS.split())
"""Filters that neither grow nor take longer with the size of their value."""
_TEXT_FILTERS: Mapping[str, Callable[[str], str]] = {
    "capitalize": str.capitalize,
    "lower": str.lower,
    "trim": str.strip,
    "upper": str.upper,
}


class CountedEnvironment(SandboxedEnvironment):
    """A sandbox that inspects templates, with a budget, and with chance that comes from seeding alone."""

    code_generator_class = CountingGenerator
    intercepted_binops = frozenset(["+", "*", "**", "%"])
    methods: ClassVar[Mapping[type, frozenset[str]]] = {**METHODS, LoopContext: _LOOP}
    """Type -> the attributes of its values that a template may have."""

    def __init__(self, **options: Any) -> None:
        """Take the options of jinja2.Environment."""
        super().__init__(**options)
        self.budget = Budget()
        self.count_step = self.budget.step
        self._prepared: dict[str, Template] = {}
        self._blank = vars(Context(self, {}, None, {}))
        self._allowed: dict[type, frozenset[str] | None] = {}
        self.globals.pop("lipsum")
        for name in REFUSED_FILTERS:
            self.filters.pop(name)
        self.filters["random"] = self.filters["choice"] = self._choice
        for name, function in list(self.filters.items()):
            self.add_filter(name, function)

    def start(self, seed: int, example: str, template: str) -> None:
        """Begin a render: full budget, chance of this (example, template)."""
        self.budget.start(seed, example, template)
        if activity.watched:
            activity.begin(f"template {template!r} on the example {example!r}")

    # ---------------------------------------------------------------------------------------- templates

    def prepare(self, source: str) -> Template:
        """Inspect and compile a template, once.

        Raises:
            UnsafeTemplateError, OverBudgetError: it is refused; the message says what, in which line, and the limit.
            TemplateSyntaxError: it is no template.
        """
        found = self._prepared.get(source)
        if found is None:
            found = self._prepared[source] = self.from_string(source)
        return found

    def from_string(
        self,
        source: str | nodes.Template,
        globals: MutableMapping[str, Any] | None = None,
        template_class: type[Template] | None = None,
    ) -> Template:
        """Inspect and compile a template; see `prepare`."""
        assert isinstance(source, str), "a tree that nothing has inspected"
        return self.compiled(self.inspected(source), globals, template_class)

    def inspected(self, source: str) -> nodes.Template:
        """Parse and inspect a template; see `prepare`."""
        self.budget.start(0, "", "")
        return inspect(self, source)

    def compiled(
        self,
        tree: nodes.Template,
        globals: MutableMapping[str, Any] | None = None,
        template_class: type[Template] | None = None,
    ) -> Template:
        """Compile what `inspected` has returned, which is spent then; see `prepare`."""
        try:
            return super().from_string(tree, globals, template_class)
        except SyntaxError as error:
            raise OverBudgetError(f"the template is beyond what Python compiles: {error.msg}") from error
        except (RecursionError, MemoryError) as error:
            raise OverBudgetError("the template is nested too deeply to be compiled") from error

    def context(self, values: dict[str, Any]) -> Context:
        """Return what compiled code reads `values` from; they hold the environment's globals too.

        Evaluation contexts are alike, because no template may change its own: `inspecting` refuses autoescape.
        """
        context = Context.__new__(Context)
        context.__dict__ = {**self._blank, "parent": values, "vars": {}, "exported_vars": set()}
        return context

    # ------------------------------------------------------------------------------ what compiled code calls

    def text_of(self, value: Any) -> str:
        """Return a value as it is printed.

        Raises:
            TemplateRuntimeError: it has no text of its own, such as a function or iterator: it would be an address.
        """
        if isinstance(value, (dict, list, tuple)):
            self.budget.measure(value)
        elif not isinstance(value, _PRINTED):
            raise TemplateRuntimeError(f"the template prints a {type(value).__name__}")
        return str(value)

    def join_text(self, parts: Sequence[Any]) -> str:
        """Return the text of all parts together: the operator `~`."""
        size = 0
        for part in parts:
            if part.__class__ is str:
                size += len(part)
            else:
                self.budget.measure(part)
        self.budget.build(size)
        return "".join(map(str, parts))

    def counted(self, value: Any) -> Any:
        """Return a value that was just made, counted."""
        self.budget.shallow(value)
        return value

    def concat(self, parts: Iterable[str]) -> str:  # type: ignore[override]
        """Return what a block or macro has printed, counted."""
        pieces = parts if isinstance(parts, list) else list(parts)
        self.budget.build(sum(map(len, pieces)))
        return "".join(pieces)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return an attribute or item; an unsafe one raises."""
        allowed = self.methods.get(obj.__class__)
        if allowed is not None and attribute in allowed and not attribute.startswith("format"):
            return getattr(obj, attribute)
        return super().getattr(obj, attribute)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Say whether a template may have an attribute: of plain values, the methods on the list and nothing else."""
        kind = type(obj)
        if kind not in self._allowed:
            known = [self.methods[base] for base in kind.__mro__ if base in self.methods]
            self._allowed[kind] = known[0] if known else None
        allowed = self._allowed[kind]
        return super().is_safe_attribute(obj, attr, value) if allowed is None else attr in allowed

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        """Refuse an unsafe attribute at once, instead of rendering it empty."""
        raise UnsafeTemplateError(f"access to {attribute!r} of a {type(obj).__name__}")

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute `+ * ** %` after counting what they build."""
        if operator != "+" or left.__class__ is not int:
            count_operator(self.budget, operator, left, right)
        return self.binop_table[operator](left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a method, function or macro of those that templates may call, after counting what it builds."""
        budget, method = __self.budget, __obj
        if isinstance(__obj, FunctionType):
            method = getattr(__obj, "__wrapped__", __obj)
        if isinstance(method, (BuiltinMethodType, MethodType)):
            owner, name = method.__self__, method.__name__
            if isinstance(owner, (str, list, dict, tuple, int, float)):
                if name not in __self.methods.get(owner.__class__, ()) and not __self.is_safe_attribute(
                    owner, name, method
                ):
                    __self.unsafe_undefined(owner, name)
                if kwargs:
                    kwargs.pop("_loop_vars", None)
                    kwargs.pop("_block_vars", None)
                return __self.counted(__obj(*count_method(budget, owner, name, args, kwargs), **kwargs))
        budget.step()
        budget.build(ITEM_SIZE * len(args))
        if isinstance(__obj, Macro):
            return __self._enter(__context, __obj, args, kwargs)
        if not __self._is_offered(method):
            raise UnsafeTemplateError(f"a call of a {type(__obj).__name__}")
        return __self.counted(super().call(__context, __obj, *args, **kwargs))

    def call_method(self, context: Context, owner: Any, name: str, *args: Any) -> Any:
        """Call a method by its name: `call` of `getattr`, with a short way for the methods of plain values."""
        if name in self.methods.get(owner.__class__, ()) and name not in ("format", "format_map"):
            made = getattr(owner, name)(*count_method(self.budget, owner, name, args, {}))
            if made.__class__ is list:
                self.budget.shallow(made)
            return made
        return self.call(context, self.getattr(owner, name), *args)

    def _enter(self, context: Context, macro: Macro, args: Any, kwargs: Any) -> Any:
        """Call a macro, a level deeper."""
        self.budget.deep += 1
        if self.budget.deep > MAX_CALLS:
            raise OverBudgetError(f"more than {MAX_CALLS} macros within one another")
        try:
            return super().call(context, macro, *args, **kwargs)
        finally:
            self.budget.deep -= 1

    def _is_offered(self, function: Any) -> bool:
        """Say whether a function is a global of templates, or belongs to a loop, a cycler or a joiner."""
        owner = function.__self__ if isinstance(function, MethodType) else function
        if isinstance(owner, (LoopContext, Cycler, Joiner, Undefined)):
            return True
        return any(function is offered for offered in self.globals.values())

    # ------------------------------------------------------------------------------------------ filters

    def add_filter(self, name: str, function: Callable[..., Any]) -> None:
        """Offer a filter, each call of it counted."""
        if name in _TEXT_FILTERS:
            self.filters[name] = self._text_filter(_TEXT_FILTERS[name], self._counted(name, function))
        elif name == "join":
            self.filters[name] = self._join_filter()
        elif name == "replace":
            self.filters[name] = self._replace_filter(self._counted(name, function))
        else:
            self.filters[name] = function if name in _UNCOUNTED else self._counted(name, function)

    def _counted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a filter so that each call is counted."""
        skip = 1 if getattr(function, "jinja_pass_arg", None) is not None else 0
        budget = self.budget

        @functools.wraps(function)
        def counted(*args: Any, **kwargs: Any) -> Any:
            count_filter(budget, name, args[skip], args[skip + 1 :], kwargs)
            made = function(*args, **kwargs)
            if made.__class__ is list:
                budget.shallow(made)
            return made

        return counted

    def _text_filter(self, change: Callable[[str], str], otherwise: Callable[..., Any]) -> Callable[..., Any]:
        """Return a filter that takes the short way for plain texts."""
        budget = self.budget

        @functools.wraps(otherwise)
        def changed(value: Any, *args: Any, **kwargs: Any) -> Any:
            if value.__class__ is not str or args or kwargs:
                return otherwise(value, *args, **kwargs)
            budget.step()
            budget.build(len(value))
            return change(value)

        return changed

    def _join_filter(self) -> Callable[..., Any]:
        """Return the filter `join`, which reads an iterator once and prints items as templates print them."""
        budget, text_of = self.budget, self.text_of

        def join(value: Any, d: Any = "", attribute: Any = None) -> str:
            budget.step()
            if attribute is not None:
                value = [make_attrgetter(self, attribute)(item) for item in value]
            items = count_join(budget, d, value)
            return str(d).join([item if item.__class__ is str else text_of(item) for item in items])

        return join

    def _replace_filter(self, otherwise: Callable[..., Any]) -> Callable[..., Any]:
        """Return the filter `replace`, with a short way for one text replaced by another everywhere."""
        budget = self.budget

        @functools.wraps(otherwise)
        def replace(context: EvalContext, value: Any, *args: Any, **kwargs: Any) -> Any:
            if value.__class__ is not str or len(args) != 2 or kwargs:
                return otherwise(context, value, *args, **kwargs)
            old, new = args
            if old.__class__ is not str or new.__class__ is not str:
                return otherwise(context, value, *args, **kwargs)
            budget.step()
            budget.build(len(value) + (value.count(old) * len(new) if len(new) > len(old) else 0))
            return value.replace(old, new)

        return replace

    @pass_context  # so that Jinja does not draw from constant items when it compiles
    def _choice(self, context: Context, items: Sequence[Any]) -> Any:
        """Return one of `items`, drawn by hash."""
        budget = self.budget
        budget.draws += 1
        seed, example, template = budget.chance
        drawn = seeding.uniform(seed, "templates/choice", example, template, budget.draws)
        return items[int(drawn * len(items))]


class StrictEnvironment(CountedEnvironment, ImmutableSandboxedEnvironment):
    """For templates of the library: undefined names raise, values are immutable."""

    methods: ClassVar = {kind: names - MUTATING for kind, names in CountedEnvironment.methods.items()}


def strict_environment() -> CountedEnvironment:
    """Make the environment of the library's templates."""
    return StrictEnvironment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )


def promptsource_environment() -> CountedEnvironment:
    """Make the environment of PromptSource's templates, with the names that PromptSource adds."""
    environment = CountedEnvironment()
    environment.globals.update(zip=zip, enumerate=enumerate)
    environment.add_filter("most_frequent", most_frequent)
    return environment


def most_frequent(items: Sequence[Any]) -> list[Any] | None:
    """Return the items that occur most often, in order of first occurrence; None where there are none."""
    if not items:
        return None
    counts = Counter(items)
    highest = max(counts.values())
    return [item for item, count in counts.items() if count == highest]
