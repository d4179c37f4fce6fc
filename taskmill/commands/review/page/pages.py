"""The HTML of the review page: what a view shows, row by row, and the parts that a step changes.

Reads a Review; writes nothing. Every text of the run reaches the page through Jinja's escaping. A part is an element
with an id; `swap` packs parts so that the page's script can put each in the place of the one with its id.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jinja2
from markupsafe import Markup, escape

from taskmill.commands import figures
from taskmill.commands.review.deciding.filters import WAITING
from taskmill.commands.review.deciding.state import (
    CLEAR,
    SORTS,
    SUGGESTED,
    Group,
    MergePreview,
    PairRow,
    Review,
    Selection,
    View,
)
from taskmill.commands.review.page.security import FORM_TOKEN
from taskmill.errors import UsageError
from taskmill.records import ACTIONS, LEVELS, SPLITS
from taskmill.splits.deciding.decisions import STATES

FOLDER = Path(__file__).parent
NUM_GROUPS, NUM_ROWS, NUM_ITEMS, MOST_SHOWN = 30, 30, 3, 200
"""Groups, rows of a group and examples of a pair that are shown at a time; parts that one answer renews at most."""
MOST_KEPT = 2_000
"""Lines of pairs, and names, that are remembered."""

ACTION_WORDS = {
    "keep": ("Keep both", "keep both"),
    "drop_train_task": ("Drop train task", "drop the train task"),
    "drop_eval_task": ("Drop evaluation task", "drop the evaluation task"),
    "drop_train_examples": ("Drop train examples", "drop train examples"),
    "drop_eval_examples": ("Drop evaluation examples", "drop evaluation examples"),
    SUGGESTED: ("As suggested", "as suggested"),
    CLEAR: ("Take decisions back", "take people's decisions back"),
}
STATE_WORDS = {
    "undecided": ("waits", "Above the threshold, or of one data set, and nobody has decided it"),
    "outdated": ("waits again", "Decided before, but what the two tasks share has changed since"),
    "person": ("decided", "A person decided it"),
    "rule": ("by rule", "A rule of the recipe decided it"),
    "dropped": ("needs none", "Another decision drops one of its tasks"),
    "below": ("below", "Shares less than the threshold, so that nobody has to decide it"),
}
SPLIT_WORDS = {
    "up to date": "the split is written",
    "stale": "the split is older than what was decided",
    "to do": "the split is not written yet",
    "damaged": "the split is damaged: write it again",
}
SORT_WORDS = {
    "worst": "most hit first",
    "rare": "most hit first, without frequent text",
    "touched": "most of the train task touched first",
    "train": "by train task",
    "eval": "by evaluation task",
    "newest": "decided last first",
}
FREQUENT = {"": None, "only": True, "more": False}


# ------------------------------------------------------------------------------------------------ views


def view_of(arguments: Mapping[str, str], num_waiting: int) -> View:
    """Return the view that the parameters of an address name; without a state, what waits, if anything does.

    Raises:
        UsageError: a parameter has a value that it cannot have.
    """
    state = arguments.get("state") or ("waiting" if num_waiting else "all")
    states = {"waiting": WAITING, "all": (), **{name: (name,) for name in STATES}}
    hit = arguments.get("hit", "").strip()
    try:
        hit_over = min(1.0, max(0.0, float(hit) / 100)) if hit else None
    except ValueError as error:
        raise UsageError(f"hit: {hit[:40]!r} is no number; expected a percentage such as 5") from error
    return View(
        states=_one_of("state", state, states),
        levels=_one_of("level", arguments.get("level", ""), {"": (), **{name: (name,) for name in LEVELS}}),
        same_dataset=True if arguments.get("same") else None,
        text=arguments.get("text", "").strip()[:200],
        hit_over=hit_over,
        only_frequent=_one_of("frequent", arguments.get("frequent", ""), FREQUENT),
        by=arguments.get("by", "")[:200],
        action=_one_of("action", arguments.get("action", ""), {"": "", **{name: name for name in ACTIONS}}),
        noted=True if arguments.get("noted") else None,
        sort=_one_of("sort", arguments.get("sort") or SORTS[0], {name: name for name in SORTS}),
    )


def _one_of(name: str, value: str, known: Mapping[str, Any]) -> Any:
    if value not in known:
        raise UsageError(
            f"{name}: {value[:40]!r} is not known; expected one of {', '.join(k for k in known if k)}"
        )
    return known[value]


def query_of(view: View, **more: object) -> str:
    """Return the parameters of an address that name a view, and further ones."""
    state = {WAITING: "waiting", (): "all"}.get(view.states, view.states[0] if view.states else "")
    values = {
        "state": state,
        "level": view.levels[0] if view.levels else "",
        "text": view.text,
        "hit": f"{100 * view.hit_over:g}" if view.hit_over is not None else "",
        "same": "1" if view.same_dataset else "",
        "frequent": next(name for name, value in FREQUENT.items() if value is view.only_frequent),
        "by": view.by,
        "action": view.action,
        "noted": "1" if view.noted else "",
        "sort": "" if view.sort == SORTS[0] else view.sort,
    }
    return urlencode({k: v for k, v in {**values, **more}.items() if v not in ("", None)})


def names_of(text: str) -> tuple[str, str]:
    """Return the two names of a pair or group as the page writes them: a JSON list.

    Raises:
        UsageError: it is none.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not (isinstance(found, list) and len(found) == 2 and all(isinstance(name, str) for name in found)):
        raise UsageError(f"the request names {text[:40]!r}; expected two names: reload the page")
    return found[0], found[1]


