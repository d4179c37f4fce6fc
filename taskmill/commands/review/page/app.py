"""The addresses of the review page and what each does: look with GET, change with POST.

A browser without script gets whole pages, and after a step the way back to the list. The page's script sends the header
X-Parts and gets the parts of the page that changed. Every answer goes through `security` first.
"""

from __future__ import annotations

import functools
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl

import click
from flask import Flask, Response, request
from markupsafe import Markup, escape
from werkzeug.exceptions import HTTPException

from taskmill.commands.figures import visible
from taskmill.commands.review.deciding.state import CLEAR, SUGGESTED, Change, Review, Selection, View
from taskmill.commands.review.page.pages import (
    FOLDER,
    NUM_GROUPS,
    NUM_ROWS,
    Pages,
    group_id,
    make_pages,
    names_of,
    query_of,
    swap,
    told,
    view_of,
)
from taskmill.commands.review.page.security import (
    FORM_TOKEN,
    FORM_TOKEN_HEADER,
    SECURITY_HEADERS,
    Gate,
    refuse,
    refuse_host,
)
from taskmill.errors import BusyError, StaleError, TaskmillError, UsageError
from taskmill.records import ACTIONS

MOST_BYTES = 16 << 20
"""Of a request: a file of decisions."""
MOST_FORM_BYTES = 2 << 20
"""Of the fields of a form."""
MOST_WHY = 2_000
"""Characters of a reason or note."""
MOST_LINES = 20
"""Of an error: a file of decisions may be wrong in every line."""
EVERYTHING = 10**9


@dataclass
class Site:
    """What every answer needs."""

    review: Review
    gate: Gate
    pages: Pages
    end: Callable[[], None]
    """Ends the server."""
    uploads: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """Files that wait for a word about contradictions: id -> (name, bytes); the newest few."""


def make_app(review: Review, run: Path, by: str, gate: Gate, end: Callable[[], None]) -> Flask:
    """Return the application of the review of a run by a person; `end` ends the server."""
    app = Flask("taskmill.review", static_folder=None)
    app.config.update(
        MAX_CONTENT_LENGTH=MOST_BYTES, MAX_FORM_MEMORY_SIZE=MOST_FORM_BYTES, MAX_FORM_PARTS=5_000
    )
    app.logger.disabled = True  # what went wrong is said on the page, in a line
    site = Site(review, gate, make_pages(review, run, by, gate.form), end)
    for address, method, function in ADDRESSES:
        view = functools.partial(function, site)
        app.add_url_rule(
            address, f"{method} {address}", view, methods=[method], provide_automatic_options=False
        )
    app.before_request(functools.partial(_guard, site))
    app.after_request(_protect)
    app.register_error_handler(TaskmillError, functools.partial(_failed, site))
    app.register_error_handler(HTTPException, functools.partial(_http_error, site))
    app.register_error_handler(500, functools.partial(_broken, site))
    return app


# --------------------------------------------------------------------------------------------- guarding


def _guard(site: Site) -> Response | None:
    """Refuse what may not come in; exchange the token of an address for the cookie."""
    gate, token = site.gate, request.args.get("token")
    if (
        request.method == "GET"
        and request.path == "/"
        and token is not None
        and not refuse_host(gate, dict(request.headers))
    ):
        return _let_in(gate) if gate.lets_in(token) else _plain(REFUSED, 403)
    request.max_content_length = MOST_BYTES if request.path == "/merge" else MOST_FORM_BYTES
    cookie = request.cookies.get(gate.cookie, "")
    form_token = request.headers.get(FORM_TOKEN_HEADER, "")
    why = refuse(gate, request.method, dict(request.headers), cookie, form_token or gate.form)
    if not why and request.method == "POST" and not form_token:  # only then is the body worth reading
        why = refuse(gate, request.method, dict(request.headers), cookie, request.form.get(FORM_TOKEN, ""))
    return _plain(why, 403) if why else None


REFUSED = "The token in this address is not that of this server; open the address that the terminal shows."


