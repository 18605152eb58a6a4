"""Which settings go together, and which take what."""

from typing import Any

import pytest
from tests.rpc.test_config import wrong

from backwire_server.config import Config
from backwire_server.config_parts import Cluster, Keeping
from backwire_server.config_reading import parse
from backwire_server.config_values import ConfigError

SHARING = ("--shared", "--replica", "a", "--data-dir", "/data")


def test_ports_of_workers_go_with_a_port(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--worker-port" in wrong(capsys, ["--listen", "unix:/tmp/s", "--worker-port", "1"], {})


@pytest.mark.parametrize("address", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "example.com:1"])
def test_plaintext_beyond_this_machine_must_be_allowed(address: str) -> None:
    with pytest.raises(ConfigError, match="--allow-plaintext"):
        Config(listen=address)
    Config(listen=address, allow_plaintext=True)


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "127.1.2.3:1", "[::1]:1", "localhost:1", "unix:/tmp/s", "unix:///tmp/s"]
)
def test_plaintext_on_this_machine_is_fine(address: str) -> None:
    assert parse(["--listen", address], {}).listen == address


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ([], "--ray takes a --data-dir that all nodes have mounted"),
        (["--data-dir", "/data", "--max-disk-bytes", "1GB"], "--max-disk-bytes"),
        (["--data-dir", "/data", "--workers", "3"], "leave out --workers"),
        (["--data-dir", "/data", "--shared", "--replica", "a"], "leave out --workers"),
        (["--data-dir", "/data", "--min-workers", "3", "--max-workers", "2"], "less than --min-workers 3"),
    ],
)
def test_what_goes_with_workers_on_the_nodes_of_a_cluster_is_said(
    flags: list[str], told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backwire_server.config.find_spec", lambda _: True)
    assert told in wrong(capsys, ["--ray", "auto", *flags], {})


def test_a_cluster_needs_an_extra_and_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backwire_server.config.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"--ray needs .*backwire\[ray\]"):
        Config(keeping=Keeping(data_dir="/data"), cluster=Cluster(ray="auto"))


def test_a_single_message_must_fit_what_is_admitted(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--max-request-bytes" in wrong(capsys, ["--max-request-bytes", "1MiB"], {})


def test_a_chunk_must_fit_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--max-message-bytes" in wrong(capsys, ["--max-message-bytes", "2MiB"], {})


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--tls-certificate", __file__], "--tls-certificate and --tls-key go together"),
        (["--tls-key", __file__], "--tls-certificate and --tls-key go together"),
        (["--client-ca", __file__], "--client-ca takes --tls-certificate"),
        (["--peer-ca", __file__, *SHARING], "--peer-ca goes with --shared and --tls-certificate"),
        (["--peer-ca", __file__, "--tls-certificate", __file__, "--tls-key", __file__], "--peer-ca goes with --shared"),
        (["--peer-helpers", "2"], "--peer-helpers goes with --shared"),
        (["--tokens", "/nowhere/tokens.toml"], "is no file that can be read"),
        (["--tokens", "bw_secret"], "this is what such a file has in it"),
    ],
)
def test_what_lets_clients_in_must_go_together(flags: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(flags, {})
    said = capsys.readouterr().err
    assert told in said
    assert "bw_secret" not in said


def test_an_encrypted_address_may_be_reached_from_other_machines() -> None:
    encrypted = ["--tls-certificate", __file__, "--tls-key", __file__]
    assert parse(["--listen", "0.0.0.0:0", *encrypted], {}).listen == "0.0.0.0:0"


@pytest.mark.parametrize("name", ["tracing", "reflection", "channelz"])
def test_what_needs_an_extra_says_which(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backwire_server.config.find_spec", lambda _: None)
    settings: dict[str, Any] = {name: True}
    with pytest.raises(ConfigError, match=rf"--{name} needs .*backwire\[{name}\]"):
        Config(**settings)


def test_an_extra_may_lack_even_the_package_that_it_is_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(module: str) -> None:
        raise ModuleNotFoundError(module)

    monkeypatch.setattr("backwire_server.config.find_spec", find)
    with pytest.raises(ConfigError, match="--tracing needs"):
        Config(tracing=True)


def test_a_server_that_shares_a_directory_is_one_process_and_tells_where_it_is() -> None:
    assert parse(SHARING, {}).worker_count == 1
    assert parse([*SHARING, "--lane-port", "0", "--no-lanes"], {}).keeping.lane_port == 0
    assert parse([*SHARING, "--workers", "1"], {}).worker_count == 1
    everywhere = ("--allow-plaintext", "--listen", "0.0.0.0:50051", "--advertise", "a.example:50051")
    assert parse([*SHARING, *everywhere], {}).keeping.advertise == "a.example:50051"


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--shared", "--data-dir", "/data"], "--shared takes --replica"),
        (["--shared", "--replica", "a"], "--shared takes --replica and --data-dir"),
        ([*SHARING, "--workers", "2"], "one worker"),
        ([*SHARING, "--lease", "10ms"], "give 0.1 or more"),
        ([*SHARING, "--max-disk-bytes", "1GB"], "--max-disk-bytes does not go with --shared"),
        ([*SHARING, "--allow-plaintext", "--listen", "0.0.0.0:50051"], "--advertise"),
        ([*SHARING, "--allow-plaintext", "--listen", "[::]:50051"], "--advertise"),
        (["--lane-port", "50052"], "--lane-port goes with --shared"),
        ([*SHARING, "--lane-port", "50052", "--no-lanes"], "not with --no-lanes"),
        ([*SHARING, "--lane-port", "50052", "--listen", "unix:/run/backwire"], "--listen HOST:PORT"),
        ([*SHARING, "--lane-port", "65536"], "no port"),
    ],
)
def test_what_a_shared_directory_needs_must_go_together(
    flags: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told in wrong(capsys, flags, {})
