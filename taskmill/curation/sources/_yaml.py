"""YAML of other people: no object is built, aliases and depth are limited, no key may stand twice."""

from __future__ import annotations

from typing import Any

import yaml

MAX_ALIASES = 200
MAX_DEPTH = 32
MAX_NODES = 200_000


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


class _Loader(_Base):  # type: ignore[misc]
    """A safe loader that reads PromptSource's two tags as mappings and counts what it is asked to hold."""

    num_aliases = 0
    num_nodes = 0
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.num_nodes += 1
        self.num_aliases += self.check_event(yaml.AliasEvent)
        if self.num_aliases > MAX_ALIASES or self.num_nodes > MAX_NODES or self.depth > MAX_DEPTH:
            problem = f"more than {MAX_ALIASES} aliases, {MAX_NODES} values or {MAX_DEPTH} levels"
            raise yaml.composer.ComposerError(None, None, problem, self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def _mapping(loader: Any, node: Any) -> dict[Any, Any]:
    """Build a mapping in which each key stands once.

    Raises:
        ConstructorError: the node is no mapping, or a key stands twice.
    """
    if not isinstance(node, yaml.MappingNode):
        raise yaml.constructor.ConstructorError(None, None, "expected a mapping", node.start_mark)
    found: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            raise yaml.constructor.ConstructorError(
                None, None, "merge keys are not read", key_node.start_mark
            )
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, (str, int, float, bool, type(None))) or key in found:
            problem = f"the key {key!r} stands twice or is no plain value"
            raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
        found[key] = loader.construct_object(value_node, deep=True)
    return found


for _tag in ("tag:yaml.org,2002:map", "!Template", "!TemplateMetadata"):
    _Loader.add_constructor(_tag, _mapping)


def load_yaml(text: str) -> Any:
    """Parse YAML into plain values.

    Raises:
        ValueError: not YAML, a tag other than PromptSource's two, or beyond the limits.
    """
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError, TypeError, AttributeError) as error:
        raise ValueError(_in_one_line(error, text.count("\n") + 1)) from error


def _in_one_line(error: Exception, num_lines: int) -> str:
    """Return what is wrong and in which line, without the excerpt that YAML's messages carry."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or (str(error) or type(error).__name__).splitlines()[0]
    return f"line {min(mark.line + 1, num_lines)}: {problem}" if mark else str(problem)
