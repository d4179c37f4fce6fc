"""Settings: the part of a recipe that one stage declared it reads, and nothing else of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from taskmill.plain import to_json
from taskmill.recipe import Resolved

UNFINGERPRINTED = (
    ("render", "time_limit_seconds"),
    ("render", "memory_limit_mb"),
    ("evaluate", "batch_size"),
    ("evaluate", "endpoint", "api_key_variable"),
    ("evaluate", "endpoint", "num_requests"),
    ("evaluate", "endpoint", "timeout_seconds"),
)
"""Places of settings that can stop a stage or make it quicker, and never change what it makes."""


class Settings:
    """The part of a recipe that a stage declared it reads; touching another section is a programming error.

    `seed`, `limit`, `name`, `extends` and `path` are always there. `workers` is how many processes may be used;
    it never changes a result and is in no fingerprint.
    """

    def __init__(self, resolved: Resolved, sections: tuple[str, ...], workers: int = 1) -> None:
        """Give access to `sections` of the recipe only."""
        self._recipe = resolved.recipe
        self._sections = sections
        self.seed, self.limit, self.name = resolved.recipe.seed, resolved.recipe.limit, resolved.recipe.name
        self.extends = resolved.recipe.extends
        self.workers = workers
        self.predict_only = False
        self.track: tuple[str, ...] = ()
        self.path = resolved.path

    @property
    def data_root(self) -> Path:
        """The absolute folder that source paths begin at; paths are in no fingerprint."""
        return self.path(self._recipe.data_root)

    def __getattr__(self, section: str) -> Any:
        if section.startswith("_"):  # asked while this is made from a pickle, before there are sections
            raise AttributeError(section)
        if section not in self._sections:
            raise AttributeError(f"section {section!r} is not among the declared {self._sections}")
        return getattr(self._recipe, section)

    def values(self) -> dict[str, Any]:
        """Return the declared sections as JSON values: the settings part of a fingerprint."""
        everything = to_json(self._recipe)
        found = {section: everything[section] for section in self._sections}
        for *parents, name in UNFINGERPRINTED:
            value: Any = found
            for parent in parents:
                value = (value or {}).get(parent)
            if value is not None:
                value.pop(name)
        return found
