"""`taskmill review` as tests drive it: in a process of its own, asked over real connections with any headers.

with serve(run) as server:
    client = Client(server)
    client.enter()
    client.post("/decide", pair='["a", "b"]', action="keep")
"""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from running import ROOT


@dataclass
class Server:
    """A server that runs; `ended` has what it said after it ended."""

    process: subprocess.Popen[str]
    address: str
    ended: dict[str, Any] = field(default_factory=dict)

    @property
    def port(self) -> int:
        """Where it listens."""
        found = urlsplit(self.address).port
        assert found is not None
        return found

    def end(self, number: int = signal.SIGINT) -> None:
        """Send a signal and wait for the end."""
        self.process.send_signal(number)
        self.wait()

    def wait(self) -> None:
        """Wait until it has ended by itself."""
        out, err = self.process.communicate(timeout=30)
        self.ended = {"code": self.process.returncode, "out": out, "err": err}


@contextmanager
def serve(run: Path, *arguments: str) -> Iterator[Server]:
    """Start a server, and end it where the body has not."""
    script = "from taskmill.cli import main\nimport sys\nmain(sys.argv[1:])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script, "review", str(run), "--no-browser", "--by", "ann", *arguments]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            line = process.stdout.readline()
            found = re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", line)
            if found is None:
                process.wait(30)
                raise AssertionError(line + process.stderr.read())
            server = Server(process, found[0])
            yield server
            if not server.ended:
                server.end()
        finally:
            process.kill()


@dataclass
class Answer:
    """What came back."""

    code: int
    headers: Mapping[str, str]
    text: str


class Client:
    """Asks one server, as a browser on the page would, unless told to send other headers."""

    def __init__(self, server: Server) -> None:
        """Know where to ask; nothing is sent yet."""
        self.server, self.cookie, self.form_token = server, "", ""

    def enter(self) -> Answer:
        """Exchange the token for the cookie and read the page."""
        parts = urlsplit(self.server.address)
        let_in = self.ask("GET", f"/?{parts.query}")
        assert let_in.code == 303, let_in
        self.cookie = let_in.headers["Set-Cookie"].partition(";")[0]
        page = self.ask("GET", let_in.headers["Location"])
        found = re.search(r'name="form-token" content="([^"]+)"', page.text)
        assert page.code == 200 and found, page
        self.form_token = found[1]
        return page

    def get(self, path: str, **parameters: str) -> Answer:
        """Ask for a page."""
        return self.ask("GET", path + (f"?{urlencode(parameters)}" if parameters else ""))

    def post(self, path: str, **fields: Any) -> Answer:
        """Send a form as the page's script does; a field may be a list."""
        body = urlencode(fields, doseq=True).encode()
        return self.ask("POST", path, body, {"X-Parts": "1", "X-Form-Token": self.form_token})

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str | None] | None = None,
    ) -> Answer:
        """Send a request; a header of None is left out."""
        sent: dict[str, str | None] = {"Host": f"127.0.0.1:{self.server.port}", "Cookie": self.cookie or None}
        if method == "POST":
            sent |= {"Origin": f"http://127.0.0.1:{self.server.port}", "Sec-Fetch-Site": "same-origin"}
            sent |= {"Content-Type": "application/x-www-form-urlencoded"}
        sent |= headers or {}
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        try:
            connection.putrequest(method, path, skip_host=True)
            for name, value in sent.items():
                if value is not None:
                    connection.putheader(name, value)
            if body is not None and "Content-Length" not in sent:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            found = connection.getresponse()
            return Answer(found.status, dict(found.getheaders()), found.read().decode("utf-8"))
        finally:
            connection.close()
