"""The HTTP server of the page: who is answered, what, and how."""

import json
import re
import socket
from collections.abc import Iterator
from http.client import HTTPException

import numpy as np
import pytest
from tests.ports import unused_port
from tests.web.calling import SECONDS, Caller, wait_until_answered
from tests.web.conftest import TARGET

import backwire as bw
from backwire._web import _server
from backwire._web._answers import Answers
from backwire._web._server import serving

STATIC = ("/", "/page.js", "/curves.js", "/graph.js", "/style.css")


def test_the_status_is_told_with_its_sessions(caller: Caller, session: bw.Session) -> None:
    session.train_step({"x": [1.0]})
    status, document = caller.get("/api/status")
    assert (status, document["target"], document["version"]) == (200, TARGET, bw.__version__)
    found = next(each for each in document["sessions"] if each["id"] == session.id)
    assert (found["steps"], found["loss"], found["state"]) == (1, 8.0, "awake")
    assert document["load"]["calls"]["limit"] > 0


def test_a_history_goes_on_behind_its_cursor(caller: Caller, session: bw.Session) -> None:
    for _ in range(2):
        session.train_step({"x": [1.0]})
    _, first = caller.get(f"/api/history?session={session.id}")
    session.train_step({"x": [1.0]})
    status, second = caller.get(f"/api/history?session={session.id}&cursor={first['cursor']}")
    assert status == 200
    assert [[each["step"] for each in found["steps"]] for found in (first, second)] == [[1, 2], [3]]


def test_a_figure_that_is_no_number_is_null(caller: Caller, client: bw.Client) -> None:
    with client.create_session(bw.log(bw.parameter("w", -1.0)), bw.SGD(0.1)) as session:
        session.train_step({}, non_finite="skip")
        _, document = caller.get(f"/api/history?session={session.id}")
        assert [each["loss"] for each in document["steps"]] == [None]


def test_the_graph_of_a_session_of_another_client_is_drawn(caller: Caller, session: bw.Session) -> None:
    status, document = caller.get(f"/api/graph?session={session.id}")
    titles = [box["title"] for box in document["boxes"]]
    assert (status, titles[:2], titles[-1]) == (200, ["x", "w"], "loss")
    assert (document["assumed"], document["parameter_count"]) == ({"batch": 1}, 1)
    assert caller.get(f"/api/graph?session={session.id}") == (200, document)


def test_a_graph_whose_shapes_cannot_be_assumed_is_drawn_without_them(caller: Caller, client: bw.Client) -> None:
    left, right = bw.input("left", ("m", 2)), bw.input("right", ("n", 2))
    rows = bw.reshape(left, (3, 2))
    with client.create_session(bw.graph(outputs={"y": bw.concat([rows, right])})) as session:
        status, document = caller.get(f"/api/graph?session={session.id}")
        assert status == 200
        assert "parameter_count" not in document
        assert document["shapes_unknown"]
        assert {"left", "right", "Reshape", "Concat", "y"} <= {box["title"] for box in document["boxes"]}


def test_a_session_with_many_parameters_and_constants_is_drawn_too(caller: Caller, client: bw.Client) -> None:
    w = bw.parameter("w", (4200, 4096), frozen=True)
    table = bw.constant(np.ones((1000, 4200), "float32"))
    with client.create_session(bw.mean((table @ w) * bw.parameter("scale", 1.0))) as session:
        status, document = caller.get(f"/api/graph?session={session.id}")
        assert status == 200
        assert document["parameter_count"] == 4200 * 4096 + 1
        assert {"w", "scale", "MatMul"} <= {box["title"] for box in document["boxes"]}


def test_a_graph_tells_work_and_on_request_time(caller: Caller, session: bw.Session) -> None:
    _, told = caller.get(f"/api/graph?session={session.id}&size=1000")
    _, measured = caller.get(f"/api/graph?session={session.id}&size=1000&passes=2")
    assert told["assumed"] == measured["assumed"] == {"batch": 1000}
    (plain,), (timed,) = (
        [box["notes"] for box in each["boxes"] if box["title"] == "Mul"][:1] for each in (told, measured)
    )
    assert plain[-2] == "1 kFLOP"
    assert re.fullmatch(r"1 kFLOP, [\d.]+ µs", timed[-2])
    assert re.fullmatch(r"∇ [\d.]+ k?FLOP, [\d.]+ µs", timed[-1])
    assert "forward_seconds" not in told
    assert measured["forward_seconds"] > 0 < measured["backward_seconds"]


@pytest.mark.parametrize("query", ["size=0", "size=x", "passes=-1", "size=1000000000", "passes=1001"])
def test_a_number_that_cannot_be_is_told(caller: Caller, session: bw.Session, query: str) -> None:
    status, document = caller.get(f"/api/graph?session={session.id}&{query}")
    assert (status, query.split("=")[0] in document["error"]) == (400, True)


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        ("/api/history", 400, "ask with ?session=ID"),
        ("/api/history?session=", 400, "ask with ?session=ID"),
        ("/api/history?session=none", 404, "none"),
        ("/api/graph?session=none", 404, "none"),
        ("/api/sessions", 404, "begin at /"),
        ("/page.html", 404, "begin at /"),
        ("/../_server.py", 404, "begin at /"),
        ("/static/index.html", 404, "begin at /"),
        ("/api/status[", 404, "begin at /"),
    ],
)
def test_what_is_not_there_is_told_with_the_remedy(caller: Caller, path: str, status: int, told: str) -> None:
    found, document = caller.get(path)
    assert (found, told in document["error"]) == (status, True), document


