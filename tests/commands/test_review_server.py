"""The review page over real connections: who is let in, what is refused, and that looking changes nothing."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from review_run import make_review_run, make_stopped_run
from review_server import Client, Server, serve
from running import call, taskmill

from taskmill.commands.review.page.security import Gate
from taskmill.runs import RunLock

POSTS = (
    "/decide",
    "/note",
    "/undo",
    "/redo",
    "/preview",
    "/apply",
    "/merge",
    "/merge-apply",
    "/write",
    "/end",
)


def decided(run: Path) -> dict[tuple[str, str], str]:
    """What people have decided."""
    path = run / "decisions.csv"
    if not path.is_file():
        return {}
    rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    return {(row["train_task"], row["eval_task"]): row["action"] for row in rows}


def files(run: Path) -> dict[str, bytes]:
    """Every file of a run but its lock."""
    return {
        str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != ".lock"
    }


def pairs_of(page: str) -> list[str]:
    """The pairs that a page shows, as its forms name them."""
    import html
    import re

    return [html.unescape(found) for found in re.findall(r'name="pair" id="c\d+" value="([^"]+)"', page)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with some dozens of pairs; to be copied."""
    return make_review_run(tmp_path_factory.mktemp("made"), 60)


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A run of one's own."""
    return Path(shutil.copytree(made, tmp_path / "run"))


