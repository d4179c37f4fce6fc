"""Answers of a model behind an OpenAI-compatible server, such as vLLM: generated there, cut here (no torch).

A request is a prompt's text; several are under way at once, and answers come back in the order of the requests. Samples
carry a seed that is a function of the prompt's key, for servers that heed one.

References: the interfaces `POST /completions` and `POST /chat/completions` of OpenAI.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from taskmill import seeding
from taskmill.errors import EndpointError, TaskmillError
from taskmill.evaluation.answering.posting import RefusedError, Server, warn_once
from taskmill.evaluation.answering.stopping import cut
from taskmill.recipe_evaluate import Endpoint, Sampling

log = logging.getLogger("taskmill")

MOST_STOP_STRINGS = 4
"""OpenAI's limit; the others cut the text here."""
_PATHS = {"completions": "/completions", "chat": "/chat/completions"}


@dataclass(frozen=True)
class Request:
    """A prompt to be answered."""

    text: str
    max_new_tokens: int
    stop: tuple[str, ...] = ()
    """Strings that end an answer, themselves left out."""
    key: int = 0
    """64-bit key of what is drawn for it."""


def answer(endpoint: Endpoint, requests: Sequence[Request], sampling: Sampling) -> list[list[str]]:
    """Return `num_samples` texts for each request, cut before their first stop string, without outer spaces.

    At temperature 0 a request is sent once and all its texts are the same. An answer that the server withholds is the
    empty text, and counted in the log.

    Raises:
        EndpointError: the server cannot be reached, refuses a request, or answers something else.
        UsageError: the address or the key cannot be used.
    """
    asked = _Asked(Server(endpoint), endpoint, sampling)
    done: queue.SimpleQueue[tuple[int, list[str] | TaskmillError | None]] = queue.SimpleQueue()
    numbers = iter(range(len(requests)))
    lock, stopped = threading.Lock(), threading.Event()

    def work() -> None:
        while not stopped.is_set():
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            found: list[str] | TaskmillError | None = None
            try:
                found = asked.texts(requests[number], stopped)
            except TaskmillError as error:
                found = error
                stopped.set()
            finally:
                done.put((number, found))

    # Daemons: one that waits for an answer never keeps an interrupted program from ending.
    for _ in range(min(endpoint.num_requests, len(requests))):
        threading.Thread(target=work, daemon=True).start()
    texts: list[list[str]] = [[] for _ in requests]
    try:
        for _ in requests:
            number, found = _next(done)
            if isinstance(found, TaskmillError):
                raise found
            assert found is not None, "a thread failed; its traceback is above"
            texts[number] = found
    finally:
        stopped.set()
    asked.report()
    return texts


def _next(done: queue.SimpleQueue[Any]) -> Any:
    """Wait for the next result; waking up now and then lets an interruption through on every system."""
    while True:
        try:
            return done.get(timeout=1.0)
        except queue.Empty:
            continue


