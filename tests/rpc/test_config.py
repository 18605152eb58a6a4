"""Flags win over the environment, the environment over defaults, and what is wrong is said."""

import re
from typing import Any

import pytest

from backwire_server.config import PARTS, Config
from backwire_server.config_options import OPTIONS
from backwire_server.config_reading import parse
from backwire_server.config_values import Option, read_bytes, read_seconds
from backwire_server.machine import usable_cores
from backwire_server.sessions.limits import GiB, MiB

ALL = [option for group in OPTIONS.values() for option in group]


def wrong(capsys: pytest.CaptureFixture[str], arguments: list[str], environment: dict[str, str]) -> str:
    with pytest.raises(SystemExit) as caught:
        parse(arguments, environment)
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_without_anything_the_defaults_hold() -> None:
    config = parse([], {})
    assert config == Config()
    assert (config.listen, config.limits.max_message_bytes) == ("127.0.0.1:50051", 256 * MiB)


def test_flags_win_over_the_environment() -> None:
    environment = {"BACKWIRE_MAX_PASSES": "3", "BACKWIRE_MAX_SESSIONS": "4", "BACKWIRE_ACCESS_LOG": "yes"}
    config = parse(["--max-passes", "5", "--no-access-log"], environment)
    assert (config.limits.max_passes, config.limits.max_sessions, config.access_log) == (5, 4, False)


def test_an_empty_variable_counts_as_unset() -> None:
    assert parse([], {"BACKWIRE_LISTEN": ""}).listen == Config().listen


SAMPLES: dict[str, tuple[str, Any]] = {
    "listen": ("[::1]:0", "[::1]:0"),
    "allow_plaintext": ("true", True),
    "grace": ("1.5", 1.5),
    "exit_with_parent": ("1", True),
    "log_level": ("DEBUG", "debug"),
    "access_log": ("on", True),
    "metrics_listen": ("127.0.0.1:9464", "127.0.0.1:9464"),
    "tracing": ("yes", True),
    "reflection": ("yes", True),
    "channelz": ("yes", True),
    "replica": ("backwire-0", "backwire-0"),
    "tls_certificate": (__file__, __file__),
    "tls_key": (__file__, __file__),
    "client_ca": (__file__, __file__),
    "peer_ca": (__file__, __file__),
    "tokens": (__file__, __file__),
    "workers": ("3", 3),
    "worker_port": ("50052", 50052),
    "compute_threads": ("2", 2),
    "executor": ("jax", "jax"),
    "precision": ("BFLOAT16", "bfloat16"),
    "jax_devices": ("4", 4),
    "group_sessions": ("yes", True),
    "tune_blas": ("no", False),
    "tune_allocator": ("off", False),
    "ray": ("10.0.0.7:6379", "10.0.0.7:6379"),
    "min_workers": ("2", 2),
    "max_workers": ("8", 8),
    "worker_cpus": ("4", 4),
    "worker_gpus": ("1", 1),
    "worker_memory": ("16GiB", 16 * GiB),
    "max_message_bytes": ("8MiB", 8 * MiB),
    "max_pipeline_bytes": ("7", 7),
    "max_graph_nodes": ("7", 7),
    "max_parameters": ("7", 7),
    "max_parameter_bytes": ("2GB", 2 * 10**9),
    "max_attribute_bytes": ("1MiB", MiB),
    "max_tensor_rank": ("7", 7),
    "max_tensor_bytes": ("1GiB", GiB),
    "max_compile_time": ("5s", 5.0),
    "max_call_flops": ("1_000_000_000", 10**9),
    "max_call_bytes": ("1GiB", GiB),
    "max_passes": ("7", 7),
    "max_pass_bytes": ("7", 7),
    "pass_ttl": ("15m", 900.0),
    "max_sessions": ("1_000_000", 1_000_000),
    "max_total_bytes": ("1.5GiB", 3 * GiB // 2),
    "idle_ttl": ("2d", 172_800.0),
    "data_dir": ("/var/lib/backwire", "/var/lib/backwire"),
    "durability": ("fsync", "fsync"),
    "max_disk_bytes": ("1TB", 1000**4),
    "checkpoint_bytes": ("1MiB", MiB),
    "checkpoint_url": ("s3://bucket/path", "s3://bucket/path"),
    "shared": ("yes", True),
    "lease": ("3s", 3.0),
    "advertise": ("10.0.0.7:50051", "10.0.0.7:50051"),
    "lanes": ("no", False),
    "lane_port": ("50052", 50_052),
    "hibernate_after": ("30s", 30.0),
    "max_awake_sessions": ("12", 12),
    "max_concurrent_calls": ("7", 7),
    "max_concurrent_streams": ("7", 7),
    "max_concurrent_pipelines": ("7", 7),
    "max_concurrent_lookups": ("7", 7),
    "max_concurrent_computations": ("3", 3),
    "max_helpers": ("3", 3),
    "max_helper_pass_bytes": ("1MiB", 1 << 20),
    "peer_helpers": ("2", 2),
    "max_request_bytes": ("4GiB", 4 * GiB),
    "max_calls_per_second": ("500", 500),
    "max_connections": ("9", 9),
    "keepalive": ("30s", 30.0),
    "patience": ("2m", 120.0),
    "tenant_max_sessions": ("5", 5),
    "tenant_max_bytes": ("1GiB", GiB),
    "tenant_max_calls": ("8", 8),
    "tenant_calls_per_second": ("100", 100),
    "tenant_bytes_per_second": ("10MB", 10**7),
    "tenant_flops_per_second": ("1_000_000_000", 10**9),
}


TOGETHER: dict[str, tuple[str, ...]] = dict.fromkeys(
    ("tls_certificate", "tls_key", "client_ca"), ("tls_certificate", "tls_key")
)
TOGETHER |= {"shared": ("replica", "data_dir"), "ray": ("data_dir",)}
TOGETHER |= dict.fromkeys(("peer_helpers", "lane_port"), ("shared", "replica", "data_dir"))
TOGETHER |= {"peer_ca": ("tls_certificate", "tls_key", "shared", "replica", "data_dir")}
"""What must be set beside a setting."""


@pytest.mark.parametrize("option", ALL, ids=lambda option: option.name)
@pytest.mark.usefixtures("all_extras")
def test_every_setting_has_a_flag_and_a_variable(option: Option) -> None:
    text, value = SAMPLES[option.name]
    flags = [option.flag, text]
    others = [name for name in TOGETHER.get(option.name, ()) if name != option.name]
    if isinstance(value, bool):
        flags = [option.flag if value else option.flag.replace("--", "--no-", 1)]
    needed = {f"BACKWIRE_{name.upper()}": SAMPLES[name][0] for name in others}
    for config in (parse(flags, needed), parse([], {option.variable: text, **needed})):
        owners = [each for each in (config, *(getattr(config, part) for part in PARTS)) if hasattr(each, option.name)]
        assert [getattr(owner, option.name) for owner in owners] == [value]
    default = next(each for each in (Config(), *(kind() for kind in PARTS.values())) if hasattr(each, option.name))
    assert value != getattr(default, option.name), "a sample that is the default proves nothing"


def test_the_help_tells_every_flag_variable_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["--help"], {})
    assert caught.value.code == 0
    text = re.sub(r"\s+", " ", capsys.readouterr().out)
    for option in ALL:
        assert option.flag in text
        assert option.variable in text
    for default in ("127.0.0.1:50051", "256MiB", "600s", "never"):
        assert default in text


