"""YAML of other people, read as plain values: no object is built, and nothing in a file can make reading it costly.

The limits count what a text expands to: an alias counts for all that it stands for. Every YAML file that the package reads
goes through here, its own included. Reads and writes nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import yaml

MAX_CHARACTERS = 20_000_000
MAX_ALIASES = 200
MAX_DEPTH = 32
MAX_NODES = 200_000
MAX_DIGITS = 400
"""Longest text that is read as a number; `1:00:00 ...` is one, and takes time that grows with its square."""

_PREFIX = "tag:yaml.org,2002:"
_PLAIN = frozenset(
    _PREFIX + name
    for name in ["map", "seq", "str", "int", "float", "bool", "null", "timestamp", "merge", "value"]
)
_NUMBERS = frozenset((f"{_PREFIX}int", f"{_PREFIX}float"))


class YamlError(ValueError):
    """A text that is no YAML, or goes beyond the limits."""

    def __init__(self, problem: str, line: int | None) -> None:
        """`line` counts from 1; None where the problem has none."""
        super().__init__(f"line {line}: {problem}" if line else problem)
        self.problem, self.line = problem, line

    def __reduce__(self) -> tuple[object, ...]:
        """Cross a process boundary whole."""
        return (YamlError, (self.problem, self.line))


_Base: Any = yaml.SafeLoader
if yaml.__with_libyaml__:
    _CParser: Any = vars(yaml.cyaml)["CParser"]

    class _CompiledLoader(
        yaml.composer.Composer,
        _CParser,  # type: ignore[misc]
        yaml.constructor.SafeConstructor,
        yaml.resolver.Resolver,
    ):
        """SafeLoader whose text is cut into events by libyaml: the same values, six times as fast."""

        def __init__(self, stream: Any) -> None:
            _CParser.__init__(self, stream)
            yaml.composer.Composer.__init__(self)
            yaml.constructor.SafeConstructor.__init__(self)
            yaml.resolver.Resolver.__init__(self)  # type: ignore[no-untyped-call]

    _Base = _CompiledLoader


class Loader(_Base):  # type: ignore[misc]
    """A safe loader that counts what it is asked to hold."""

    def __init__(self, text: str, max_depth: int = MAX_DEPTH, max_nodes: int = MAX_NODES) -> None:
        """Take the text; what lies deeper or is more than the limits is refused."""
        super().__init__(text)
        self._max_depth, self._max_nodes = max_depth, max_nodes
        self._num_aliases = self._num_nodes = self._depth = 0
        self._sizes: dict[str, int | None] = {}
        self.mappings: Collection[str] = ()
        """Tags that are read as mappings."""
        self.keys_may_repeat = False
        """Whether the last of equal keys counts, for those who look at the nodes themselves."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a node, once it is within the limits."""
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            self._num_aliases += 1
            size = self._sizes.get(event.anchor or "", 1)
            if size is None:
                raise _refusal(
                    f"the alias *{event.anchor} stands within what it stands for", event.start_mark
                )
            self._num_nodes += size
        else:
            self._num_nodes += 1
        self._check(event.start_mark)
        if isinstance(event, yaml.AliasEvent):
            return super().compose_node(parent, index)
        anchor, before = event.anchor, self._num_nodes - 1
        if anchor is not None:
            self._sizes[anchor] = None
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if anchor is not None:
            self._sizes[anchor] = self._num_nodes - before
        return node

    def _check(self, mark: Any) -> None:
        if self._depth >= self._max_depth:
            raise _refusal(f"more than {self._max_depth} levels", mark)
        if self._num_aliases > MAX_ALIASES:
            raise _refusal(f"more than {MAX_ALIASES} aliases", mark)
        if self._num_nodes > self._max_nodes:
            raise _refusal(f"more than {self._max_nodes} values, with what aliases stand for", mark)

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        """Build a plain value; any other tag is refused."""
        if node.tag in self.mappings and isinstance(node, yaml.MappingNode):
            node.tag = f"{_PREFIX}map"
        if node.tag not in _PLAIN:
            problem = f"the tag {node.tag.replace(_PREFIX, '!!')!r} builds an object; expected plain values"
            raise _refusal(problem, node.start_mark)
        if node.tag in _NUMBERS and len(node.value) > MAX_DIGITS:
            raise _refusal(f"a number of more than {MAX_DIGITS} digits", node.start_mark)
        return super().construct_object(node, deep)


def _refusal(problem: str, mark: Any) -> Exception:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def _mapping(loader: Any, node: Any) -> dict[Any, Any]:
    """Build a mapping in which each key stands once."""
    if not isinstance(node, yaml.MappingNode):
        raise _refusal("expected a mapping", node.start_mark)
    found: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        if key_node.tag == f"{_PREFIX}merge":
            raise _refusal("merge keys are not read", key_node.start_mark)
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, (str, int, float, bool, type(None))) or (
            key in found and not loader.keys_may_repeat
        ):
            raise _refusal(f"the key {key!r} stands twice or is no plain value", key_node.start_mark)
        found[key] = loader.construct_object(value_node, deep=True)
    return found


Loader.add_constructor(f"{_PREFIX}map", _mapping)


def compose_yaml(
    text: str, max_depth: int = MAX_DEPTH, max_nodes: int = MAX_NODES
) -> tuple[yaml.Node | None, Loader]:
    """Return the nodes of a YAML text, for those who need its lines, and the loader that can build their values.

    Raises:
        YamlError: not YAML, or beyond the limits.
    """
    if len(text) > MAX_CHARACTERS:
        raise YamlError(f"more than {MAX_CHARACTERS} characters", None)
    try:
        loader = Loader(text, max_depth, max_nodes)
        return loader.get_single_node(), loader
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise _error(error, text) from error


def load_yaml(text: str, mappings: Collection[str] = ()) -> Any:
    """Parse YAML into plain values.

    Args:
        mappings: tags beside YAML's own, such as `!Template`, that are read as mappings.

    Raises:
        YamlError: not YAML, a key that stands twice, a tag that builds an object, or beyond the limits.
    """
    node, loader = compose_yaml(text)
    loader.mappings = mappings
    try:
        return None if node is None else loader.construct_document(node)
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError, TypeError, AttributeError) as error:
        raise _error(error, text) from error


def _error(error: Exception, text: str) -> YamlError:
    """Return what is wrong and in which line, without the excerpt that YAML's messages carry."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or (str(error) or type(error).__name__).splitlines()[0]
    return YamlError(str(problem), min(mark.line + 1, text.count("\n") + 1) if mark else None)