class _Asked:
    """A server with what is known of the requests that it takes."""

    def __init__(self, server: Server, endpoint: Endpoint, sampling: Sampling) -> None:
        self.server, self.endpoint, self.sampling = server, endpoint, sampling
        self.num_drawn = sampling.num_samples if sampling.temperature > 0 else 1
        self.at_once = self.num_drawn
        """Samples that a request asks for."""
        self.takes_seed = True
        self.length_name = "max_tokens"
        self.withheld: Counter[str] = Counter()
        self.lock = threading.Lock()

    def texts(self, request: Request, stopped: threading.Event) -> list[str]:
        """Return the texts of a request, by as many requests as the server needs for them."""
        if request.max_new_tokens < 1:
            return [""] * self.sampling.num_samples
        found: list[str] = []
        while len(found) < self.num_drawn:
            wanted = min(self.at_once, self.num_drawn - len(found))
            given = self._ask(request, len(found), wanted, stopped)[:wanted]
            if len(given) < wanted:
                self._one_by_one("gives fewer samples than it is asked for")
            found += given
        texts = [cut(text, request.stop).strip() for text in found]
        return texts * (self.sampling.num_samples if self.num_drawn == 1 else 1)

    def _ask(self, request: Request, sample: int, wanted: int, stopped: threading.Event) -> list[str]:
        path = _PATHS[self.endpoint.api]
        while True:
            body = self._body(request, sample, wanted)
            try:
                found = self.server.post(path, body, stopped)
            except RefusedError as error:
                if error.code == "content_filter":
                    self._withhold("prompt refused")
                    return [""] * wanted
                wanted = self._adapted(error, body, wanted)
                if self._body(request, sample, wanted) == body:
                    raise
            else:
                return self._choices(found)

    def _body(self, request: Request, sample: int, wanted: int) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self.endpoint.model}
        if self.endpoint.api == "chat":
            body["messages"] = [{"role": "user", "content": request.text}]
        else:
            body["prompt"] = request.text
        body[self.length_name] = request.max_new_tokens
        body["temperature"] = self.sampling.temperature
        stop = [string for string in request.stop if string][:MOST_STOP_STRINGS]
        if stop:
            body["stop"] = stop
        if self.sampling.temperature > 0:
            if self.sampling.top_p < 1:
                body["top_p"] = self.sampling.top_p
            if wanted > 1:
                body["n"] = wanted
            if self.takes_seed:
                body["seed"] = seed_of(request.key, sample)
        return body

    def _adapted(self, error: RefusedError, body: dict[str, Any], wanted: int) -> int:
        """Change what a server objects to, where answers stay the same, and return the samples to ask it for."""
        if error.status not in (400, 422):
            return wanted
        if "max_completion_tokens" in error.said and self.endpoint.api == "chat":
            self.length_name = "max_completion_tokens"
        elif "seed" in error.said.lower().split() and "seed" in body:
            self._without_seed()
        elif wanted > 1:
            self._one_by_one("refuses to give several samples at once")
            return 1
        return wanted

    def _one_by_one(self, problem: str) -> None:
        with self.lock:
            if self.at_once > 1:
                warn_once(f"{self.server.address('')} {problem}; it is asked for one at a time")
                self.at_once = 1

    def _without_seed(self) -> None:
        with self.lock:
            if self.takes_seed:
                warn_once(f"{self.server.address('')} takes no seed; samples differ each time")
                self.takes_seed = False

    def _choices(self, found: Any) -> list[str]:
        """Return the texts of an answer, in their order there.

        Raises:
            EndpointError: it holds none.
        """
        choices = found.get("choices") if isinstance(found, dict) else None
        if not isinstance(choices, list) or not choices or not all(isinstance(c, dict) for c in choices):
            raise self._strange(found, "a list `choices` that holds some")
        order = [c.get("index") for c in choices]
        if all(isinstance(place, int) for place in order):
            choices = [choices[i] for i in sorted(range(len(order)), key=order.__getitem__)]
        return [self._text(choice, found) for choice in choices]

    def _text(self, choice: dict[str, Any], found: Any) -> str:
        chat = self.endpoint.api == "chat"
        holder = choice.get("message") if chat else choice
        name = "content" if chat else "text"
        if not isinstance(holder, dict) or not (chat or name in holder):
            raise self._strange(found, "`message.content`" if chat else "`text` in each choice")
        text, reason = holder.get(name), str(choice.get("finish_reason"))
        if text is not None and not isinstance(text, str):
            raise self._strange(found, f"a text as `{name}`")
        if text is None or reason == "content_filter":
            self._withhold(reason)
        return _whole(text or "")

    def _strange(self, found: Any, expected: str) -> EndpointError:
        address = self.server.address(_PATHS[self.endpoint.api])
        return EndpointError(
            f"{address} (model {self.endpoint.model!r}) does not answer like an OpenAI-compatible server: expected "
            f"{expected}, found {self.server.shown(found)}; look at evaluate.endpoint.url and evaluate.endpoint.api"
        )

    def _withhold(self, reason: str) -> None:
        with self.lock:
            self.withheld[reason] += 1

    def report(self) -> None:
        """Log the answers that came without text."""
        if self.withheld:
            reasons = ", ".join(f"{reason}: {num}" for reason, num in sorted(self.withheld.items()))
            log.warning("endpoint: %d answers were withheld (%s)", sum(self.withheld.values()), reasons)


def _whole(text: str) -> str:
    """Return a text with the mark of what is unreadable for halves of surrogate pairs, which JSON may hold and no table can."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def seed_of(key: int, sample: int) -> int:
    """Return the seed of a sample, below 2**31: what every server takes."""
    keys = np.array([key & 0xFFFFFFFFFFFFFFFF], dtype=np.uint64)
    return int(seeding.derive_each(keys, np.array([sample]))[0] >> np.uint64(33))