def test_there_is_a_worker_per_core_unless_told_otherwise_and_none_without_a_session() -> None:
    assert parse([], {}).worker_count == usable_cores()
    assert parse(["--workers", "7"], {}).worker_count == 7
    assert parse(["--workers", "7", "--max-sessions", "3"], {}).worker_count == 3


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["--version"], {})
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("backwire ")


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        ("--listen", "127.0.0.1"),
        ("--listen", "127.0.0.1:65536"),
        ("--listen", "::1:80"),
        ("--listen", "unix:"),
        ("--listen", "unix:/" + "a" * 200),
        ("--listen", "unix-abstract:name"),
        ("--workers", "0"),
        ("--worker-port", "0"),
        ("--worker-port", "65536"),
        ("--ray", "somewhere"),
        ("--max-passes", "0"),
        ("--max-passes", "-1"),
        ("--max-passes", "many"),
        ("--max-message-bytes", "12 elephants"),
        ("--max-message-bytes", "0"),
        ("--pass-ttl", "0"),
        ("--pass-ttl", "inf"),
        ("--idle-ttl", "-1"),
        ("--log-level", "loud"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_its_flag_or_variable(
    capsys: pytest.CaptureFixture[str], flag: str, text: str
) -> None:
    assert flag in wrong(capsys, [f"{flag}={text}"], {})
    variable = "BACKWIRE_" + flag.removeprefix("--").replace("-", "_").upper()
    assert variable in wrong(capsys, [], {variable: text})


def test_a_flag_in_the_environment_must_be_yes_or_no(capsys: pytest.CaptureFixture[str]) -> None:
    assert "BACKWIRE_ACCESS_LOG: 'perhaps'" in wrong(capsys, [], {"BACKWIRE_ACCESS_LOG": "perhaps"})


def test_abbreviations_and_unknown_flags_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--max-pas" in wrong(capsys, ["--max-pas", "3"], {})


@pytest.mark.parametrize(("text", "value"), [("4096", 4096), ("64MB", 64 * 10**6), ("1.5KiB", 1536), ("2G", 2 * 10**9)])
def test_bytes_are_written_in_the_usual_ways(text: str, value: int) -> None:
    assert read_bytes(text) == value


@pytest.mark.parametrize(("text", "value"), [("2.5", 2.5), ("250ms", 0.25), ("90s", 90.0), ("2h", 7200.0)])
def test_times_are_written_in_the_usual_ways(text: str, value: float) -> None:
    assert read_seconds(text) == value
