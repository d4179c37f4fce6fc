"""Who may ask the review page for anything: a browser on this machine that was given the token.

- The server listens on the loopback address only, and answers only where the Host header names it, so that no name of
  another site can be made to point at it.
- The address that the terminal prints holds a random token. The first request exchanges it for a cookie that no script
  can read and no other site can send, and leads away from the address with the token. Browsers send a cookie to every
  port of a host: so that no other program on this machine is given it, it belongs to a folder with a random name, in
  which the pages are.
- What changes something is a POST, which must come from a page of this server (Sec-Fetch-Site or Origin, and a token
  that only its forms have).
- Pages may load nothing but their own style and script.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

HOSTS = ("127.0.0.1", "localhost")
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Headers of every answer."""
FORM_TOKEN = "form_token"
"""The field of forms that holds `Gate.form`."""
FORM_TOKEN_HEADER = "X-Form-Token"


def _secret() -> str:
    return secrets.token_urlsafe(32)


@dataclass(frozen=True)
class Gate:
    """The secrets of one server."""

    port: int
    token: str = field(default_factory=_secret)
    """In the address that the terminal prints."""
    session: str = field(default_factory=_secret)
    """In the cookie."""
    form: str = field(default_factory=_secret)
    """In the forms of the page."""
    folder: str = field(default_factory=lambda: f"/{secrets.token_urlsafe(16)}")
    """The path below which browsers see the pages, and the one that the cookie is for."""
    once: set[str] = field(default_factory=set)
    """Tokens of addresses that are given to other programs, whose arguments others may see: each is good once."""

    @property
    def cookie(self) -> str:
        """The name of the cookie: of two servers, each has its own."""
        return f"taskmill_review_{self.port}"

    @property
    def address(self) -> str:
        """The address of the page with the token."""
        return f"http://{HOSTS[0]}:{self.port}/?token={self.token}"

    def address_once(self) -> str:
        """Return an address that lets one browser in, once."""
        token = _secret()
        self.once.add(token)
        return f"http://{HOSTS[0]}:{self.port}/?token={token}"

    def lets_in(self, token: str) -> bool:
        """Say whether a token of an address is right; one that is good once is used up."""
        if token in self.once:
            self.once.discard(token)
            return True
        return _same(token, self.token)


def _same(one: str, other: str) -> bool:
    return secrets.compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))


def refuse(gate: Gate, method: str, headers: Mapping[str, str], cookie: str, form_token: str) -> str:
    """Return why a request is refused, "" where it is not.

    Args:
        gate: the secrets of the server.
        method: of the request.
        headers: of the request.
        cookie: the value of the server's cookie, "" where there is none.
        form_token: of a POST, from a field or header.
    """
    wrong = refuse_host(gate, headers)
    if wrong:
        return wrong
    if not _same(cookie, gate.session):
        return "Open the address that the terminal shows: it holds the token that this page asks for."
    if method in ("GET", "HEAD"):
        return ""
    return refuse_origin(gate, headers) or (
        "" if _same(form_token, gate.form) else "The form is not of this server; reload the page."
    )


def refuse_host(gate: Gate, headers: Mapping[str, str]) -> str:
    """Return why the Host header is refused, "" where it names this server."""
    known = [f"{host}:{gate.port}" for host in HOSTS]
    return "" if headers.get("Host", "") in known else f"This server is called {known[0]}."


def refuse_origin(gate: Gate, headers: Mapping[str, str]) -> str:
    """Return why a POST is refused for where it comes from, "" where that is a page of this server.

    A form of a page without referrer has the Origin `null`: then the browser must say that the site is the same.
    """
    origin, site = headers.get("Origin", ""), headers.get("Sec-Fetch-Site", "")
    ours = f"http://{headers.get('Host', '')}"
    foreign = (origin not in ("", "null") and origin != ours) or site not in ("", "same-origin")
    if foreign or (site != "same-origin" and origin != ours):
        return "The request comes from another page than this server's."
    return ""
