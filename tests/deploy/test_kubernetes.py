"""The manifests are what the API accepts, refer to one another by the right names, and ask for the least they need."""

import re
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
from tests.deploy.files import CERTIFICATES, DOCKER, DOCKERFILE, documents, image_settings, image_user
from tests.e2e.conftest import ROOT

from backwire_server.config_options import OPTIONS
from backwire_server.config_reading import parse
from backwire_server.config_values import read_bytes, read_seconds
from backwire_server.sessions.replicas import is_replica

MANIFESTS = {
    (document["kind"], document["metadata"]["name"]): document
    for path in sorted((DOCKER / "kubernetes").glob("*.yaml"))
    for document in documents(path)
}
STATEFUL_SET = MANIFESTS["StatefulSet", "backwire"]
POD = STATEFUL_SET["spec"]["template"]["spec"]
LABELS = STATEFUL_SET["spec"]["template"]["metadata"]["labels"]
(CONTAINER,) = POD["containers"]
PORTS = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
SETTINGS = tomllib.loads(MANIFESTS["ConfigMap", "backwire"]["data"]["backwire.toml"])
LISTENERS = {"grpc": "listen", "metrics": "metrics_listen"}
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
SECRETS = {"backwire-tls": CERTIFICATES, "backwire-tokens": {"tokens.toml"}}
"""The files of the secrets that the operator makes."""


def files() -> set[str]:
    """Returns the paths of all files that the container finds in its volumes."""
    content = {volume["name"]: volume for volume in POD["volumes"]}
    found = set()
    for mount in CONTAINER["volumeMounts"]:
        volume = content.get(mount["name"], {})
        names = set(SECRETS[volume["secret"]["secretName"]]) if "secret" in volume else set()
        if "configMap" in volume:
            names = set(MANIFESTS["ConfigMap", volume["configMap"]["name"]]["data"])
        found |= {f"{mount['mountPath']}/{name}" for name in names}
    return found