# ------------------------------------------------------------------------------------------------ parts


@dataclass(frozen=True)
class Pages:
    """What the pages of one review are made with."""

    review: Review
    environment: jinja2.Environment
    row: Callable[[PairRow, str], Markup]
    """The line of a pair, with the parameters of the view; those of late are remembered."""

    @property
    def part(self) -> Any:
        """The macros of parts.html.j2."""
        return self.environment.get_template("parts.html.j2").module

    def whole(self, view: View, opened: tuple[str, str] | None, num_rows: int, num_groups: int) -> str:
        """Return the page with the list of a view; the group `opened`, else the first that waits, is open."""
        progress = self.review.progress()
        listed = self.list(view, opened, num_rows, num_groups)
        return self._page(progress, view, listed, self.part.filters(self._choices(view), view))

    def single(self, view: View, train_task: str, eval_task: str) -> str:
        """Return a page with one pair and its evidence."""
        back = self.part.back(query_of(view))
        return self._page(
            self.review.progress(), view, back + self.evidence(train_task, eval_task, 0, True), ""
        )

    def plain(self, view: View, body: Markup) -> str:
        """Return a page with a dialog's content, for browsers without script."""
        back = self.part.back(query_of(view))
        return self._page(self.review.progress(), view, back + body, "", with_dialog=False)

    def message(self, text: str) -> str:
        """Return a page that says one thing."""
        return self._page(self.review.progress(), View(), self.part.back("") + self.part.trouble(text), "")

    def _page(
        self, progress: Any, view: View, body: Markup, filters: Markup | str, with_dialog: bool = True
    ) -> str:
        template = self.environment.get_template("page.html.j2")
        names = {"progress": progress, "query": query_of(view), "body": body, "filters": filters}
        return template.render(**names, part=self.part, with_dialog=with_dialog)

    def _choices(self, view: View) -> dict[str, Any]:
        names = self.review.names()
        return {
            "by": names if not view.by or view.by in names else [*names, view.by],
            "query": query_of(view),
            "num_more": sum(
                v not in (None, "")
                for v in (
                    view.hit_over,
                    view.same_dataset,
                    view.only_frequent,
                    view.by,
                    view.action,
                    view.noted,
                )
            ),
        }

    def list(
        self,
        view: View,
        opened: tuple[str, str] | None = None,
        num_rows: int = NUM_ROWS,
        num_groups: int = NUM_GROUPS,
    ) -> Markup:
        """Return the list of a view: its groups, one of them open."""
        groups = self.review.groups(view)
        if opened is None:
            opened = next((g.key for g in groups if g.num_waiting), groups[0].key if groups else None)
        total = sum(group.num_pairs for group in groups)
        body = self.groups(view, groups[:num_groups], opened, num_rows)
        more = self.more_groups(view, len(groups), num_groups)
        return _markup(self.part.listed(body + more, len(groups), total, view, self.review.revision))

    def groups(
        self,
        view: View,
        groups: Sequence[Group],
        opened: tuple[str, str] | None = None,
        num_rows: int = NUM_ROWS,
    ) -> Markup:
        """Return groups, one of them open with its rows."""
        whole = self._whole_groups(view, (group.key for group in groups))
        shown = (
            self.part.group(
                group_id(group.key),
                whole.get(group.key, group),
                group,
                self.rows(view, group.key, 0, num_rows) if group.key == opened else None,
                query_of(view),
            )
            for group in groups
        )
        return Markup("").join(shown)

    def _whole_groups(self, view: View, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Group]:
        """Return those of the groups of a view, with pairs of every state, by key."""
        found = self.review.groups(replace(view, states=()), keys=frozenset(keys))
        return {group.key: group for group in found}

    def more_groups(self, view: View, total: int, shown: int) -> Markup:
        """Return the element that brings further groups, or nothing."""
        return _markup(self.part.more_groups(total - shown, shown, query_of(view), NUM_GROUPS))

    def rows(self, view: View, group: tuple[str, str], start: int, count: int = NUM_ROWS) -> Markup:
        """Return rows of a group, and the element that brings further ones."""
        query = query_of(view)
        rows, total = self.review.pairs(view, group, start, count)
        shown = Markup("").join(self.row(row, query) for row in rows)
        left = total - start - len(rows)
        return shown + _markup(self.part.more_rows(group_id(group), group, left, start + len(rows), query))

    def evidence(self, train_task: str, eval_task: str, start: int, alone: bool = False) -> Markup:
        """Return a pair's evidence: all of it from the start, or further items."""
        found = self.review.evidence(train_task, eval_task, start, NUM_ITEMS)
        left = found.num_items - found.start - len(found.items)
        items = _markup(self.part.items(found, left, start + len(found.items)))
        return items if start else _markup(self.part.evidence(found.row, items, found, alone))

    # -------------------------------------------------------------------------------- what a step changes

    def changed(
        self,
        view: View,
        pairs: Iterable[tuple[str, str]],
        opened: Iterable[tuple[str, str]],
        groups: Iterable[tuple[str, str]],
    ) -> dict[str, Markup]:
        """Return the parts that a step can change: progress, and those pairs and groups that are on the page."""
        query, shown = query_of(view), list(groups)[:MOST_SHOWN]
        whole = self._whole_groups(view, shown)
        parts = {"progress": _markup(self.part.progress(self.review.progress(), query))}
        with_panel = dict.fromkeys(opened)
        for pair in dict.fromkeys([*pairs, *with_panel][:MOST_SHOWN]):
            row = self.review.row(*pair)
            parts[f"p{row.number}"] = self.row(row, query)
            if pair in with_panel:
                parts[f"d{row.number}"] = _markup(self.part.panel(row))
                parts[f"r{row.number}"] = _markup(self.part.state(row))
        for key in shown:
            group = whole.get(key) or Group(*key, num_pairs=0, num_waiting=0)
            parts[f"s{group_id(key)}"] = _markup(self.part.summary(group_id(key), group))
            parts[f"w{group_id(key)}"] = _markup(self.part.together(group_id(key), group))
        return parts

    # ------------------------------------------------------------------------------------------- dialogs

    def preview(
        self, action: str, selection: Selection, view: View, fields: Sequence[tuple[str, str]], why: str
    ) -> Markup:
        """Return what deciding a selection would do, with the form that does it."""
        found = self.review.preview(action, selection)
        return _markup(self.part.preview(found, fields, query_of(view), why))

    def merging(self, found: MergePreview, upload: str, view: View) -> Markup:
        """Return what another reviewer's file would change, with the form that takes it in."""
        return _markup(self.part.merging(found, upload, query_of(view)))