@pytest.fixture(scope="module")
def server(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for requests that change nothing."""
    run = Path(shutil.copytree(made, tmp_path_factory.mktemp("server") / "run"))
    with serve(run) as found:
        yield found


@pytest.fixture
def client(server: Server) -> Client:
    """A browser that is let in."""
    found = Client(server)
    found.enter()
    return found


# ------------------------------------------------------------------------------------------- who may ask


def test_the_token_becomes_a_cookie_that_no_script_and_no_other_site_can_use(server: Server) -> None:
    client = Client(server)
    let_in = client.ask("GET", f"/?{server.address.partition('?')[2]}")
    folder = let_in.headers["Location"].rstrip("/")
    assert let_in.code == 303 and let_in.text == ""
    assert len(folder) >= 20, (
        "other servers on 127.0.0.1 are sent the cookie only below a path that nobody guesses"
    )
    cookie = let_in.headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Strict", f"Path={folder}"} <= {part.strip() for part in cookie.split(";")}
    assert cookie.startswith(f"taskmill_review_{server.port}=")
    token = server.address.partition("token=")[2]
    assert len(token) >= 40 and token not in cookie and token not in client.enter().text


def test_a_browser_that_another_site_led_here_gets_a_page_that_leads_on(server: Server) -> None:
    path = f"/?{server.address.partition('?')[2]}"
    found = Client(server).ask("GET", path, None, {"Sec-Fetch-Site": "cross-site"})
    assert found.code == 200 and "Set-Cookie" in found.headers and "url=/" in found.text


@pytest.mark.parametrize(
    "path",
    ["/", "/list", "/rows", "/pair", "/review.css", "/review.js", "/none", "/?token=wrong", "/?token="],
)
def test_without_the_token_nothing_is_shown(server: Server, path: str) -> None:
    for cookie in (None, f"taskmill_review_{server.port}=guess", f"taskmill_review_{server.port}="):
        found = Client(server).ask("GET", path, None, {"Cookie": cookie})
        assert found.code == 403 and "Set-Cookie" not in found.headers and len(found.text) < 400
        assert found.headers["Content-Security-Policy"].startswith("default-src 'none'")


@pytest.mark.parametrize("path", POSTS)
def test_a_post_must_come_from_the_page(client: Client, path: str) -> None:
    ours = f"http://127.0.0.1:{client.server.port}"
    refused = [
        {"Origin": "http://evil.example", "Sec-Fetch-Site": None},
        {"Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"},
        {"Origin": ours, "Sec-Fetch-Site": "cross-site"},
        {"Origin": ours, "Sec-Fetch-Site": "same-site"},
        {"Origin": f"http://127.0.0.1:{client.server.port + 1}", "Sec-Fetch-Site": None},
        {"Origin": f"https://127.0.0.1:{client.server.port}", "Sec-Fetch-Site": None},
        {"Origin": "null", "Sec-Fetch-Site": None},
        {"Origin": None, "Sec-Fetch-Site": None},
        {"X-Form-Token": "guess"},
        {"X-Form-Token": None},
        {"Cookie": None},
    ]
    for headers in refused:
        body = b"pair=%5B%22a%22%2C%22b%22%5D&action=keep"
        found = client.ask("POST", path, body, {"X-Form-Token": client.form_token, **headers})
        assert found.code == 403, (headers, found.text)


def test_a_form_of_the_page_without_script_is_taken(client: Client) -> None:
    body = f"form_token={client.form_token}&pair=%5B%22a%22%2C%22b%22%5D&action=keep".encode()
    found = client.ask("POST", "/preview", body, {"Origin": "null"})
    assert found.code == 400 and "<html" in found.text  # let in: the pair is what is wrong
    assert (
        client.ask("POST", "/preview", body.replace(b"form_token=", b"form_token=x"), {"Origin": "null"}).code
        == 403
    )


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{port}",
        "127.0.0.1",
        "127.0.0.1:1",
        "127.0.0.1.evil.example:{port}",
        "",
        None,
        "[::1]:{port}",
    ],
)
def test_another_name_of_the_server_is_refused(client: Client, host: str | None) -> None:
    name = host.format(port=client.server.port) if host is not None else None
    for method, path in (
        ("GET", "/"),
        ("GET", f"/?{client.server.address.partition('?')[2]}"),
        ("POST", "/undo"),
    ):
        found = client.ask(
            method, path, b"" if method == "POST" else None, {"Host": name, "X-Form-Token": client.form_token}
        )
        assert found.code in (400, 403) and "Set-Cookie" not in found.headers, found
    assert client.ask("GET", "/", None, {"Host": f"localhost:{client.server.port}"}).code == 200


def test_it_listens_on_the_loopback_address_alone(server: Server) -> None:
    own = socket.gethostbyname(socket.gethostname())
    for address in {own, "127.0.0.2"} - {"127.0.0.1"}:
        with socket.socket() as other, pytest.raises(OSError):
            other.settimeout(2)
            other.connect((address, server.port))


def test_an_address_for_another_program_is_good_once() -> None:
    gate = Gate(8000)
    token = gate.address_once().partition("token=")[2]
    assert gate.lets_in(token) and not gate.lets_in(token) and not gate.lets_in("")
    assert gate.lets_in(gate.token) and gate.lets_in(gate.token) and not gate.lets_in(gate.session)
    assert len({gate.token, gate.session, gate.form, token, Gate(8000).token}) == 5


# --------------------------------------------------------------------------------------- what is answered


def test_every_answer_forbids_what_a_page_could_be_made_to_do(client: Client) -> None:
    pages = [
        client.get(path)
        for path in ("/", "/?state=all", "/?state=none", "/nowhere", "/review.css", "/review.js")
    ]
    assert [page.code for page in pages] == [200, 200, 400, 404, 200, 200]
    for page in [*pages, client.post("/undo"), client.ask("GET", "/", None, {"Host": "x"})]:
        policy = dict(
            part.strip().partition(" ")[::2] for part in page.headers["Content-Security-Policy"].split(";")
        )
        assert policy == {
            "default-src": "'none'",
            **{f"{name}-src": "'self'" for name in ("style", "script", "connect")},
            "img-src": "'self' data:",
            "form-action": "'self'",
            "frame-ancestors": "'none'",
            "base-uri": "'none'",
        }
        assert (
            page.headers["Cache-Control"] == "no-store" and page.headers["Referrer-Policy"] == "no-referrer"
        )
        assert page.headers["X-Content-Type-Options"] == "nosniff" and "Server" not in page.headers
        assert "Access-Control-Allow-Origin" not in page.headers
    assert not {"style=", "onclick=", "<style"} & {
        part for part in ("style=", "onclick=", "<style") if part in pages[1].text
    }


@pytest.mark.parametrize(
    "path",
    [
        "/../recipe.json",
        "/%2e%2e/recipe.json",
        "/recipe.json",
        "/decisions.csv",
        "/review.css/../../state.py",
        "/static/x",
        "//etc/passwd",
        "/page.html.j2",
        "/console",
    ],
)
def test_no_other_file_is_served(client: Client, path: str) -> None:
    found = client.get(path)
    assert found.code in (404, 308) and "Traceback" not in found.text and len(found.text) < 500


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"])
def test_other_methods_do_nothing(client: Client, method: str) -> None:
    headers = {"X-Form-Token": client.form_token, "Origin": f"http://127.0.0.1:{client.server.port}"}
    assert client.ask(method, "/decide", b"", headers).code in (400, 403, 405)


def test_looking_changes_nothing(run: Path) -> None:
    with serve(run) as server:
        client = Client(server)
        page = client.enter()
        before, pair = files(run), pairs_of(page.text)[0]
        for path in ("/", "/list", "/groups", *POSTS):
            client.get(path, pair=pair, action="keep", state="all")
        group = json.dumps(["one set", "one set"])
        for path, parameters in (
            ("/rows", {"group": group}),
            ("/pair", {"pair": pair}),
            ("/pair", {"pair": pair, "start": "1"}),
        ):
            assert client.get(path, **parameters).code == 200
        assert client.post("/preview", pair=pair, action="keep").code == 200
        assert client.ask("HEAD", "/").code == 200
        assert files(run) == before


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"pair": "no json", "action": "keep"}, "two names"),
        ({"pair": '["a"]', "action": "keep"}, "two names"),
        ({"pair": "[" * 100_000, "action": "keep"}, "two names"),
        ({"pair": '["a", "b"]', "action": "keep"}, "share nothing"),
        ({"pair": '["a", "b"]', "action": "drop everything"}, "expected one of keep"),
        ({"action": "keep"}, "two names"),
        ({"pair": '["a", "b"]', "action": "keep", "why": "x" * 3000}, "expected at most 2,000"),
        ({"pair": '["a", "b"]', "action": "keep", "view": "state=nowhere"}, "expected one of waiting"),
    ],
)
def test_a_request_that_makes_no_sense_is_one_clear_line(
    client: Client, fields: dict[str, str], said: str
) -> None:
    found = client.post("/decide", **fields)
    assert found.code == 400 and said in found.text and 'id="problem"' in found.text
    plain = client.ask("GET", "/pair?pair=%22%3Cscript%3E%22")
    assert plain.code == 400 and "<script>" not in plain.text.replace(
        '<script type="module" src="review.js"></script>', ""
    )


def test_bodies_are_bounded(client: Client) -> None:
    big = b"why=" + b"x" * (3 << 20)
    assert client.ask("POST", "/decide", big, {"X-Form-Token": client.form_token}).code == 413
    assert (
        client.ask(
            "POST", "/decide", b"x", {"X-Form-Token": client.form_token, "Content-Length": str(1 << 40)}
        ).code
        == 413
    )
    many = "&".join(["pair=x"] * 200_000).encode()
    assert client.ask("POST", "/preview", many, {"X-Form-Token": client.form_token}).code in (400, 413)
    assert client.get("/").code == 200


def test_a_merge_takes_a_file_and_no_other_name(client: Client) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="../../evil\\x<b>.csv"\r\n\r\n'
    body = head + b"not,decisions\r\n--b--\r\n"
    headers = {
        "X-Form-Token": client.form_token,
        "X-Parts": "1",
        "Content-Type": "multipart/form-data; boundary=b",
    }
    found = client.ask("POST", "/merge", body, headers)
    assert found.code == 400 and "x&lt;b&gt;.csv" in found.text and "../" not in found.text
    assert client.post("/merge-apply", upload="nothing", prefer="mine").code == 400


# ------------------------------------------------------------------------------------------ steps, and ends


def test_steps_are_written_at_once_and_two_servers_see_each_other(run: Path) -> None:
    with serve(run) as one, serve(run, "--by", "bob") as two:
        ann, bob = Client(one), Client(two)
        first, second = pairs_of(ann.enter().text)[:2]
        bob.enter()
        assert ann.post("/decide", pair=first, action="keep", why="fine").code == 200
        assert decided(run) == {tuple(json.loads(first)): "keep"}
        assert "fine" in bob.post("/decide", pair=second, action="drop_eval_examples", shown=[first]).text
        assert len(decided(run)) == 2
        assert ann.post("/undo").code == 200
        assert bob.post("/undo").code == 200
        assert decided(run) == {}
        assert Client(two).ask("GET", "/", None, {"Cookie": ann.cookie}).code == 403


def test_another_reason_is_kept_where_the_decision_is_the_same(run: Path) -> None:
    with serve(run) as server:
        client = Client(server)
        pair = pairs_of(client.enter().text)[0]
        for why in ("first", "second"):
            assert client.post("/decide", pair=pair, action="keep", why=why).code == 200
        assert (run / "decisions.csv").read_text(encoding="utf-8").endswith(",second\n")


def test_a_file_that_is_wrong_in_every_line_is_named_on_a_short_page(run: Path) -> None:
    with serve(run) as server:
        client = Client(server)
        client.enter()
        head = "train_task,eval_task,action,evidence\n"
        (run / "decisions.csv").write_text(head + "a,b,kep,x\n" * 60, encoding="utf-8")
        for found in (client.get("/"), client.post("/undo")):
            assert found.code == 400 and "decisions.csv:2: " in found.text, found
            assert "more like these" in found.text and len(found.text) < 50_000


def test_a_step_is_refused_while_another_process_writes_the_run(run: Path) -> None:
    with serve(run) as server:
        client = Client(server)
        pair = pairs_of(client.enter().text)[0]
        with RunLock(run):
            found = client.post("/decide", pair=pair, action="keep")
            assert (
                found.code == 409 and "being written by another process" in found.text and decided(run) == {}
            )
            assert "The split is not written" in client.post("/write").text
        assert client.post("/decide", pair=pair, action="keep").code == 200
        (run / "decisions.csv").write_text("nonsense", encoding="utf-8")
        found = client.post("/decide", pair=pair, action="keep")
        assert found.code == 400 and "decisions.csv" in found.text
        assert (run / "decisions.csv").read_text(encoding="utf-8") == "nonsense"
        (run / "decisions.csv").unlink()
    assert "Traceback" not in server.ended["err"]


def test_damage_is_one_line_on_the_page(run: Path) -> None:
    with serve(run) as server:
        client = Client(server)
        pair = pairs_of(client.enter().text)[0]
        for path in run.glob("tasks/examples/*.parquet"):
            path.write_bytes(b"PAR1 nothing PAR1")
        found = client.ask("GET", f"/pair?{urlencode({'pair': pair})}", None, {"X-Parts": "1"})
        assert found.code == 500 and ".parquet" in found.text and "Traceback" not in found.text
        assert client.post("/decide", pair=pair, action="keep").code == 200
    assert "Traceback" not in server.ended["err"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_at_once_with_all_that_was_decided(run: Path, number: int, code: int) -> None:
    with serve(run) as server:
        client = Client(server)
        pair = pairs_of(client.enter().text)[0]
        client.post("/decide", pair=pair, action="keep")
        server.end(number)
    assert server.ended["code"] == code and decided(run) == {tuple(json.loads(pair)): "keep"}
    assert f"taskmill review {run}" in server.ended["out"] and "still undecided" in server.ended["out"]
    assert "Traceback" not in server.ended["err"]


def test_the_page_can_end_it(run: Path) -> None:
    with serve(run) as server:
        client = Client(server)
        client.enter()
        assert "The review has ended" in client.post("/end").text
        server.wait()
    assert server.ended["code"] == 0 and "Traceback" not in server.ended["err"]


def test_what_cannot_be_reviewed_is_said(
    tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(capsys, "review", str(tmp_path / "none"), "--no-browser")
    assert code == 2 and "there is no run" in err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        code, _, err = call(capsys, "review", str(run), "--no-browser", "--port", port)
    assert code == 2 and f"cannot listen on 127.0.0.1:{port}" in err


def test_without_script_forms_lead_back_to_the_list(tmp_path: Path) -> None:
    run = make_stopped_run(tmp_path)
    with serve(run) as server:
        client = Client(server)
        pairs = pairs_of(client.enter().text)

        def send(path: str, **fields: str) -> tuple[int, str]:
            body = urlencode({"form_token": client.form_token, **fields}, doseq=True).encode()
            found = client.ask("POST", path, body, {"Origin": "null"})
            return found.code, found.headers.get("Location", found.text)

        assert send("/decide", pair=pairs[0], action="keep", view="state=all&text=own") == (
            303,
            "./?state=all&text=own",
        )
        code, page = send(
            "/preview", all="1", action="drop_train_examples", waiting_only="1", view="state=all"
        )
        assert code == 200 and "<dialog" in page and 'name="token"' in page
        code, page = send("/write", view="")
        assert code == 200 and "The split is not written" in page
        code, there = send(
            "/apply", all="1", action="drop_train_examples", waiting_only="1", view="state=all"
        )
        assert (code, there) == (303, "./?state=all") and set(decided(run).values()) == {
            "keep",
            "drop_train_examples",
        }
        code, page = send("/write", view="")
        assert code == 200 and "The split is written" in page
    assert (run / "splits/manifest.json").is_file()
    assert "nothing waits; continue with: taskmill run" in server.ended["out"]


@pytest.mark.parametrize("package", ["flask", "waitress"])
def test_a_missing_package_is_one_line(run: Path, package: str) -> None:
    done = taskmill("review", str(run), "--no-browser", code=f"import sys; sys.modules[{package!r}] = None")
    assert done.returncode == 2 and f"run `pip install {package}`" in done.stderr
    assert "Traceback" not in done.stderr
