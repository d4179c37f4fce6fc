"""A model behind a server: answers in order, patience with faults, failures told, the key shown to nobody."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import torch
import yaml
from completion_server import CompletionServer, Fault, serve
from evaluation_run import WORDS
from running import call

from taskmill.errors import EndpointError, TaskmillError, UsageError
from taskmill.evaluation.answering import generating, posting
from taskmill.evaluation.answering.endpoint import Request, answer, seed_of
from taskmill.evaluation.answering.posting import Server
from taskmill.evaluation.answering.scorer import Scorer
from taskmill.evaluation.answering.stopping import cut
from taskmill.evaluation.asking.fitting import Opening
from taskmill.recipe_evaluate import Endpoint, Sampling
from taskmill.seeding import derive
from taskmill.training.encoding.tokenizer import TextTokenizer

KEY = 'sk-very/secret+key"1'
GREEDY = Sampling()
DRAWN = Sampling(num_samples=3, temperature=0.7, top_p=0.9)
REQUESTS = [Request(f"prompt {number} of some", 16, key=number) for number in range(12)]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[CompletionServer]:
    """A server, without a key, proxies or long waits."""
    for name in (
        "OPENAI_API_KEY",
        "http_proxy",
        "HTTP_PROXY",
        "all_proxy",
        "ALL_PROXY",
        "no_proxy",
        "NO_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(posting, "FIRST_WAIT", 0.01)
    with serve() as running:
        yield running


def endpoint_of(server: CompletionServer, **changes: Any) -> Endpoint:
    return Endpoint(**{"url": server.url, "model": "tiny", "timeout_seconds": 20.0, **changes})


def failure(server: CompletionServer, sampling: Sampling = GREEDY, **changes: Any) -> str:
    with pytest.raises(EndpointError) as told:
        answer(endpoint_of(server, **changes), REQUESTS[:2], sampling)
    assert told.value.exit_code == 1
    return str(told.value)


# ----------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_answers_come_in_the_order_of_the_requests(server: CompletionServer, api: str) -> None:
    server.faults.append(Fault("slow", "prompt 0", seconds=0.3))
    endpoint = endpoint_of(server, api=api, num_requests=4)
    assert answer(endpoint, REQUESTS, GREEDY) == [[request.text.upper()] for request in REQUESTS]
    assert 1 < server.most_under_way <= 4
    assert len(server.bodies) == len(REQUESTS)
    first = next(body for body in server.bodies if "prompt 0" in str(body))
    asked = (
        {"messages": [{"role": "user", "content": REQUESTS[0].text}]}
        if api == "chat"
        else {"prompt": REQUESTS[0].text}
    )
    assert first == {"model": "tiny", "max_tokens": 16, "temperature": 0.0, **asked}
    assert set(server.paths) == {"/v1/chat/completions" if api == "chat" else "/v1/completions"}


def test_no_requests_need_no_server() -> None:
    assert answer(Endpoint("http://127.0.0.1:9/v1", "tiny"), [], GREEDY) == []


def test_samples_are_drawn_at_once_with_a_seed_of_the_key(server: CompletionServer) -> None:
    found = answer(endpoint_of(server), REQUESTS[:2], DRAWN)
    seeds = [seed_of(request.key, 0) for request in REQUESTS[:2]]
    assert found == [
        [f"{request.text.upper()} {seed + n}" for n in range(3)] for request, seed in zip(REQUESTS, seeds)
    ]
    assert all(
        body["n"] == 3 and body["top_p"] == 0.9 and body["temperature"] == 0.7 for body in server.bodies
    )
    assert len(set(seeds)) == 2 and all(0 <= seed < 2**31 for seed in seeds)
    assert seed_of(2**64 - 1, 2) != seed_of(2**64 - 1, 1)


@pytest.mark.parametrize("way", ["ignores", "refuses"])
def test_a_server_that_gives_one_sample_at_a_time_is_asked_again(server: CompletionServer, way: str) -> None:
    if way == "ignores":
        server.most_samples = 1
    else:
        server.refuses = ("n",)
    found = answer(endpoint_of(server, num_requests=1), REQUESTS[:2], DRAWN)
    expected = [[f"{r.text.upper()} {seed_of(r.key, n)}" for n in range(3)] for r in REQUESTS[:2]]
    assert found == expected
    assert len(server.bodies) == (6 if way == "ignores" else 7)


def test_what_a_server_does_not_know_is_left_out_where_answers_stay_the_same(
    server: CompletionServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.refuses = ("seed",)
    assert answer(endpoint_of(server), REQUESTS[:3], DRAWN) == [[r.text.upper()] * 3 for r in REQUESTS[:3]]
    assert "takes no seed" in caplog.text
    server.refuses = ()
    message = b'{"error": {"message": "Unsupported parameter: use \'max_completion_tokens\' instead."}}'
    server.faults.append(Fault("status", status=400, body=message))
    server.bodies.clear()
    answer(endpoint_of(server, api="chat", num_requests=1), REQUESTS[:2], GREEDY)
    names = [[name for name in body if name.startswith("max_")] for body in server.bodies]
    assert names == [["max_tokens"], ["max_completion_tokens"], ["max_completion_tokens"]]


def test_greedy_samples_are_asked_for_once(server: CompletionServer) -> None:
    found = answer(endpoint_of(server), REQUESTS[:2], Sampling(num_samples=3))
    assert found == [[request.text.upper()] * 3 for request in REQUESTS[:2]]
    assert len(server.bodies) == 2 and not any("seed" in body or "n" in body for body in server.bodies)


def test_texts_are_cut_here_whatever_the_server_does(server: CompletionServer) -> None:
    stop = ("", "never", "not", "no", "nor", "OF")
    request = replace(REQUESTS[0], stop=stop)
    assert answer(endpoint_of(server), [request], GREEDY) == [["PROMPT 0"]]
    assert server.bodies[0]["stop"] == ["never", "not", "no", "nor"]
    assert answer(endpoint_of(server), [replace(request, max_new_tokens=0)], DRAWN) == [["", "", ""]]


def test_answers_that_are_withheld_are_empty_and_counted(
    server: CompletionServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.write = lambda prompt, body, sample: (
        (None, "content_filter") if "3" in prompt else (prompt, "stop")
    )
    filtered = b'{"error": {"message": "The prompt was filtered", "code": "content_filter"}}'
    server.faults.append(Fault("status", "prompt 5", status=400, body=filtered))
    for api in ("completions", "chat"):
        found = answer(endpoint_of(server, api=api), REQUESTS[:7], GREEDY)
        assert [i for i, texts in enumerate(found) if texts == [""]] == (
            [3, 5] if api == "completions" else [3]
        )
    assert "2 answers were withheld (content_filter: 1, prompt refused: 1)" in caplog.text


# ----------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    "fault",
    [
        *(Fault("status", status=status, times=2) for status in (408, 429, 500, 502, 503, 504)),
        Fault("drop", times=2),
        Fault("slam", times=2),
        Fault("body", body=b'{"choices": [{"te', times=2),
        Fault("slow", seconds=3.0),
        Fault("drip", seconds=0.05),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.status}" if fault.kind == "status" else fault.kind,
)
def test_passing_faults_are_outlasted(
    server: CompletionServer, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    server.faults.append(replace(fault))
    endpoint = endpoint_of(
        server, num_requests=1, timeout_seconds=1.0 if fault.kind in ("slow", "drip") else 20.0
    )
    assert answer(endpoint, REQUESTS[:3], GREEDY) == [[request.text.upper()] for request in REQUESTS[:3]]
    assert len(server.bodies) == 3 + fault.times
    assert "asking again in" in caplog.text


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_wait_that_the_server_asks_for_is_kept(server: CompletionServer, form: str) -> None:
    after = "1" if form == "seconds" else formatdate(time.time() + 2, usegmt=True)
    server.faults.append(Fault("status", status=429, headers={"Retry-After": after}))
    answer(endpoint_of(server), REQUESTS[:1], GREEDY)
    first, second = server.times
    assert second - first >= (0.9 if form == "seconds" else 0.5)


def test_waits_grow_and_end(server: CompletionServer) -> None:
    server.faults.append(Fault("status", status=503, times=99))
    told = failure(server, num_requests=1)
    assert "HTTP 503 (not now), 8 times in a row" in told and server.url in told and "'tiny'" in told
    waits = np.diff(server.times[:8])
    assert len(server.times) == 8 and waits[-1] > 0.6 and waits[-1] > 2 * waits[0]


@pytest.mark.parametrize(
    "fault, expected",
    [
        (Fault("drop", times=99), "broke off (IncompleteRead"),
        (Fault("slam", times=99), "broke off"),
        (Fault("body", body=b"<html>log in", times=99), "answered no JSON but '<html>log in'"),
        (Fault("slow", seconds=5, times=99), "gave no answer in 0.2 s"),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else "",
)
def test_lasting_faults_are_told(server: CompletionServer, fault: Fault, expected: str) -> None:
    server.faults.append(replace(fault))
    told = failure(server, num_requests=1, timeout_seconds=0.2 if fault.kind == "slow" else 20.0)
    assert expected in told and "3 times in a row" in told
    assert len(server.bodies) == 3


def test_a_server_that_is_not_there_is_told(server: CompletionServer) -> None:
    with serve() as gone:
        url = gone.url
    told = failure(server, url=url)
    assert url in told and "could not be reached" in told and "refused" in told


@pytest.mark.parametrize(
    "status, body, expected",
    [
        (
            400,
            b'{"error": {"message": "context length is 64"}}',
            "context length is 64; the request is not one",
        ),
        (400, b'{"detail": [{"loc": ["stop"]}]}', '[{"loc": ["stop"]}]; the request'),
        (401, b"", "HTTP 401; the key in the environment variable OPENAI_API_KEY is not set"),
        (403, b'{"error": "no"}', "HTTP 403: no; the key"),
        (404, b"<html>\n</html>", "HTTP 404: <html> </html>; look at evaluate.endpoint.model, and"),
        (429, b'{"error": {"message": "quota", "code": "insufficient_quota"}}', "no more credit"),
        (400, b"[" * 100_000, "HTTP 400: [[[["),
    ],
)
def test_refusals_are_told_at_once(server: CompletionServer, status: int, body: bytes, expected: str) -> None:
    server.faults.append(Fault("status", status=status, body=body, times=99))
    told = failure(server, num_requests=1)
    assert expected in told and server.url in told and "'tiny'" in told
    assert len(server.bodies) == 1


def test_a_wrong_model_or_address_is_told_with_what_there_is(server: CompletionServer) -> None:
    told = failure(server, model="tinny")
    assert "does not exist" in told and "did you mean 'tiny'? (it has tiny, tiny-chat)" in told
    assert "which ends where" in failure(server, url=server.url + "/completions")


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"{}",
        b'{"choices": []}',
        b'{"choices": [3]}',
        b'{"choices": [{"text": 3}]}',
        b'{"choices": [{}]}',
        b"null",
    ],
)
def test_answers_of_another_form_are_told(server: CompletionServer, body: bytes) -> None:
    server.faults.append(Fault("body", body=body, times=99))
    told = failure(server)
    assert "does not answer like an OpenAI-compatible server" in told and body.decode() in told


def test_any_patience_may_be_asked_for(server: CompletionServer) -> None:
    assert answer(endpoint_of(server, timeout_seconds=1e300), REQUESTS[:1], GREEDY)


def test_a_refusal_that_never_ends_is_ended(server: CompletionServer) -> None:
    server.faults.append(Fault("dripping refusal", status=400, seconds=0.05, times=99))
    started = time.monotonic()
    assert "HTTP 400; the request" in failure(server, num_requests=1, timeout_seconds=0.3)
    assert time.monotonic() - started < 5


def test_half_a_surrogate_pair_becomes_the_mark_of_what_is_unreadable(server: CompletionServer) -> None:
    body = b'{"choices": [{"text": "a\\ud800b \\ud83d\\ude00"}]}'
    server.faults.append(Fault("body", body=body))
    assert answer(endpoint_of(server, num_requests=1), REQUESTS[:1], GREEDY) == [["a\ufffdb \U0001f600"]]


# -------------------------------------------------------------------------------------------- key


def test_names_of_models_are_shown_in_short_and_without_the_key(
    server: CompletionServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.models = [f"\x1b[31mtiny {KEY}", "x" * 10_000]
    told = failure(server, model="tinny", num_requests=1)
    assert "\x1b" not in told and KEY not in told and "it has [31mtiny ***, xxx" in told and len(told) < 2000


def test_the_key_is_sent_and_shown_nowhere(
    server: CompletionServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")
    server.key = KEY
    endpoint = endpoint_of(server, api_key_variable="MY_KEY", num_requests=1)
    assert answer(endpoint, REQUESTS[:1], GREEDY) == [[REQUESTS[0].text.upper()]]
    assert server.keys == [f"Bearer {KEY}"]
    assert KEY not in repr(Server(endpoint)) and "secret" not in str(endpoint)
    server.key = "another"
    echoes = [
        None,
        Fault("status", status=400, body=json.dumps({"error": {"message": f"{'x' * 290} {KEY}"}}).encode()),
        Fault("status", status=400, body=f"<p>Bearer {KEY}</p>".encode()),
        Fault("status", status=503, body=json.dumps({"error": KEY}).encode(), times=99),
        Fault("status", status=307, headers={"Location": f"http://127.0.0.1:9/?key={KEY}"}),
        Fault("status", status=307, headers={"Location": f"http://127.0.0.1:9/?key={quote(KEY, safe='')}"}),
        Fault("body", body=json.dumps({"choices": KEY}).encode()),
        Fault("body", body=f"no JSON: {KEY}".encode(), times=99),
        Fault("body", body=f'"cut {json.dumps(KEY)[1:-1]}'.encode(), times=99),
    ]
    for echo in echoes:
        server.faults = [echo] if echo else []
        with pytest.raises(TaskmillError) as told:
            answer(endpoint, REQUESTS[:1], GREEDY)
        assert (
            "secret" not in f"{told.value} {told.value!r} {told.value.__cause__!r} {told.value.__context__!r}"
        )
        assert "***" in str(told.value) or "x..." in str(told.value)
    assert "asking again" in caplog.text and "secret" not in caplog.text


def test_a_key_that_is_refused_is_told_by_the_name_of_its_variable(
    server: CompletionServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.key = "right"
    monkeypatch.setenv("OPENAI_API_KEY", "wrong-key")
    told = failure(server)
    assert (
        "Incorrect API key provided: ***; the key in the environment variable OPENAI_API_KEY is refused"
        in told
    )
    monkeypatch.setenv("OPENAI_API_KEY", "k\u00e9y\nmore")
    with pytest.raises(UsageError, match="OPENAI_API_KEY holds no key") as caught:
        answer(endpoint_of(server), REQUESTS[:1], GREEDY)
    assert "more" not in str(caught.value)


def test_redirects_are_not_followed(server: CompletionServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serve() as other:
        for status in (301, 302, 303, 307, 308):
            there = {"Location": f"{other.url}/completions"}
            server.faults.append(Fault("status", status=status, headers=there, body=b""))
            told = failure(server, num_requests=1)
            assert f"HTTP {status}" in told and f"it points to {other.url}" in told
        assert not other.paths


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000",
        "ftp://host/v1",
        "http://",
        "http://h:99999/v1",
        "http://h /v1",
        "",
        "http://.example/v1",
        f"http://{'a' * 64}/v1",
    ],
)
def test_what_is_no_address_is_told(url: str) -> None:
    with pytest.raises(UsageError, match="url is no address"):
        answer(Endpoint(url, "tiny"), REQUESTS[:1], GREEDY)


def test_a_login_in_the_address_is_refused_and_not_shown() -> None:
    with pytest.raises(UsageError, match="holds a login") as told:
        answer(Endpoint("http://user:secret@host/v1", "tiny"), REQUESTS[:1], GREEDY)
    assert "secret" not in str(told.value) and "user" not in str(told.value)


def test_a_key_that_would_go_unencrypted_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for url in (
        "http://127.0.0.1:1/v1",
        "http://localhost/v1",
        "http://[::1]:3/v1",
        "https://far.example/v1",
    ):
        Server(Endpoint(url, "tiny"))
    assert not caplog.text
    Server(Endpoint("http://far.example/v1", "tiny"))
    assert "unencrypted" in caplog.text and "secret" not in caplog.text


def test_proxies_are_for_other_machines(server: CompletionServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
        assert answer(endpoint_of(server), REQUESTS[:1], GREEDY) == [[REQUESTS[0].text.upper()]]
        assert not proxy.paths
        with pytest.raises(EndpointError, match="HTTP 404"):
            answer(Endpoint("http://far.example/v1", "tiny"), REQUESTS[:1], GREEDY)
        assert "http://far.example/v1/completions" in proxy.paths


# ------------------------------------------------------------------------------------ interruption

WAITING = """
import sys
from taskmill.evaluation.answering.endpoint import Request, answer
from taskmill.recipe_evaluate import Endpoint, Sampling
print("asking", flush=True)
try:
    answer(Endpoint(sys.argv[1], "tiny"), [Request("a", 4), Request("b", 4)], Sampling())
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_an_interruption_ends_it_at_once(server: CompletionServer, repository: Path) -> None:
    server.faults.append(Fault("slow", seconds=60, times=9))
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING, server.url],
        env={**os.environ, "PYTHONPATH": str(repository)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 60
    while server.under_way < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert time.monotonic() - begun < 5


def test_other_requests_stop_when_one_fails(server: CompletionServer) -> None:
    server.faults.append(Fault("status", "prompt 0", status=400))
    server.faults.append(Fault("slow", seconds=0.2, times=99))
    with pytest.raises(EndpointError):
        answer(endpoint_of(server, num_requests=2), REQUESTS, GREEDY)
    time.sleep(0.5)
    assert len(server.bodies) <= 4


# ---------------------------------------------------------------------------------------- the page


def test_the_page_says_what_there_is(
    repository: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page = (repository / "docs/endpoints.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| `evaluate\.endpoint\.(\w+)` \|", page, re.MULTILINE)
    assert table == [field.name for field in fields(Endpoint)]
    [recipe] = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    Server(Endpoint(**yaml.safe_load(recipe)["evaluate"]["endpoint"]))
    [command] = re.findall(r"^taskmill (evaluate .*)$", page, re.MULTILINE)
    code, out, err = call(capsys, *command.split(), "--run", str(tmp_path / "run"), "--dry-run")
    assert code == 0 and "waits" in out, err


# ------------------------------------------------------------------------------------ a real model


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("api", ["completions", "chat"])
def test_greedy_answers_equal_those_of_the_same_model_here(
    server: CompletionServer, make_model: Callable[..., Any], tokenizer: TextTokenizer, api: str
) -> None:
    model, lock = make_model(3), threading.Lock()

    def write(prompt: str, body: dict[str, Any], sample: int) -> tuple[str, str]:
        """Answer with transformers' own generation."""
        ids = torch.tensor([tokenizer.backend.encode(prompt, add_special_tokens=False).ids])
        mask, most = torch.ones_like(ids), body["max_tokens"]
        with lock:
            out = model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=most)
        whole = out[0, ids.shape[1] :].tolist()
        ended = tokenizer.eos_id in whole
        kept = whole[: whole.index(tokenizer.eos_id)] if ended else whole
        text = tokenizer.backend.decode(kept, skip_special_tokens=True)
        return cut(text, body.get("stop", ())), "stop" if ended else "length"

    server.write = write
    texts = [" ".join(WORDS[n % 9 : n % 9 + 2 + n % 5]) for n in range(12)]
    stops = [("a", "e"), ("z", "q", "x", "v", "o"), ()]
    requests = [Request(text, 5 + n % 7, stops[n % 3], derive(0, "test", n)) for n, text in enumerate(texts)]
    openings = [
        Opening(
            np.array(tokenizer.backend.encode(r.text, add_special_tokens=False).ids, dtype=np.int32),
            r.max_new_tokens,
            stop=r.stop,
            key=r.key,
        )
        for r in requests
    ]
    scorer = Scorer(model, tokenizer.pad_id, tokenizer.eos_id, 8)
    here = generating.generate(scorer, tokenizer, openings, GREEDY)
    assert answer(endpoint_of(server, api=api, num_requests=4), requests, GREEDY) == here
    assert len({texts[0] for texts in here}) > 5
