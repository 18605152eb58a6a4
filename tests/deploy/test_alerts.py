"""The alerts fire for what they say, name metrics that a server has, and send the operator to what he should read."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.deploy.files import DOCKER, ROOT, adapted, documents
from tests.deploy.promql import FROM_PROMETHEUS, OF_TARGETS, names, promtool

from backwire_api.reasons import Reason
from backwire_server.rpc.methods import SERVICE

PROMETHEUS = DOCKER / "prometheus"
(RULES,) = documents(PROMETHEUS / "alerts.yaml")
(TESTS,) = documents(PROMETHEUS / "alerts_test.yaml")
(SCRAPING,) = documents(PROMETHEUS / "prometheus.yaml")
ALERTS: dict[str, dict[str, Any]] = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"]}
GUIDE = (ROOT / "docs" / "operations.md").read_text()

each_alert = pytest.mark.parametrize("alert", ALERTS)


def test_prometheus_accepts_the_rules() -> None:
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", PROMETHEUS / "alerts.yaml")


@pytest.mark.parametrize("name", ["prometheus.yaml", "kubernetes.yaml"])
def test_prometheus_accepts_its_configuration(name: str, tmp_path: Path, certificates: Path) -> None:
    (job,) = documents(PROMETHEUS / name)[0]["scrape_configs"]
    authority = job["tls_config"]["ca_file"]
    (tmp_path / name).write_text(adapted(PROMETHEUS / name, {authority: str(certificates / "ca.crt")}))
    shutil.copy(PROMETHEUS / "alerts.yaml", tmp_path)
    assert "1 rule files found" in promtool("check", "config", tmp_path / name)


def test_pods_are_found_by_a_service_and_a_port_that_the_manifests_have() -> None:
    (job,) = documents(PROMETHEUS / "kubernetes.yaml")[0]["scrape_configs"]
    services = {each["metadata"]["name"]: each["spec"] for each in documents(DOCKER / "kubernetes" / "service.yaml")}
    (discovery,) = job["dns_sd_configs"]
    port, protocol, service = discovery["names"][0].split(".")[:3]
    found = services[service]
    assert found["clusterIP"] == "None"
    assert found["publishNotReadyAddresses"] is True, "those that recover must be seen"
    assert (port, protocol) in {(f"_{each['name']}", f"_{each['protocol'].lower()}") for each in found["ports"]}
    (scraping,) = SCRAPING["scrape_configs"]
    assert (job["job_name"], job["scheme"]) == (scraping["job_name"], scraping["scheme"])


def test_alerts_fire_for_what_they_are_for_and_for_nothing_else() -> None:
    assert "SUCCESS" in promtool("test", "rules", PROMETHEUS / "alerts_test.yaml")


def test_a_threshold_that_is_off_is_found(tmp_path: Path) -> None:
    text = (PROMETHEUS / "alerts.yaml").read_text()
    assert "> 0.9\n" in text
    (tmp_path / "alerts.yaml").write_text(text.replace("> 0.9\n", "> 0.99\n"))
    shutil.copy(PROMETHEUS / "alerts_test.yaml", tmp_path)
    promtool("test", "rules", tmp_path / "alerts_test.yaml", status=1)


@each_alert
def test_an_alert_is_tested_to_fire_and_to_be_quiet(alert: str) -> None:
    checks = [check for test in TESTS["tests"] for check in test["alert_rule_test"] if check["alertname"] == alert]
    assert {bool(check["exp_alerts"]) for check in checks} == {True, False}


@each_alert
def test_an_alert_names_metrics_and_labels_that_a_server_has(
    alert: str, exposition: Mapping[str, frozenset[str]]
) -> None:
    found = names(ALERTS[alert]["expr"])
    known = {**exposition, **FROM_PROMETHEUS}
    assert found.metrics
    assert found.metrics <= set(known)
    assert found.labels <= OF_TARGETS.union(*(known[metric] for metric in found.metrics))


@each_alert
def test_an_alert_compares_labels_with_values_that_there_are(alert: str) -> None:
    values = names(ALERTS[alert]["expr"]).values
    methods = {f"^{method.name}$" for method in SERVICE.methods}
    assert values.get("reason", frozenset()) <= set(Reason)
    assert all(f"^{value}$" in methods or value == "(Pipeline/.+)" for value in values.get("method", ()))
    assert values.get("job", frozenset()) <= {job["job_name"] for job in SCRAPING["scrape_configs"]}


def test_every_reason_counts_for_one_alert() -> None:
    (rest,) = re.findall(r'reason!~"([A-Z_|]+)"', ALERTS["BackwireErrorRate"]["expr"])
    others = [names(rule["expr"]).values.get("reason", frozenset()) for rule in ALERTS.values()]
    own = frozenset().union(*(each for each in others if each != frozenset(rest.split("|"))))
    # Every upgrade has calls that are told of the shutdown, and sessions in quarantine are counted by themselves.
    assert set(rest.split("|")) == own | {"SHUTTING_DOWN", "SESSION_QUARANTINED"}


@each_alert
def test_an_alert_says_how_bad_it_is_and_where(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert alert == "BackwireAbsent" or "{{ $labels.instance }}" in rule["annotations"]["summary"]


@each_alert
def test_an_alert_has_a_section_that_it_points_to(alert: str) -> None:
    assert ALERTS[alert]["annotations"]["runbook"] == f"docs/operations.md#{alert.lower()}"
    assert GUIDE.count(f"\n### {alert}\n") == 1


def test_the_guide_has_no_section_of_an_alert_that_is_gone() -> None:
    assert set(re.findall(r"^### (Backwire\w+)$", GUIDE, re.MULTILINE)) == set(ALERTS)