def _let_in(gate: Gate) -> Response:
    """Give the cookie and lead away from the token.

    A browser that was led here by another site would not send the cookie along on a redirect: it gets a page that leads on.
    """
    if request.headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin"):
        answer = Response("", 303, {"Location": f"{gate.folder}/"})
    else:
        on = f"{gate.folder}/"
        answer = Response(
            f'<!doctype html><meta http-equiv="refresh" content="0;url={on}"><a href="{on}">On</a>'
        )
    answer.set_cookie(gate.cookie, gate.session, httponly=True, samesite="Strict", path=gate.folder)
    return answer


def _protect(answer: Response) -> Response:
    answer.headers.update(SECURITY_HEADERS)
    return answer


def _plain(text: str, code: int) -> Response:
    """Return a page of one line, without style."""
    body = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Taskmill</title><p>{escape(text)}</p></html>'
    return Response(body, code)


# ---------------------------------------------------------------------------------------------- errors


def _wants_parts() -> bool:
    return "X-Parts" in request.headers


def _trouble(site: Site, text: str, code: int) -> Response:
    """Return an error as the page shows it."""
    if _wants_parts():
        return Response(swap({"problem": Markup(site.pages.part.problem(text))}), code)
    try:
        return Response(site.pages.message(text), code)
    except TaskmillError:  # the whole page cannot be shown, and the text says why
        return _plain(text, code)


def _failed(site: Site, error: TaskmillError) -> Response:
    codes = {UsageError: 400, BusyError: 409, StaleError: 409}
    lines = str(error).splitlines()
    left = len(lines) - MOST_LINES
    more = [f"and {left:,} more like these"] if left > 0 else []
    text = "\n".join([*(line[:MOST_WHY] for line in lines[:MOST_LINES]), *more])
    return _trouble(site, visible(text), codes.get(type(error), 500))


def _http_error(site: Site, error: HTTPException) -> Response:
    texts = {
        404: "There is no such page here.",
        405: "This address does not do that.",
        413: f"That is too much at once: at most {MOST_BYTES >> 20} MB of a file.",
    }
    code = error.code or 500
    return _plain(texts.get(code, error.description or error.name), code)


def _broken(site: Site, error: Exception) -> Response:
    cause = getattr(error, "original_exception", None) or error
    text = visible(f"This went wrong and should not: {type(cause).__name__}: {cause}"[:500])
    click.echo(f"taskmill: {request.path}: {text}", err=True)
    return _plain(f"{text}. What was decided is kept.", 500)


# ------------------------------------------------------------------------------------------------ looking


def _view(site: Site) -> View:
    """Return the view of a request: in the parameters of the address, or in the field `view` of a form."""
    given = dict(parse_qsl(request.form.get("view", ""))) if request.method == "POST" else request.args
    return view_of(given, site.review.progress().num_waiting)


def _number(name: str, default: int, most: int) -> int:
    text = request.args.get(name, "")
    return min(most, int(text)) if text.isdecimal() and len(text) < 10 else default


def index(site: Site) -> Response:
    """Show the list of a view."""
    opened = request.args.get("open")
    return Response(
        site.pages.whole(
            _view(site),
            names_of(opened) if opened else None,
            _number("rows", NUM_ROWS, 1_000),
            _number("groups", NUM_GROUPS, 1_000),
        )
    )


def listed(site: Site) -> Response:
    """Return the list of a view, as a part."""
    view = _view(site)
    progress = site.pages.part.progress(site.review.progress(), query_of(view))
    return Response(swap({"list": site.pages.list(view), "progress": Markup(progress)}))


def more_groups(site: Site) -> Response:
    """Return further groups of a view."""
    view, start = _view(site), _number("start", 0, EVERYTHING)
    groups = site.review.groups(view)
    shown = site.pages.groups(view, groups[start : start + NUM_GROUPS])
    more = site.pages.more_groups(view, len(groups), start + NUM_GROUPS)
    return Response(swap({"more-groups": shown + more}))


def rows(site: Site) -> Response:
    """Return the rows of a group from `start`."""
    view, group, start = _view(site), names_of(request.args.get("group", "")), _number("start", 0, EVERYTHING)
    place = f"m{group_id(group)}"
    return Response(swap({place: site.pages.rows(view, group, start)}))


