"""A headless Chromium as tests drive it: the DevTools protocol through two pipes, with the standard library alone."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
SECONDS = 60.0
"""Longest wait for an answer; slow machines start a browser in some seconds."""


def find_browser() -> str | None:
    """Return the program named by TASKMILL_BROWSER, else the first Chromium of the machine, else None."""
    named = os.environ.get("TASKMILL_BROWSER")
    return named or next((path for path in map(shutil.which, PROGRAMS) if path), None)


class Browser:
    """One tab of a headless browser without network; `requests` and `problems` have what the page asked for and said."""

    def __init__(self, program: str, profile: Path) -> None:
        """Start the browser with its profile in a folder of its own.

        Raises:
            OSError: it ends at once, or cannot be started.
        """
        ours, self._reading = _pipe()
        self._writing, theirs = _pipe()
        arguments = [
            program,
            "--headless=new",
            "--remote-debugging-pipe",
            f"--user-data-dir={profile}",
            *("--no-first-run", "--disable-gpu", "--disable-dev-shm-usage", "--disable-extensions"),
            *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            *(["--no-sandbox"] if os.geteuid() == 0 else []),
            "about:blank",
        ]
        null = os.open(os.devnull, os.O_RDWR)
        dup = os.POSIX_SPAWN_DUP2
        actions = [(dup, null, 0), (dup, null, 1), (dup, null, 2), (dup, theirs, 3), (dup, ours, 4)]
        environment = {**os.environ, "HOME": str(profile)}
        self._process = os.posix_spawn(program, arguments, environment, file_actions=actions, setpgroup=0)
        for number in (null, ours, theirs):
            os.close(number)
        self._sent, self._rest, self._session = 0, b"", None
        self.requests: list[str] = []
        self.problems: list[str] = []
        try:
            target = self._call("Target.createTarget", url="about:blank")["targetId"]
            self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Network", "Log"):
                self._call(f"{domain}.enable")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the browser and every process that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        os.close(self._reading)
        os.close(self._writing)

    def show(self, path: Path, width: int, height: int, dark: bool = False) -> None:
        """Open a file at a size in CSS pixels, and wait until it is drawn."""
        self.visit(path.resolve().as_uri(), width, height, dark)

    def visit(self, address: str, width: int, height: int, dark: bool = False) -> None:
        """Open an address, of a file or of a server on 127.0.0.1, and wait until it is drawn."""
        self.requests.clear()
        self.problems.clear()
        size = {"width": width, "height": height, "deviceScaleFactor": 1}
        self._call("Emulation.setDeviceMetricsOverride", **size, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        self._call("Emulation.setFocusEmulationEnabled", enabled=True)
        self._call("Page.navigate", url=address)
        self.run(
            "new Promise(done => { const look = () => document.readyState === 'complete' && location.protocol !== 'about:' ?"
            " requestAnimationFrame(() => requestAnimationFrame(() => done(true))) : setTimeout(look, 20); look(); })"
        )

    def run(self, script: str) -> Any:
        """Return the value of a JavaScript expression in the page; promises are waited for."""
        found = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press(self, key: str) -> None:
        """Press and release a key: one character, or a name such as Enter."""
        code = {"Enter": 13, "Escape": 27, "Tab": 9, "ArrowDown": 40, "ArrowUp": 38, " ": 32}.get(key, 0)
        text = {"text": "\r" if key == "Enter" else key} if len(key) == 1 or key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            event = {
                "type": kind,
                "key": key,
                "windowsVirtualKeyCode": code,
                **(text if kind == "keyDown" else {}),
            }
            self._call("Input.dispatchKeyEvent", **event)

    def choose_file(self, selector: str, path: Path) -> None:
        """Choose a file in the field that a CSS selector names."""
        root = self._call("DOM.getDocument")["root"]["nodeId"]
        node = self._call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self._call("DOM.setFileInputFiles", files=[str(path)], nodeId=node)

    def picture(self, path: Path, whole: bool = False, **clip: float) -> None:
        """Write a PNG of what is seen, of the `whole` page, or of a rectangle x, y, width, height of it."""
        area: dict[str, Any] = {"clip": {"scale": 1, **clip}} if clip else {}
        shot = self._call("Page.captureScreenshot", captureBeyondViewport=whole or bool(clip), **area)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _call(self, method: str, **params: Any) -> Any:
        """Send a command and return its result; events that come before it are kept."""
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": params}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._writing, json.dumps(message).encode() + b"\0")
        ends = time.monotonic() + SECONDS
        while True:
            found = self._read(ends)
            if found.get("id") == self._sent:
                assert "error" not in found, (method, found["error"])
                return found["result"]
            self._keep(found)

    def _read(self, ends: float) -> Any:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._reading], [], [], max(0.0, ends - time.monotonic()))
            assert ready, f"the browser said nothing for {SECONDS:.0f} seconds"
            part = os.read(self._reading, 1 << 16)
            if not part:
                raise BrokenPipeError("the browser ended")
            self._rest += part
        text, _, self._rest = self._rest.partition(b"\0")
        return json.loads(text)

    def _keep(self, event: Any) -> None:
        name, params = event.get("method"), event.get("params", {})
        if name == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif name == "Runtime.exceptionThrown":
            self.problems.append(params["exceptionDetails"]["text"])
        elif name == "Runtime.consoleAPICalled":
            self.problems.append(f"console.{params['type']}")
        elif name == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.problems.append(params["entry"]["text"])
        elif name == "Page.javascriptDialogOpening":
            self.problems.append(f"dialog: {params['message']}")


def _pipe() -> tuple[int, int]:
    """Return the writing and the reading end of a pipe, neither with a number that the browser's own ends will have."""
    reading, writing = os.pipe()
    ends = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (writing, reading))
    os.close(reading)
    os.close(writing)
    return ends[0], ends[1]
