"""The page in headless Chromium, of a real server with sessions that train."""

import json
from collections.abc import Iterator

import pytest
from tests.web.browser import Browser
from tests.web.conftest import TARGET

import backwire as bw
from backwire._web._answers import Answers
from backwire._web._server import serving

ONE = {"x": [1.0]}
NASTY = "<img src=x onerror=\"document.title='owned'\">"


@pytest.fixture(autouse=True)
def _nothing_was_refused(browser: Browser) -> Iterator[None]:
    """The page needs nothing that its policy forbids, and throws nothing.

    What it asks about a session that has just been deleted is not found, which is no fault of it.
    """
    yield
    assert [each for each in browser.leave() if not ("status of 404" in each and "?session=" in each)] == []


def train(session: bw.Session, count: int) -> list[float]:
    return [session.train_step(ONE).loss for _ in range(count)]


def row_of(browser: Browser, session: bw.Session) -> list[str]:
    """The cells of a session, as soon as it is listed."""
    rows = "[...document.querySelectorAll('#sessions tr')].map(row => [...row.cells].map(cell => cell.textContent))"
    found: list[str] = browser.wait(f"{rows}.find(cells => cells[0] === {json.dumps(session.id)})")
    return found


def points(browser: Browser, curve: str) -> list[list[float]]:
    """The points of the lines of a curve, which grow downwards."""
    lines = f"[...document.querySelectorAll('#{curve} polyline')].map(line => line.getAttribute('points'))"
    return [[float(pair.split(",")[1]) for pair in line.split()] for line in browser.run(lines)]


def show(browser: Browser, page: str, session: bw.Session) -> None:
    """Opens the page and clicks on a session."""
    browser.open(page)
    row_of(browser, session)
    row = f"[...document.querySelectorAll('#sessions button')].find(each => each.textContent === '{session.id}')"
    browser.run(f"{row}.click()")
    browser.wait_for_text("#title", session.id)


def test_sessions_are_listed_with_their_figures(browser: Browser, page: str, session: bw.Session) -> None:
    assert train(session, 3) == pytest.approx([8, 4, 2])
    browser.open(page)
    cells = row_of(browser, session)
    assert cells[1:4] == ["default", "awake", "3"]
    assert cells[5:9] == ["2", "2", "0.2929", "0"]
    assert cells[9].endswith("B")
    assert f"{TARGET}: version {bw.__version__}; sessions: " in browser.text("#server")
    assert browser.run("document.getElementById('error').hidden")


def test_a_session_that_is_created_later_shows_by_itself(browser: Browser, page: str, client: bw.Client) -> None:
    browser.open(page)
    browser.wait_for_text("#server", TARGET)
    with client.create_session(bw.sum(bw.parameter("w", [1.0]) ** 2.0)) as later:
        assert row_of(browser, later)[3] == "0"


def test_rows_stay_where_they_are_while_figures_change(browser: Browser, page: str, client: bw.Client) -> None:
    loss = bw.sum(bw.parameter("w", [1.0]) ** 2.0)
    sessions = sorted((client.create_session(loss, bw.SGD(0.1)) for _ in range(3)), key=lambda each: each.id)
    browser.open(page)
    for each in sessions:
        row_of(browser, each)
    browser.run("window.kept = [...document.querySelectorAll('#sessions tr')]; 0")
    sessions[0].train_step({})
    sessions[1].close()
    browser.wait("document.querySelectorAll('#sessions tr').length === 2")
    assert [row_of(browser, each)[3] for each in (sessions[0], sessions[2])] == ["1", "0"]
    rows = "[...document.querySelectorAll('#sessions tr')]"
    assert browser.run(f"{rows}.map(row => window.kept.indexOf(row))") == [0, 2]
    for each in sessions:
        each.close()


def test_curves_of_the_chosen_session_go_on_while_it_trains(browser: Browser, page: str, session: bw.Session) -> None:
    train(session, 3)
    show(browser, page, session)
    browser.wait("document.querySelectorAll('#loss polyline').length")
    assert points(browser, "loss") == [[8.0, 124.0, 182.0]], "from the top, 8, over 4 to the bottom, 2"
    assert points(browser, "norm") == [pytest.approx([8.0, 109.9, 182.0], abs=0.1)]
    assert browser.text("#loss-last") == "2"
    train(session, 2)
    browser.wait_for_text("#loss-last", "0.5")
    assert [len(line) for line in points(browser, "loss")] == [5]
    assert "step 1step 5" in browser.text("#loss")


def test_a_logarithm_makes_a_line_of_what_halves(browser: Browser, page: str, session: bw.Session) -> None:
    train(session, 4)
    show(browser, page, session)
    browser.wait("document.querySelectorAll('#loss polyline').length")
    browser.click("#logarithmic")
    assert points(browser, "loss") == [pytest.approx([8, 66, 124, 182], abs=0.1)]


