"""Compile templates to Python that counts, and that takes the common case on the spot.

Beside Jinja's own code: every loop and macro counts its steps, `~` counts what it joins, a text is printed as it is, and a
key of a dictionary is read without a search for an attribute first. Reads nothing and writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame

_ATTRIBUTES_OF_DICT = frozenset(dir(dict))
_SHORT = 16
"""Items of a list that need no counting."""


class CountingGenerator(CodeGenerator):
    """Jinja's compiler with counting and short ways; `t_out` and `t_obj` are names that no template can have."""

    def visit_Template(self, node: nodes.Template, frame: Frame | None = None) -> None:
        for counted in list(node.find_all((nodes.For, nodes.Macro, nodes.CallBlock))):
            assert isinstance(counted, (nodes.For, nodes.Macro, nodes.CallBlock))
            step = nodes.ExprStmt(nodes.EnvironmentAttribute("count_step"), lineno=counted.lineno)
            step.set_environment(self.environment)
            counted.body.insert(0, step)
            if isinstance(counted, nodes.For) and counted.test is not None:
                none = nodes.EnvironmentAttribute("count_step", lineno=counted.lineno)
                counted.test = nodes.And(nodes.Not(none), counted.test, lineno=counted.lineno)
                counted.test.set_environment(self.environment)
        super().visit_Template(node, frame)

    def visit_EnvironmentAttribute(self, node: nodes.EnvironmentAttribute, frame: Frame) -> None:
        self.write(f"environment.{node.name}()")

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("environment.join_text((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def _output_child_pre(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:
        self.write("(t_out if (t_out := ")

    def _output_child_post(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:
        self.write(").__class__ is str else environment.text_of(t_out))")

    def visit_Getattr(self, node: nodes.Getattr, frame: Frame) -> None:
        if node.attr in _ATTRIBUTES_OF_DICT or node.attr.startswith("_"):
            self.write("environment.getattr(")
            self.visit(node.node, frame)
            self.write(f", {node.attr!r})")
        else:
            self._visit_key(node.node, node.attr, "getattr", frame)

    def visit_Call(self, node: nodes.Call, frame: Frame, forward_caller: bool = False) -> None:
        called = node.node
        plain = not (node.kwargs or node.dyn_args or node.dyn_kwargs or forward_caller)
        if not plain or not isinstance(called, nodes.Getattr):
            super().visit_Call(node, frame, forward_caller=forward_caller)
            return
        self.write("environment.call_method(context, ")
        self.visit(called.node, frame)
        self.write(f", {called.attr!r}")
        for argument in node.args:
            self.write(", ")
            self.visit(argument, frame)
        self.write(")")

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:
        argument = node.arg
        if isinstance(argument, nodes.Const) and isinstance(argument.value, str):
            self._visit_key(node.node, argument.value, "getitem", frame)
        elif isinstance(argument, nodes.Slice):
            self.write("environment.counted(")
            super().visit_Getitem(node, frame)
            self.write(")")
        else:
            super().visit_Getitem(node, frame)

    def visit_List(self, node: nodes.List, frame: Frame) -> None:
        self._visit_items(node, len(node.items), super().visit_List, frame)

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:
        stored = 0 if node.ctx == "store" else len(node.items)
        self._visit_items(node, stored, super().visit_Tuple, frame)

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:
        self._visit_items(node, len(node.items), super().visit_Dict, frame)

    def _visit_items(self, node: Any, number: int, visit: Callable[[Any, Frame], None], frame: Frame) -> None:
        """Write a list, tuple or dictionary; a long one is counted, because a loop may make it many times."""
        if number <= _SHORT:
            visit(node, frame)
        else:
            self.write("environment.counted(")
            visit(node, frame)
            self.write(")")

    def _visit_key(self, owner: nodes.Expr, key: str, otherwise: str, frame: Frame) -> None:
        """Write what reads `key` of a dictionary; of anything else, or where it has no such key, Jinja's own way."""
        self.write(f"(t_obj[{key!r}] if (t_obj := ")
        self.visit(owner, frame)
        self.write(f").__class__ is dict and {key!r} in t_obj else environment.{otherwise}(t_obj, {key!r}))")