def test_a_server_that_fails_is_told(caller: Caller, client: bw.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(**_: object) -> bw.ServerStatus:
        raise bw.UnavailableError("nobody listens; start a server")

    monkeypatch.setattr(client, "status", unavailable)
    assert caller.get("/api/status") == (502, {"error": "nobody listens; start a server"})


@pytest.mark.parametrize("path", ["/api/status", "/api/history?session=a", "/api/graph?session=a"])
@pytest.mark.parametrize("given", ["", "Bearer ", "Bearer x", "bearer {key}", "{key}", "Bearer {key}x", "Bearer é"])
def test_documents_are_for_those_who_have_the_key(caller: Caller, path: str, given: str) -> None:
    status, document = caller.get(path, Authorization=given.format(key=caller.key))
    assert (status, "key is missing or wrong" in document["error"]) == (401, True)


def test_each_start_has_a_key_of_its_own(client: bw.Client) -> None:
    keys = []
    for _ in range(2):
        with serving(Answers(client, TARGET)) as address:
            keys.append(Caller(address).key)
    assert keys[0] != keys[1]
    assert all(len(key) == 32 for key in keys)


@pytest.mark.parametrize("path", [*STATIC, "/api/status"])
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "[::1]:{port}", ""]
)
def test_a_name_that_was_made_to_lead_here_gets_nothing(caller: Caller, path: str, host: str) -> None:
    status, document = caller.get(path, Host=host.format(port=caller.port))
    assert (status, "no server of that name" in document["error"]) == (421, True)


def test_this_machine_may_be_called_localhost(caller: Caller) -> None:
    assert caller.get("/api/status", Host=f"localhost:{caller.port}")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"])
@pytest.mark.parametrize("path", ["/", "/api/status"])
def test_nothing_but_reading_is_answered(caller: Caller, method: str, path: str) -> None:
    response = caller.send(method, path, Authorization=f"Bearer {caller.key}")
    assert (response.status, response.headers["Allow"]) == (405, "GET")


@pytest.mark.parametrize("line", [b"nonsense", b"BREW / HTTP/1.1", b"GET / HTTP/9.9"])
def test_what_is_no_request_is_refused_in_the_same_way(caller: Caller, line: bytes) -> None:
    with socket.create_connection((caller.host, caller.port), timeout=SECONDS) as connection:
        connection.sendall(line + b"\r\n\r\n")
        response = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    body = response.rpartition(b"\r\n\r\n")[2] or response
    assert json.loads(body)["error"].endswith("; use a browser")


@pytest.mark.parametrize("path", [*STATIC, "/api/status", "/none"])
def test_every_answer_forbids_what_the_page_does_not_need(caller: Caller, path: str) -> None:
    headers = caller.send("GET", path).headers
    policy = dict(each.strip().split(" ", 1) for each in headers["Content-Security-Policy"].split(";"))
    assert policy == {
        "default-src": "'none'",
        **dict.fromkeys(("script-src", "style-src", "connect-src"), "'self'"),
        **dict.fromkeys(("base-uri", "form-action", "frame-ancestors"), "'none'"),
    }
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Origin" not in headers
    assert headers["Server"] == "backwire"


@pytest.mark.parametrize("path", STATIC)
def test_the_page_has_all_that_it_needs_and_no_markup_made_of_texts(caller: Caller, path: str) -> None:
    text = caller.send("GET", path).body.decode()  # type: ignore[attr-defined]
    urls = re.findall(r"\bhttps?:[^\s\"']*", text)
    assert set(urls) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|style=| on\w+=", text
    )


def test_only_this_machine_can_connect(caller: Caller) -> None:
    assert caller.host == "127.0.0.1"
    with socket.create_server(("127.0.0.2", caller.port)):
        pass  # the port is free at other addresses, so the page does not listen there


def test_a_port_can_be_had_again_at_once(client: bw.Client) -> None:
    port = unused_port()
    for _ in range(2):
        with serving(Answers(client, TARGET), port) as address:
            caller = Caller(address)
            assert (caller.get("/api/status")[0], caller.port) == (200, port)


def test_a_mistake_of_ours_is_told_where_the_command_runs(
    caller: Caller, client: bw.Client, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(client, "status", lambda: 1 // 0)
    with pytest.raises(HTTPException):
        caller.get("/api/status")
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_a_port_that_is_taken_is_told(caller: Caller, client: bw.Client) -> None:
    told = rf"port {caller.port} cannot be had: .*; choose another --port"
    with pytest.raises(bw.InvalidRequestError, match=told), serving(Answers(client, TARGET), caller.port):
        pass


@pytest.fixture
def hasty(client: bw.Client) -> Iterator[Caller]:
    """A page whose browsers have little time."""
    with serving(Answers(client, TARGET), patience=0.2) as address:
        yield Caller(address)


@pytest.mark.parametrize("sent", [b"", b"GET /", b"GET / HTTP/1.1\r\nHost: "])
def test_a_slow_browser_is_cut_off(hasty: Caller, sent: bytes) -> None:
    with socket.create_connection((hasty.host, hasty.port), timeout=SECONDS) as connection:
        connection.sendall(sent)
        assert connection.recv(1 << 16) == b""
    wait_until_answered(hasty)


def test_browsers_beyond_a_few_are_turned_away_until_there_is_room(caller: Caller) -> None:
    silent = [socket.create_connection((caller.host, caller.port)) for _ in range(_server.MOST_CLIENTS)]
    try:
        with socket.create_connection((caller.host, caller.port), timeout=SECONDS) as another:
            assert another.recv(1) == b""
    finally:
        for each in silent:
            each.close()
    wait_until_answered(caller)
