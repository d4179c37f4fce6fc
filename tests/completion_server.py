"""An OpenAI-compatible server of our own on the loopback address, with faults on demand; a real model may be behind it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Writer = Callable[[str, dict[str, Any], int], tuple[str | None, str]]
"""(prompt, body of the request, number of the sample) -> (text, finish_reason)."""


@dataclass
class Fault:
    """What goes wrong with the next `times` requests whose prompt contains `prompt`."""

    kind: str
    """`status`, `drop` (the connection breaks in the body), `slam` (before any answer), `slow`, `drip`,
    `dripping refusal`, `body`."""
    prompt: str = ""
    times: int = 1
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b'{"error": {"message": "not now"}}'
    """What `status` and `body` send; `body` with the status 200."""
    seconds: float = 0.0
    """How long `slow` waits before it answers, and `drip` between bytes."""


def echo(prompt: str, body: dict[str, Any], sample: int) -> tuple[str | None, str]:
    """Write a text that shows what was asked for."""
    seed = body.get("seed")
    return f" {prompt.upper()} {'' if seed is None else seed + sample}", "stop"


class CompletionServer:
    """A server: its faults, and what it was asked."""

    def __init__(self, write: Writer) -> None:
        """Serve until the `with` block of `serve` ends."""
        self.write = write
        self.faults: list[Fault] = []
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.keys: list[str | None] = []
        self.times: list[float] = []
        self.key: str | None = None
        """What a request must show."""
        self.most_samples = 100
        self.refuses: tuple[str, ...] = ()
        """Fields that it knows nothing of."""
        self.most_stop = 4
        self.models = ["tiny", "tiny-chat"]
        self.url = ""
        self.under_way = self.most_under_way = 0
        self.lock = threading.Lock()
        self.closing = threading.Event()

    def fault(self, prompt: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times and fault.prompt in prompt:
                    fault.times -= 1
                    return fault
        return None


@contextlib.contextmanager
def serve(write: Writer = echo) -> Iterator[CompletionServer]:
    """Run a server on a free port of the loopback address."""
    server = CompletionServer(write)

    class Handler(_Handler):
        pass

    Handler.served = server
    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    server.url = f"http://127.0.0.1:{listener.server_address[1]}/v1"
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        listener.shutdown()
        listener.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    served: CompletionServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            super().handle()

    def do_GET(self) -> None:
        self.served.paths.append(self.path)
        if self.path == "/v1/models":
            self._send(200, {"object": "list", "data": [{"id": name} for name in self.served.models]})
        else:
            self._refuse(404, "no such page")

    def do_POST(self) -> None:
        served = self.served
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with served.lock:
            served.paths.append(self.path)
            served.bodies.append(body)
            served.keys.append(self.headers.get("Authorization"))
            served.times.append(time.monotonic())
            served.under_way += 1
            served.most_under_way = max(served.most_under_way, served.under_way)
        try:
            self._post(body)
        finally:
            with served.lock:
                served.under_way -= 1

    def _post(self, body: dict[str, Any]) -> None:
        chat = self.path == "/v1/chat/completions"
        prompt = body["messages"][-1]["content"] if chat else body.get("prompt", "")
        fault = self.served.fault(prompt)
        if fault is not None and self._fail(fault):
            return
        shown = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        unknown = [name for name in self.served.refuses if name in body]
        if self.served.key not in (None, shown):
            self._refuse(401, f"Incorrect API key provided: {shown}", "invalid_api_key")
        elif not chat and self.path != "/v1/completions":
            self._refuse(404, "Not Found")
        elif body["model"] not in self.served.models:
            self._refuse(404, f"The model `{body['model']}` does not exist.", "model_not_found")
        elif unknown:
            self._refuse(422, f"Unrecognized request argument supplied: {unknown[0]}")
        elif len(body.get("stop", [])) > self.served.most_stop:
            self._refuse(400, "'stop' has too many strings")
        else:
            self._send(200, self._answer(body, prompt, chat))

    def _answer(self, body: dict[str, Any], prompt: str, chat: bool) -> dict[str, Any]:
        choices = []
        for sample in range(min(body.get("n", 1), self.served.most_samples)):
            text, reason = self.served.write(prompt, body, sample)
            said = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
            choices.append({"index": sample, "finish_reason": reason, "logprobs": None, **said})
        kind = "chat.completion" if chat else "text_completion"
        name = hashlib.sha256(prompt.encode()).hexdigest()[:8]
        return {"id": f"cmpl-{name}", "object": kind, "model": body["model"], "choices": choices[::-1]}

    def _fail(self, fault: Fault) -> bool:
        """Do what a fault says, and return whether that was all."""
        if fault.kind == "slow":
            self.served.closing.wait(fault.seconds)
            return self.served.closing.is_set()
        if fault.kind == "slam":
            self.close_connection = True
        elif fault.kind == "drop":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"choices": [{"te')
            self.close_connection = True
        elif fault.kind in ("drip", "dripping refusal"):
            self.send_response(200 if fault.kind == "drip" else fault.status)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            for _ in range(1000):
                self.wfile.write(b" ")
                if self.served.closing.wait(fault.seconds):
                    break
            self.close_connection = True
        else:
            self._send(fault.status if fault.kind == "status" else 200, fault.body, fault.headers)
        return True

    def _refuse(self, status: int, message: str, code: str | None = None) -> None:
        self._send(status, {"error": {"message": message, "type": "invalid_request_error", "code": code}})

    def _send(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
