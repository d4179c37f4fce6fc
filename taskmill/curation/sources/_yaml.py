"""YAML of upstream collections and casts: plain values, and PromptSource's two tags as mappings."""

from __future__ import annotations

from typing import Any

from taskmill import safe_yaml

_TAGS = ("!Template", "!TemplateMetadata")


def load_yaml(text: str) -> Any:
    """Parse YAML into plain values.

    Raises:
        ValueError: not YAML, a tag other than PromptSource's two, or beyond the limits of `safe_yaml`.
    """
    return safe_yaml.load_yaml(text, _TAGS)