def pair(site: Site) -> Response:
    """Show a pair's evidence, or further items of it."""
    train_task, eval_task = names_of(request.args.get("pair", ""))
    start = _number("start", 0, EVERYTHING)
    if not _wants_parts():
        return Response(site.pages.single(_view(site), train_task, eval_task))
    number = site.review.row(train_task, eval_task).number
    place = f"i{number}" if start else f"e{number}"
    return Response(swap({place: site.pages.evidence(train_task, eval_task, start)}))


def file(site: Site, name: str, kind: str) -> Response:
    """Return the style or the script."""
    return Response((FOLDER / name).read_bytes(), content_type=f"{kind}; charset=utf-8")


# ----------------------------------------------------------------------------------------------- changing


def _pairs(name: str) -> list[tuple[str, str]]:
    return [names_of(text) for text in request.form.getlist(name)]


def _done(site: Site, view: View, said: str) -> Response:
    """Answer a step: with the parts that changed, or the way back to the list."""
    if not _wants_parts():
        return Response(
            "", 303, {"Location": (request.form.get("alone") and _alone(view)) or f"./?{query_of(view)}"}
        )
    parts = site.pages.changed(view, _pairs("shown"), _pairs("opened"), _pairs("groups"))
    parts["said"] = Markup(site.pages.part.said(said))
    parts["problem"] = Markup(site.pages.part.problem(""))
    return Response(swap(parts))


def _alone(view: View) -> str:
    """Return the address of the page of the pair that a form without script is about."""
    return f"pair?{query_of(view, pair=request.form.get('pair', ''))}"


def _why() -> str:
    why = " ".join(request.form.get("why", "").split())
    if len(why) > MOST_WHY:
        raise UsageError(f"the reason has {len(why):,} characters; expected at most {MOST_WHY:,}")
    return why


def _action() -> str:
    action = request.form.get("action", "")
    known = *ACTIONS, CLEAR, SUGGESTED
    if action not in known:
        raise UsageError(f"action: {action[:40]!r} is none; expected one of {', '.join(known)}")
    return action


def _told(change: Change) -> str:
    skipped = f"; {len(change.skipped):,} that somebody decided since stay" if change.skipped else ""
    if not change.number:
        return "Nothing had to be changed"
    return f"{told(change.label)}{skipped or ('' if change.num_pairs else '; it was so already')}"


def decide(site: Site) -> Response:
    """Decide one pair, or take its decision back; where it is decided so already, another reason is kept."""
    view, action, why = _view(site), _action(), _why()
    pair = names_of(request.form.get("pair", ""))
    chosen = Selection(pairs=(pair,), revision=_revision())
    if action == CLEAR:
        return _done(site, view, _told(site.review.clear(chosen)))
    change = site.review.decide(action, chosen, why)
    if not change.number and why:
        change = site.review.note(*pair, why)
    return _done(site, view, _told(change))


def note(site: Site) -> Response:
    """Write the note of a pair."""
    change = site.review.note(*names_of(request.form.get("pair", "")), _why())
    return _done(site, _view(site), _told(change))


def undo(site: Site) -> Response:
    """Take the last step back."""
    return _done(site, _view(site), f"Undone: {_told(site.review.undo())}")


def redo(site: Site) -> Response:
    """Do the step again that was undone last."""
    return _done(site, _view(site), f"Done again: {_told(site.review.redo())}")


def _revision() -> str:
    return request.form.get("revision", "")


def _selection(site: Site, view: View) -> tuple[Selection, list[tuple[str, str]]]:
    """Return what is ticked on the page, and the fields that say so.

    Raises:
        UsageError: nothing is.
    """
    only = request.form.get("waiting_only") == "1"
    kept = [(name, value) for name in ("all", "group", "pair") for value in request.form.getlist(name)]
    kept += [("waiting_only", "1")] if only else []
    kept += [("revision", _revision())]
    if request.form.get("all"):
        return Selection(view=view, waiting_only=only, revision=_revision()), kept
    groups, pairs = _pairs("group"), _pairs("pair")
    if not groups and not pairs:
        raise UsageError("nothing is selected: tick pairs, a data set, or all that the filter shows")
    if len(groups) == 1 and not pairs:
        return Selection(group=groups[0], view=view, waiting_only=only, revision=_revision()), kept
    found = [row.pair.tasks for group in groups for row in site.review.pairs(view, group, 0, EVERYTHING)[0]]
    chosen = tuple(dict.fromkeys([*found, *pairs]))
    return Selection(pairs=chosen, waiting_only=only and bool(groups), revision=_revision()), kept


