"""A server as operators run it for tenants they do not trust: encrypted, with tokens, watched, in several processes."""

import re
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.e2e.conftest import ServerProcess
from tests.waiting import until

import backwire as bw
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_api.v1 import gradient_service_pb2_grpc as service

TLS = Path(__file__).parent.parent / "client/tls"
CA = TLS / "server.pem"
BATCH = {"target": [1.0, 2.0, 3.0]}

Start = Callable[..., ServerProcess]


def cli(*arguments: str, token: str = "") -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "", "BACKWIRE_TOKEN": token}
    command = [sys.executable, "-m", "backwire", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def new_token(file: Path, tenant: str) -> str:
    made = cli("token", "new", "--tenant", tenant, "--scope", "write", "--file", str(file))
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def loss() -> Any:
    return bw.squared_error(bw.parameter("w", np.zeros(3)), bw.input("target", (3,)))


def fetched(server: ServerProcess) -> dict[str, Any]:
    url = until(lambda: re.search(r"metrics on (\S+?/metrics)", "".join(server.errors)))  # once that is read
    assert url is not None
    context = ssl.create_default_context(cafile=str(CA))
    context.check_hostname = False
    with urllib.request.urlopen(f"https://{url[1]}", context=context, timeout=20) as answer:
        return {each.name: each for each in text_string_to_metric_families(answer.read().decode())}


def family_sum(server: ServerProcess, name: str) -> float:
    return float(sum(each.value for each in fetched(server)[name].samples if each.name == f"{name}_sum"))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_tenants_train_encrypted_and_apart_and_the_operator_sees_it(
    start_server: Start, tmp_path: Path, workers: str
) -> None:
    file = tmp_path / "tokens.toml"
    acme, umbrella = new_token(file, "acme"), new_token(file, "umbrella")
    server = start_server(
        *("--workers", workers, "--tls-certificate", str(CA), "--tls-key", str(TLS / "server.key")),
        *("--tokens", str(file), "--metrics-listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "data")),
    )
    address = server.wait_until_ready()
    tls = bw.TLS(root_certificates=CA.read_bytes(), server_name="backwire.test")
    with bw.connect(address, tls=tls, token=acme) as client, bw.connect(address, tls=tls, token=umbrella) as other:
        session = client.create_session(loss(), optimizer=bw.SGD(0.1), request_id="same")
        foreign = other.create_session(loss(), optimizer=bw.SGD(0.1), request_id="same")
        assert session.train_step(BATCH).step == 1
        with pytest.raises(bw.SessionNotFoundError):
            other.session(session.id)
        assert [each.id for each in client.sessions()] == [session.id]
        assert [each.id for each in other.sessions()] == [foreign.id]
    assert family_sum(server, "backwire_journal_seconds") > 0.0, "a durable step was written"
    with bw.connect(address, tls=tls) as nobody, pytest.raises(bw.AuthenticationError, match="token"):
        nobody.create_session(loss())

    flags = ("--target", address, "--ca", str(CA), "--server-name", "backwire.test")
    assert cli("health", *flags).stdout == "SERVING\n", "health needs no token"
    listed = cli("sessions", *flags, token=acme)
    assert session.id in listed.stdout
    assert foreign.id not in listed.stdout

    families = fetched(server)
    steps = [each for each in families["backwire_calls"].samples if each.labels["method"] == "TrainStep"]
    assert [(each.labels["tenant"], each.labels["code"], each.value) for each in steps] == [("acme", "OK", 1.0)]
    sessions = {each.labels["tenant"]: each.value for each in families["backwire_sessions"].samples}
    assert sessions == {"acme": 1.0, "umbrella": 1.0}
    server.signal()
    assert server.wait() == 0
    assert "Fatal Python error" not in "".join(server.errors), "a worker ended in disorder"
    assert acme not in "".join(server.errors)


def test_a_call_tells_where_its_time_went(start_server: Start) -> None:
    with grpc.insecure_channel(start_server("--workers", "2").wait_until_ready()) as channel:
        _, call = service.GradientServiceStub(channel).ListOps.with_call(pb.ListOpsRequest(), timeout=20)
    told = str(dict(call.trailing_metadata())["server-timing"])
    assert re.fullmatch(r"queue;dur=[0-9.]+, compute;dur=[0-9.]+, journal;dur=[0-9.]+", told)


def test_a_server_without_usable_files_does_not_start(start_server: Start, tmp_path: Path) -> None:
    wrong = tmp_path / "tokens.toml"
    wrong.write_text("[[token]]\nname = 3\n")
    for flags in (["--tokens", str(wrong)], ["--tls-certificate", str(wrong), "--tls-key", str(wrong)]):
        for workers in ("1", "2"):
            server = start_server(*flags, "--workers", workers)
            assert server.wait() == 1
            assert str(wrong) in "".join(server.errors)
