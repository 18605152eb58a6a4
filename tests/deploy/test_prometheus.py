"""Prometheus itself, with the files of docker/prometheus, fetches over TLS, evaluates rules, and answers Grafana."""

import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.deploy.files import DOCKER, adapted, documents
from tests.deploy.metered import metered
from tests.deploy.test_dashboard import PANELS, expressions

PATIENCE = 120
LISTENING = re.compile(r'msg="Listening on" address=(\S+)')
(RULES,) = documents(DOCKER / "prometheus" / "alerts.yaml")
ALERTS = [rule["alert"] for group in RULES["groups"] for rule in group["rules"]]


def wait_for(condition: Callable[[], bool]) -> None:
    """Returns when the condition holds, which it is asked for again and again."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it does not come to that"
        time.sleep(0.1)


class Prometheus:
    """One that runs, by its HTTP interface."""

    def __init__(self, address: str) -> None:
        self._address = address

    def ask(self, path: str, **parameters: str) -> Any:
        """Returns the data of an answer; raises AssertionError for one that is an error."""
        with urllib.request.urlopen(
            f"http://{self._address}{path}?{urllib.parse.urlencode(parameters)}", timeout=30
        ) as got:
            answer = json.load(got)
        assert answer["status"] == "success", answer
        return answer["data"]

    def is_ready(self) -> bool:
        """Tells whether it answers queries: it listens earlier."""
        try:
            with urllib.request.urlopen(f"http://{self._address}/-/ready", timeout=30):
                return True
        except urllib.error.HTTPError:
            return False

    def rules(self) -> list[dict[str, Any]]:
        """Returns all rules with their state."""
        return [rule for group in self.ask("/api/v1/rules")["groups"] for rule in group["rules"]]


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory, certificates: Path) -> Iterator[Prometheus]:
    """Runs Prometheus beside a server; it has fetched that one's metrics and evaluated all rules."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed")
    directory = tmp_path_factory.mktemp("prometheus")
    with metered(directory, certificates) as address:
        replacements = {
            "backwire:9464": address,
            "/run/secrets/ca.crt": str(certificates / "ca.crt"),
            "scrape_interval: 15s": "scrape_interval: 1s",  # which is also how long it waits for an answer
            "evaluation_interval: 15s": "evaluation_interval: 200ms",
        }
        (directory / "prometheus.yaml").write_text(adapted(DOCKER / "prometheus" / "prometheus.yaml", replacements))
        shutil.copy(DOCKER / "prometheus" / "alerts.yaml", directory)
        yield from _run(program, directory)


def _run(program: str, directory: Path) -> Iterator[Prometheus]:
    log = directory / "prometheus.log"
    flags = [f"--config.file={directory}/prometheus.yaml", f"--storage.tsdb.path={directory}/tsdb"]
    with (
        log.open("w") as output,
        subprocess.Popen(
            [program, *flags, "--web.listen-address=127.0.0.1:0"], stdout=output, stderr=output
        ) as process,
    ):
        try:
            wait_for(lambda: process.poll() is not None or LISTENING.search(log.read_text()) is not None)
            found = LISTENING.search(log.read_text())
            assert found is not None, log.read_text()
            running = Prometheus(found[1])
            wait_for(running.is_ready)
            wait_for(lambda: running.ask("/api/v1/query", query='up{job="backwire"} == 1')["result"] != [])
            wait_for(lambda: all(rule["health"] != "unknown" for rule in running.rules()))
            yield running
        finally:
            process.terminate()


def test_a_server_is_fetched_over_tls(prometheus: Prometheus) -> None:
    def target() -> Any:
        (found,) = prometheus.ask("/api/v1/targets")["activeTargets"]
        return found

    wait_for(lambda: target()["health"] == "up")  # down is one that did not answer the last fetch in time
    assert target()["labels"]["job"] == "backwire"
    assert target()["scrapeUrl"].startswith("https://")


def test_all_rules_are_evaluated_and_none_fires_for_a_server_that_is_well(prometheus: Prometheus) -> None:
    rules = prometheus.rules()
    assert sorted(rule["name"] for rule in rules) == sorted(ALERTS)
    assert [rule["lastError"] for rule in rules if rule["health"] != "ok"] == []
    assert [rule["name"] for rule in rules if rule["state"] == "firing"] == []


@pytest.mark.parametrize("title", PANELS)
def test_a_panel_of_the_dashboard_has_an_answer(prometheus: Prometheus, title: str) -> None:
    for expression in expressions(title):
        prometheus.ask("/api/v1/query", query=expression)


@pytest.mark.parametrize(
    ("title", "values"),
    [("Servers", [1]), ("Sessions", [1]), ("To recover", [0]), ("In quarantine", [0]), ("Sessions by tenant", [1])],
)
def test_a_panel_shows_what_the_server_has(prometheus: Prometheus, title: str, values: list[float]) -> None:
    (expression,) = expressions(title)

    def shown() -> list[float]:
        return [float(each["value"][1]) for each in prometheus.ask("/api/v1/query", query=expression)["result"]]

    wait_for(lambda: shown() == values)  # one that was not answered in time says that the server is down
