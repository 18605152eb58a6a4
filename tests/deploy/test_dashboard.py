"""The dashboard shows figures that a server has, by expressions that Prometheus reads, and Grafana finds it."""

import json
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from tests.deploy.files import DOCKER, documents
from tests.deploy.promql import FROM_PROMETHEUS, OF_TARGETS, names, promtool

GRAFANA = DOCKER / "grafana"
DASHBOARD: dict[str, Any] = json.loads((GRAFANA / "dashboard.json").read_text())
VARIABLES = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
PANELS = {panel["title"]: panel for panel in DASHBOARD["panels"] if panel["type"] != "row"}
(COMPOSE,) = documents(DOCKER / "compose.yaml")
INTERVAL = "$__rate_interval"

each_panel = pytest.mark.parametrize("title", PANELS)


def expressions(title: str) -> list[str]:
    """Returns those of a panel, with what Grafana puts in for all servers."""
    replacements = {"$instance": VARIABLES["instance"]["allValue"], INTERVAL: "1m"}
    found = [target["expr"] for target in PANELS[title]["targets"]]
    for old, new in replacements.items():
        found = [each.replace(old, new) for each in found]
    assert found
    assert not any("$" in each for each in found), found
    return found


@each_panel
def test_prometheus_reads_the_expressions_of_a_panel(title: str, tmp_path: Path) -> None:
    rules = [{"record": "panel", "expr": each, "labels": {"n": str(n)}} for n, each in enumerate(expressions(title))]
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panel", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", path)


@each_panel
def test_a_panel_shows_series_that_a_server_has(title: str, exposition: Mapping[str, frozenset[str]]) -> None:
    known = {**exposition, **FROM_PROMETHEUS}
    for expression in expressions(title):
        found = names(expression)
        assert found.metrics
        assert found.metrics <= set(known)
        assert found.labels <= OF_TARGETS.union(*(known[metric] for metric in found.metrics))


@each_panel
def test_every_series_of_a_panel_is_of_the_chosen_servers(title: str) -> None:
    for target in PANELS[title]["targets"]:
        assert target["expr"].count("{") == target["expr"].count('instance=~"$instance"') > 0
        assert PANELS[title]["datasource"]["uid"] == "${datasource}"


@each_panel
def test_a_legend_names_labels_that_are_left(title: str) -> None:
    for target in PANELS[title]["targets"]:
        legend = {part.partition("}}")[0] for part in target["legendFormat"].split("{{")[1:]}
        assert legend <= names(target["expr"]).labels


@each_panel
def test_a_panel_says_what_it_shows_and_in_which_unit(title: str) -> None:
    assert PANELS[title]["description"].endswith(".")
    assert PANELS[title]["fieldConfig"]["defaults"]["unit"]


def test_panels_have_ids_of_their_own_and_do_not_cover_each_other() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [{(x, y) for x in _span(each, "x", "w") for y in _span(each, "y", "h")} for each in panels]
    assert all(x < 24 for place in places for x, _ in place)
    assert not any(one & other for one, other in combinations(places, 2))


def _span(panel: Mapping[str, Any], begin: str, length: str) -> range:
    place = panel["gridPos"]
    return range(place[begin], place[begin] + place[length])


def test_grafana_finds_prometheus_and_the_dashboard_in_the_compose_file() -> None:
    services = COMPOSE["services"]
    (source,) = documents(GRAFANA / "provisioning" / "datasources" / "prometheus.yaml")[0]["datasources"]
    (provider,) = documents(GRAFANA / "provisioning" / "dashboards" / "backwire.yaml")[0]["providers"]
    host, port = source["url"].removeprefix("http://").split(":")
    assert services[host]["ports"] == [f"127.0.0.1:{port}:{port}"]
    mounts = dict(volume.removesuffix(":ro").split(":") for volume in services["grafana"]["volumes"])
    assert mounts["./grafana/provisioning"] == "/etc/grafana/provisioning"
    assert Path(mounts["./grafana/dashboard.json"]).parent == Path(provider["options"]["path"])
    assert all((DOCKER / mount).exists() for mount in mounts)