def test_a_figure_that_is_no_number_is_a_gap(browser: Browser, page: str, client: bw.Client) -> None:
    x = bw.input("x", ("batch",))
    loss = bw.mean(bw.log(x) * bw.parameter("w", 1.0))
    with client.create_session(loss, bw.SGD(0.1)) as session:
        for value in (2.0, 3.0, -1.0, 4.0, 5.0, 6.0):
            session.train_step({"x": [value]}, non_finite="skip")
        show(browser, page, session)
        browser.wait("document.querySelectorAll('#loss polyline').length")
        assert [len(line) for line in points(browser, "loss")] == [2, 3]


def test_the_address_keeps_which_session_was_chosen(browser: Browser, page: str, session: bw.Session) -> None:
    train(session, 1)
    show(browser, page, session)
    address = browser.run("location.href")
    assert address == f"{page}&session={session.id}"
    browser.open(address)
    browser.wait_for_text("#title", f"{session.id}: awake, step 1")


def test_the_graph_has_a_box_for_each_value_with_its_shape(browser: Browser, page: str, client: bw.Client) -> None:
    x = bw.input("x", ("batch", 8))
    graph = bw.graph(loss=bw.mean(bw.relu(bw.dense(x, 16, name="hidden"))))
    with client.create_session(graph) as session:
        show(browser, page, session)
        assert browser.count("#graph g") == 0, "it is fetched when it is asked for"
        browser.click("#draw")
        browser.wait_for_text("#facts", "144 parameters")
        names = browser.run("[...document.querySelectorAll('#graph .name')].map(each => each.textContent)")
        assert names == ["x", "hidden/weight", "hidden/bias", "Gemm", "Relu", "ReduceMean", "loss"]
        assert "Relu\nfloat32[1, 16]\n16 FLOP\n∇ 32 FLOP" in browser.run(
            "[...document.querySelectorAll('#graph title')].map(each => each.textContent)"
        )
        assert browser.text("#facts").endswith("shapes and work are those of batch = 1")
        heights = browser.run("[...document.querySelectorAll('#graph rect')].map(each => +each.getAttribute('y'))")
        assert heights[3:] == sorted(set(heights[3:])), "each stands below what it is computed from"


def test_measuring_writes_times_into_the_graph(browser: Browser, page: str, session: bw.Session) -> None:
    before = session.digest()
    show(browser, page, session)
    browser.run("document.getElementById('size').value = 64; 0")
    browser.click("#measure")
    browser.wait_for_text("#facts", " ms and ")
    assert browser.text("#facts").endswith("shapes and work are those of batch = 64")
    titles = browser.run("[...document.querySelectorAll('#graph .op title')].map(each => each.textContent)")
    product = next(each for each in titles if each.startswith("Mul"))
    assert product.count(" µs") == 2, "forward and backward"
    assert session.digest() == before


def test_names_are_texts_and_no_markup(browser: Browser, page: str, client: bw.Client) -> None:
    with client.create_session(bw.sum(bw.parameter(NASTY, [1.0]) ** 2.0)) as session:
        show(browser, page, session)
        browser.click("#draw")
        browser.wait_for_text("#graph .parameter title", NASTY)
        assert (browser.count("img"), browser.run("document.title")) == (0, "Backwire")


def test_a_session_that_was_deleted_is_told(browser: Browser, page: str, client: bw.Client) -> None:
    session = client.create_session(bw.sum(bw.parameter("w", [1.0]) ** 2.0))
    show(browser, page, session)
    session.close()
    assert "there is no session" in browser.wait_for_text("#error", session.id)
    browser.wait("document.getElementById('chosen').hidden")
    assert all("404" in each for each in browser.leave())


def test_without_the_key_the_page_says_where_it_is(browser: Browser, page: str) -> None:
    browser.open(page.partition("#")[0])
    assert "open the address that `backwire web` printed" in browser.wait_for_text("#error", "key")
    assert browser.count("#sessions tr") == 0
    assert all("401" in each for each in browser.leave())


def test_a_page_whose_program_has_ended_says_so(browser: Browser, client: bw.Client, session: bw.Session) -> None:
    with serving(Answers(client, TARGET)) as address:
        browser.open(address)
        row_of(browser, session)
    browser.wait_for_text("#error", "`backwire web` does not answer; start it again")
    assert all("ERR_CONNECTION" in each for each in browser.leave())


def test_what_the_page_was_refused_would_be_seen(browser: Browser, page: str) -> None:
    browser.open(page)
    browser.wait_for_text("#server", TARGET)
    browser.run("document.body.append(Object.assign(document.createElement('img'), {src: 'data:image/gif;base64,R0'}))")
    browser.wait_for_complaint("Content Security Policy")
    browser.leave()
