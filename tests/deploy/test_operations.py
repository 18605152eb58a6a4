"""The operator's guide names files that exist, settings that are known, and times that the files have."""

import re

from tests.deploy.files import DOCKER, ROOT, documents

from backwire_server.config_options import OPTIONS
from backwire_server.config_values import read_seconds

GUIDE = (ROOT / "docs" / "operations.md").read_text()
PROSE = re.sub(r"```.*?```", "", GUIDE, flags=re.DOTALL)


def test_files_that_it_names_exist() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", GUIDE)
    targets += [
        f"../{path}" for path in re.findall(r"\bdocker/(?:certificates|kubernetes|verify|compose\.yaml)", GUIDE)
    ]
    assert len(targets) > 8
    assert [target for target in targets if not (ROOT / "docs" / target).exists()] == []


def test_settings_that_it_names_are_known() -> None:
    known = {option.flag for options in OPTIONS.values() for option in options}
    known |= {flag.replace("--", "--no-") for flag in known}
    named = set(re.findall(r"`(--[a-z-]+)`", PROSE))
    assert len(named) > 10
    assert named <= known


def test_times_to_stop_are_those_of_the_files() -> None:
    (stateful_set,) = documents(DOCKER / "kubernetes" / "statefulset.yaml")
    (compose,) = documents(DOCKER / "compose.yaml")
    patience = stateful_set["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    service = compose["services"]["backwire"]
    sentence = r"(\d+) s for (\d+) s in the manifest, (\d+) s for (\d+) s in the compose file"
    told = re.search(sentence, re.sub(r"\s+", " ", GUIDE))
    assert told is not None
    configured = (DOCKER / "kubernetes" / "configmap.yaml").read_text()
    assert told[1] == str(patience)
    assert f'grace = "{told[2]}s"' in configured
    assert float(told[3]) == read_seconds(service["stop_grace_period"])
    assert float(told[4]) == read_seconds(service["environment"]["BACKWIRE_GRACE"])
