"""The command `review`: serve the review page of a run on the loopback address until it is ended.

Reads and writes through `state.Review`. The address with its token is printed once, on stdout.

    review(Path("runs/demo"), by="ann", port=0, open_browser=False)
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import getpass
import logging
import os
import socket
import sys
import threading
import time
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from taskmill.commands.figures import counted
from taskmill.errors import UsageError

if TYPE_CHECKING:
    from taskmill.commands.review.deciding.state import Review

NUM_THREADS = 4
PATIENCE = {"connection_limit": 500, "channel_timeout": 30, "asyncore_use_poll": True}
"""For connections that ask for nothing: other programs on the machine must not keep the reviewer out with them."""
LAST_SECONDS = 0.5
"""How long the server may go on sending after it was ended from the page."""


def review(run: Path, by: str | None, port: int, open_browser: bool) -> None:
    """Serve the page until it is ended there, or with Ctrl-C.

    Args:
        run: the run directory.
        by: who decides; None for the login name.
        port: on the loopback address; 0 for a free one.
        open_browser: show the page in the browser of the machine, where there is one.

    Raises:
        UsageError: there is nothing to review, the port is taken, or a package of the core is not installed.
        DamagedError: a table of the run is damaged.
    """
    try:
        from waitress import create_server

        from taskmill.commands.review.page.app import MOST_BYTES, make_app
    except ModuleNotFoundError as error:  # on a machine that was set up for training alone
        if error.name not in ("flask", "waitress"):
            raise
        raise UsageError(
            f"the review page needs the package {error.name}: run `pip install {error.name}`"
        ) from error
    from taskmill.commands.review.deciding.state import Review
    from taskmill.commands.review.page.security import Gate

    who = _login() if by is None else by.strip()
    state = Review(run, who)
    before = state.progress().num_mine
    logging.getLogger("waitress").setLevel(logging.CRITICAL + 1)
    listener, ended = _listening(port), threading.Event()
    gate = Gate(listener.getsockname()[1])
    app = make_app(state, run, who, gate, ended.set)
    options: dict[str, Any] = {"threads": NUM_THREADS, "ident": None, "max_request_body_size": 4 * MOST_BYTES}
    options |= {"url_prefix": gate.folder, **PATIENCE}
    server = create_server(app, sockets=[listener], **options)
    try:
        threading.Thread(target=server.run, daemon=True, name="review").start()
        threading.Thread(target=_warm, args=(state,), daemon=True, name="warm").start()
        click.echo(f"The review page of {run}: {gate.address}")
        click.echo(
            "Keep this address to yourself: it lets in whoever has it. Ctrl-C ends the review.", err=True
        )
        if open_browser:
            _open(gate.address_once())
        ended.wait()
        time.sleep(LAST_SECONDS)
    finally:
        atexit.register(_leave, _exit_code(sys.exc_info()[0]))
        _say_what_is_next(run, state, before)


def _exit_code(stopped: type[BaseException] | None) -> int:
    """Return what the process ends with: after the end on the page, Ctrl-C, an error, or a request to end (SIGTERM)."""
    if stopped is None or stopped is KeyboardInterrupt:
        return 130 if stopped else 0
    return 1 if issubclass(stopped, Exception) else 143


def _leave(code: int) -> None:
    """End the process last of all, whatever the server's threads are in the middle of: what they write is whole or absent."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _warm(state: Review) -> None:
    """Read ahead, then let the garbage collector leave the pairs alone: going through them all takes long."""
    state.warm()
    gc.collect()
    gc.freeze()


def _login() -> str:
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):
        return ""


def _listening(port: int) -> socket.socket:
    """Return a socket on the loopback address.

    Raises:
        UsageError: the port cannot be had.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        listener.close()
        raise UsageError(
            f"--port: cannot listen on 127.0.0.1:{port}: {error.strerror or error}; leave --port away for a free one"
        ) from error
    return listener


def _open(address: str) -> None:
    """Open a browser with windows of its own, if there is one; a browser in the terminal would take that over."""
    try:
        browser = webbrowser.get()
    except webbrowser.Error:
        return
    if not isinstance(browser, webbrowser.GenericBrowser) or isinstance(
        browser, webbrowser.BackgroundBrowser
    ):
        browser.open(address)


def _say_what_is_next(run: Path, state: Review, before: int) -> None:
    """Print how many decisions are there now, and the next command."""
    from taskmill.splits.deciding.decision_files import FILE

    progress = state.progress()
    made = progress.num_mine - before
    new = f", {made:,} of them new" if made > 0 else ""
    hold = "holds" if progress.num_mine == 1 else "hold"
    click.echo(f"{counted(progress.num_mine, 'decisions')} of yours {hold} in {run / FILE}{new}")
    if progress.num_waiting:
        click.echo(
            f"{counted(progress.num_waiting, 'pairs')} still undecided; go on with: taskmill review {run}"
        )
    else:
        again = " --force" if progress.split == "stale" else ""
        click.echo(f"nothing waits; continue with: taskmill run {run}{again}")