def preview(site: Site) -> Response:
    """Show what deciding the selection would do; change nothing."""
    view, action = _view(site), _action()
    selection, fields = _selection(site, view)
    shown = site.pages.preview(action, selection, view, fields, _why())
    return _dialog(site, view, shown)


def _dialog(site: Site, view: View, body: Markup) -> Response:
    if _wants_parts():
        parts = {"dialog": body, "problem": Markup(site.pages.part.problem(""))}
        return Response(swap(parts))
    return Response(site.pages.plain(view, body))


def apply(site: Site) -> Response:
    """Do what the preview showed."""
    view, action, token = _view(site), _action(), request.form.get("token", "")
    selection, _ = _selection(site, view)
    if action == CLEAR:
        return _done(site, view, _told(site.review.clear(selection, token)))
    return _done(site, view, _told(site.review.decide(action, selection, _why(), token)))


def merge(site: Site) -> Response:
    """Show what another reviewer's file would change; change nothing."""
    given = request.files.get("file")
    if given is None or not given.filename:
        raise UsageError("no file was chosen: choose another reviewer's decisions.csv")
    name, data = visible(given.filename.replace("\\", "/").rpartition("/")[2])[:100], given.read()
    found = site.review.merge_preview(data, name)
    upload = secrets.token_urlsafe(16)
    site.uploads[upload] = name, data
    for old in list(site.uploads)[:-3]:
        site.uploads.pop(old, None)
    view = _view(site)
    return _dialog(site, view, site.pages.merging(found, upload, view))


def merge_apply(site: Site) -> Response:
    """Take in a file that was shown."""
    upload = request.form.get("upload", "")
    if upload not in site.uploads:
        raise UsageError("the file is not here any more; choose it again")
    name, data = site.uploads[upload]
    choices = dict(_choice(text) for text in request.form.getlist("choice") + _numbered_choices())
    change = site.review.merge(
        data, request.form.get("prefer", ""), choices, name, request.form.get("token", "")
    )
    site.uploads.pop(upload, None)
    return _done(site, _view(site), _told(change))


def _numbered_choices() -> list[str]:
    return [value for name, value in request.form.items() if name.startswith("choice-") and value]


def _choice(text: str) -> tuple[tuple[str, str], str]:
    """Return (pair, mine or theirs) of a field such as `mine ["a/b", "c/d"]`."""
    whose, _, names = text.partition(" ")
    if whose not in ("mine", "theirs"):
        raise UsageError(f"the choice {text[:40]!r} is neither mine nor theirs")
    return names_of(names), whose


def write(site: Site) -> Response:
    """Bring the stage split up to date and show what came of it."""
    view, outcome = _view(site), site.review.write_split()
    body = Markup(site.pages.part.written(outcome, site.review.progress()))
    if not _wants_parts():
        return Response(site.pages.plain(view, body))
    progress = Markup(site.pages.part.progress(site.review.progress(), query_of(view)))
    return Response(swap({"dialog": body, "progress": progress}))


def end(site: Site) -> Response:
    """End the server once this answer is sent."""
    body = Markup(site.pages.part.ended(site.review.progress()))
    answer = Response(swap({"page": body}) if _wants_parts() else site.pages.plain(View(), body))
    answer.call_on_close(site.end)
    return answer


Answer = Callable[..., Response]
ADDRESSES: Sequence[tuple[str, str, Answer]] = (
    ("/", "GET", index),
    ("/list", "GET", listed),
    ("/groups", "GET", more_groups),
    ("/rows", "GET", rows),
    ("/pair", "GET", pair),
    ("/review.css", "GET", functools.partial(file, name="review.css", kind="text/css")),
    ("/review.js", "GET", functools.partial(file, name="review.js", kind="text/javascript")),
    ("/decide", "POST", decide),
    ("/note", "POST", note),
    ("/undo", "POST", undo),
    ("/redo", "POST", redo),
    ("/preview", "POST", preview),
    ("/apply", "POST", apply),
    ("/merge", "POST", merge),
    ("/merge-apply", "POST", merge_apply),
    ("/write", "POST", write),
    ("/end", "POST", end),
)