@pytest.mark.parametrize("manifest", MANIFESTS.values(), ids=lambda each: f"{each['kind']}-{each['metadata']['name']}")
def test_a_manifest_is_strictly_valid(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def test_validation_finds_a_field_that_does_not_exist() -> None:
    manifest = {**STATEFUL_SET, "spec": {**STATEFUL_SET["spec"], "replica": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def test_there_is_one_of_all_that_is_needed() -> None:
    assert sorted(kind for kind, _ in MANIFESTS) == [
        *("ConfigMap", "NetworkPolicy", "PodDisruptionBudget", "Service", "Service", "StatefulSet")
    ]


def test_selectors_select_the_pods() -> None:
    selectors = [
        STATEFUL_SET["spec"]["selector"]["matchLabels"],
        MANIFESTS["PodDisruptionBudget", "backwire"]["spec"]["selector"]["matchLabels"],
        MANIFESTS["NetworkPolicy", "backwire"]["spec"]["podSelector"]["matchLabels"],
        *(manifest["spec"]["selector"] for (kind, _), manifest in MANIFESTS.items() if kind == "Service"),
    ]
    assert len(selectors) == 5
    assert all(selector and selector.items() <= LABELS.items() for selector in selectors)


def test_the_service_of_the_stateful_set_is_headless_and_the_other_is_not() -> None:
    headless = MANIFESTS["Service", STATEFUL_SET["spec"]["serviceName"]]
    assert headless["spec"]["clusterIP"] == "None"
    assert "clusterIP" not in MANIFESTS["Service", "backwire"]["spec"]


def test_ports_are_those_that_the_server_listens_on() -> None:
    listened = {name: int(SETTINGS[key].rpartition(":")[2]) for name, key in LISTENERS.items()}
    assert listened == PORTS
    assert f"EXPOSE {PORTS['grpc']}\n" in DOCKERFILE
    ports = [
        port["targetPort"]
        for (kind, _), each in MANIFESTS.items()
        if kind == "Service"
        for port in each["spec"]["ports"]
    ]
    policy = MANIFESTS["NetworkPolicy", "backwire"]["spec"]
    allowed = [port["port"] for rule in policy["ingress"] for port in rule["ports"]]
    assert set(ports) == set(allowed) == set(PORTS)


def test_metrics_are_where_the_annotations_say() -> None:
    annotations = STATEFUL_SET["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(PORTS["metrics"])
    assert annotations["prometheus.io/scheme"] == ("https" if "tls_certificate" in SETTINGS else "http")


def test_nothing_comes_in_unasked_and_nothing_goes_out() -> None:
    policy = MANIFESTS["NetworkPolicy", "backwire"]["spec"]
    assert sorted(policy["policyTypes"]) == ["Egress", "Ingress"]
    assert policy["egress"] == []
    assert all(rule["from"] and rule["ports"] for rule in policy["ingress"])


def test_volumes_are_mounted_once_and_all_of_them() -> None:
    claims = [claim["metadata"]["name"] for claim in STATEFUL_SET["spec"]["volumeClaimTemplates"]]
    names = [*claims, *(volume["name"] for volume in POD["volumes"])]
    assert sorted(names) == sorted(mount["name"] for mount in CONTAINER["volumeMounts"])
    writable = {mount["mountPath"] for mount in CONTAINER["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {SETTINGS["data_dir"], "/tmp"}


def test_settings_name_files_that_are_mounted() -> None:
    environment = {variable["name"]: variable.get("value") for variable in CONTAINER["env"]}
    named = [environment["BACKWIRE_CONFIG"], *(SETTINGS[key] for key in ("tls_certificate", "tls_key", "tokens"))]
    assert set(named) <= files()


def test_the_settings_for_a_volume_of_all_pods_are_those_of_replicas_that_share_it(tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "replicas.md").read_text()
    (settings,) = re.findall(r"```toml\n(.*?)```", guide, re.DOTALL)
    ((variable, value),) = re.findall(r'- {name: (\w+), value: "(\S+)"}', guide)
    own = MANIFESTS["ConfigMap", "backwire"]["data"]["backwire.toml"]
    text = re.sub(r"(?m)^(workers|max_disk_bytes) = .*\n", "", own) + settings
    assert set(re.findall(r"/etc/\S+(?=\")", text)) <= files()
    for name in set(re.findall(r"(?<=/)[\w.]+(?=\"$)", text, re.MULTILINE)):
        (tmp_path / name).touch()
    file = tmp_path / "backwire.toml"
    file.write_text(re.sub(r"/etc/backwire/\w+", str(tmp_path), text))
    environment = {"BACKWIRE_REPLICA": "backwire-0", variable: value.replace("$(BACKWIRE_REPLICA)", "backwire-0")}
    found = parse(["--config", str(file)], environment)
    assert found.keeping.shared
    assert found.keeping.advertise == "backwire-0.backwire-replicas:50051"
    assert found.capacity.peer_helpers == 2
    names = [each["name"] for each in CONTAINER["env"]]
    assert ("BACKWIRE_REPLICA" in names, variable in names) == (True, False)


def test_no_setting_of_the_image_hides_one_of_the_file() -> None:
    unset = {variable["name"] for variable in CONTAINER["env"] if variable.get("value") == ""}
    assert unset == image_settings()
    assert unset <= {option.variable for options in OPTIONS.values() for option in options}


def test_settings_are_known_and_readable() -> None:
    options = {option.name: option for group in OPTIONS.values() for option in group}
    assert set(SETTINGS) <= set(options)
    for name, value in SETTINGS.items():
        if not name.startswith(("tls_", "tokens")):  # these must exist where they are read
            options[name].read(str(value))


def test_each_pod_is_a_replica_of_its_own_name() -> None:
    (source,) = [each["valueFrom"] for each in CONTAINER["env"] if each["name"] == "BACKWIRE_REPLICA"]
    assert source == {"fieldRef": {"fieldPath": "metadata.name"}}
    assert is_replica(f"{STATEFUL_SET['metadata']['name']}-{STATEFUL_SET['spec']['replicas'] - 1}")


def test_the_pod_has_the_identity_of_the_image_and_no_privilege() -> None:
    user, group = image_user()
    context = POD["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (user, group, group)
    assert context["runAsNonRoot"] is True
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert POD["automountServiceAccountToken"] is False
    assert POD["enableServiceLinks"] is False
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(POD)


def test_secrets_are_for_the_user_and_the_group_alone() -> None:
    modes = [volume["secret"]["defaultMode"] for volume in POD["volumes"] if "secret" in volume]
    assert modes == [0o440, 0o440]


@pytest.mark.parametrize("probe", PROBES)
def test_a_probe_asks_the_health_service_over_tls(probe: str) -> None:
    command, *flags = CONTAINER[probe]["exec"]["command"]
    given = {flag.partition("=")[0].removeprefix("--"): flag.partition("=")[2] for flag in flags[1:]}
    assert [command, flags[0]] == ["backwire", "health"]
    assert given["target"] == f"localhost:{PORTS['grpc']}"
    assert given["ca"] in files()
    assert float(given["timeout"]) < CONTAINER[probe]["timeoutSeconds"]


def test_calls_in_progress_may_end_before_the_server_is_killed() -> None:
    grace, liveness = read_seconds(SETTINGS["grace"]), CONTAINER["livenessProbe"]
    assert POD["terminationGracePeriodSeconds"] >= grace + 10
    assert liveness["periodSeconds"] * (liveness["failureThreshold"] - 1) > grace


def test_what_the_server_may_hold_fits_into_its_memory_and_its_volume() -> None:
    limits = CONTAINER["resources"]["limits"]
    kept = read_bytes("512MiB") + read_bytes("100MiB")
    held = sum(read_bytes(SETTINGS[key]) for key in ("max_total_bytes", "max_request_bytes"))
    copies = read_bytes(SETTINGS["max_total_bytes"])
    assert (SETTINGS["workers"] + 1) * kept + held + copies <= read_bytes(f"{limits['memory']}B")
    (claim,) = STATEFUL_SET["spec"]["volumeClaimTemplates"]
    storage = claim["spec"]["resources"]["requests"]["storage"]
    assert read_bytes(SETTINGS["max_disk_bytes"]) <= 0.9 * read_bytes(f"{storage}B")
    assert SETTINGS["workers"] <= float(limits["cpu"])
