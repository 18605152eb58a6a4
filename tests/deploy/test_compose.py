"""The compose file says only what the server knows, mounts what it names, and gives away nothing."""

from typing import Any

import pytest
from tests.deploy.files import CERTIFICATES, DOCKER, documents, image_settings

from backwire_server.config_options import OPTIONS
from backwire_server.config_values import read_bytes, read_seconds

PATH = DOCKER / "compose.yaml"
(COMPOSE,) = documents(PATH)
SERVICE: dict[str, Any] = COMPOSE["services"]["backwire"]
SETTINGS: dict[str, str] = SERVICE["environment"]
FILES = ("BACKWIRE_TLS_CERTIFICATE", "BACKWIRE_TLS_KEY", "BACKWIRE_TOKENS")


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_is_known_and_readable(name: str) -> None:
    options = {option.variable: option for group in OPTIONS.values() for option in group}
    assert name in options
    if SETTINGS[name] and name not in FILES:  # those must exist where they are read
        options[name].read(SETTINGS[name])


def test_the_port_of_the_metrics_is_the_one_that_prometheus_asks_and_is_not_published() -> None:
    (scraping,) = documents(DOCKER / "prometheus" / "prometheus.yaml")
    (job,) = scraping["scrape_configs"]
    port = SETTINGS["BACKWIRE_METRICS_LISTEN"].rpartition(":")[2]
    assert job["static_configs"] == [{"targets": [f"backwire:{port}"]}]
    assert job["scheme"] == "https"
    assert not any(port in published for published in SERVICE["ports"])


def test_prometheus_has_the_authority_and_the_files_that_it_is_started_with() -> None:
    service = COMPOSE["services"]["prometheus"]
    (scraping,) = documents(DOCKER / "prometheus" / "prometheus.yaml")
    assert {f"/run/secrets/{name}" for name in service["secrets"]} == {
        job["tls_config"]["ca_file"] for job in scraping["scrape_configs"]
    }
    assert "--config.file=/etc/prometheus/prometheus.yaml" in service["command"]
    assert "./prometheus:/etc/prometheus:ro" in service["volumes"]


@pytest.mark.parametrize("name", ["prometheus", "grafana"])
def test_what_observes_is_started_when_asked_for_and_has_no_privilege(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["profiles"] == ["observe"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert ":latest" not in service["image"]


def test_nothing_is_served_in_plain_text() -> None:
    assert "BACKWIRE_ALLOW_PLAINTEXT" in image_settings()
    assert SETTINGS["BACKWIRE_ALLOW_PLAINTEXT"] == ""
    assert all(SETTINGS[name] for name in FILES)


def test_secrets_are_mounted_where_the_settings_say() -> None:
    mounted = {f"/run/secrets/{name}" for name in SERVICE["secrets"]}
    named = {SETTINGS[name] for name in FILES}
    named |= {flag.partition("=")[2] for flag in SERVICE["healthcheck"]["test"] if flag.startswith("--ca=")}
    assert named == mounted


def test_secrets_are_the_files_that_are_made_as_it_says() -> None:
    sources = {name: secret["file"] for name, secret in COMPOSE["secrets"].items()}
    assert sources == {name: f"../out/secrets/{name}" for name in SERVICE["secrets"]}
    assert set(sources) == CERTIFICATES | {"tokens.toml"}
    assert "docker/certificates out/secrets\n" in PATH.read_text()


def test_sessions_are_in_a_volume() -> None:
    (volume,) = SERVICE["volumes"]
    name, _, place = volume.partition(":")
    assert name in COMPOSE["volumes"]
    assert place == SETTINGS["BACKWIRE_DATA_DIR"]


def test_the_container_has_no_privilege_and_only_this_machine_reaches_it() -> None:
    assert SERVICE["read_only"] is True
    assert SERVICE["cap_drop"] == ["ALL"]
    assert SERVICE["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in SERVICE["ports"])


def test_the_health_check_needs_no_shell() -> None:
    assert SERVICE["healthcheck"]["test"][:3] == ["CMD", "backwire", "health"]


def test_calls_in_progress_may_end_before_the_server_is_killed() -> None:
    assert read_seconds(SERVICE["stop_grace_period"]) >= read_seconds(SETTINGS["BACKWIRE_GRACE"]) + 10


def test_what_the_server_may_hold_fits_into_its_memory() -> None:
    memory = read_bytes(SERVICE["deploy"]["resources"]["limits"]["memory"].replace("g", "GiB"))
    sessions, requests = (read_bytes(SETTINGS[f"BACKWIRE_MAX_{each}_BYTES"]) for each in ("TOTAL", "REQUEST"))
    processes = int(SETTINGS["BACKWIRE_WORKERS"]) + 1
    assert processes * read_bytes("612MiB") + 2 * sessions + requests <= memory