def _markup(value: Any) -> Markup:
    """Return what a macro returned: it is escaped already."""
    assert isinstance(value, Markup)
    return value


def group_id(key: tuple[str, str]) -> str:
    """Return the id of a group's element."""
    return "g" + hashlib.blake2b(json.dumps(key).encode(), digest_size=6).hexdigest()


def swap(parts: Mapping[str, Markup]) -> str:
    """Pack parts by the id of the element whose place each takes."""
    return "".join(f'<template data-for="{escape(name)}">{part}</template>' for name, part in parts.items())


def make_pages(review: Review, run: Path, by: str, form_token: str) -> Pages:
    """Return the pages of the review of a run by a person, their templates compiled."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    for name in ("count", "percent", "words", "duration"):
        environment.filters[name] = getattr(figures, name)
    functions: dict[str, Callable[..., Any]] = {
        "json_of": _json_of,
        "task": _breaking,
        "losses": losses,
        "told": told,
        "query_of": query_of,
        "query_and": lambda text, **more: _joined(text, more),
        "revision": lambda: review.revision,
    }
    environment.globals.update(
        form_token=form_token,
        form_field=FORM_TOKEN,
        actions=ACTIONS,
        action_words=ACTION_WORDS,
        clear=CLEAR,
        suggested=SUGGESTED,
        levels=LEVELS,
        splits=SPLITS,
        states=STATES,
        state_words=STATE_WORDS,
        sort_words=SORT_WORDS,
        waiting=WAITING,
        num_rows=NUM_ROWS,
        run=str(run),
        name=run.resolve().name,
        by=by,
        split_words=SPLIT_WORDS,
        empty_view=View(),
        **functions,
    )
    for template in ("parts.html.j2", "page.html.j2"):
        environment.get_template(template)
    row = environment.get_template("parts.html.j2").module.row  # type: ignore[attr-defined]
    return Pages(review, environment, functools.lru_cache(MOST_KEPT)(row))


def _shown(value: object) -> object:
    return figures.visible(value) if type(value) is str else value


@functools.lru_cache(MOST_KEPT)
def _breaking(name: str) -> Markup:
    """Return a name that may break behind each of its parts."""
    return Markup("<wbr>").join(figures.parts(figures.visible(name)))


@functools.lru_cache(MOST_KEPT)
def _json_of(*names: str) -> str:
    """Return two names as one text; `names_of` reads it."""
    return json.dumps(names)


def _joined(query: str, more: Mapping[str, object]) -> str:
    return "&".join(part for part in (query, urlencode(more)) if part)


def told(label: str) -> str:
    """Return the label of a step with its action in words."""
    name, _, rest = label.partition(" ")
    return f"{ACTION_WORDS[name][1]} {rest}".rstrip() if name in ACTION_WORDS else label


def losses(row: PairRow) -> dict[str, str]:
    """Return what each action loses, in a line."""
    pair, count = row.pair, figures.count
    hit = min(pair.num_eval, pair.num_hit + pair.num_short_equal)
    supervised = "; the task is trained on as before" if pair.level == "supervised" else ""
    return {
        "keep": f"Nothing goes. {count(hit)} of {count(pair.num_eval)} evaluation examples count as not clean.",
        "drop_train_task": f"All {count(pair.num_train)} train examples of the task go.",
        "drop_eval_task": f"All {count(pair.num_eval)} examples leave the evaluation{supervised}.",
        "drop_train_examples": f"{count(pair.num_train_touched)} of {count(pair.num_train)} train examples go.",
        "drop_eval_examples": f"{count(hit)} of {count(pair.num_eval)} evaluation examples go.",
    }
