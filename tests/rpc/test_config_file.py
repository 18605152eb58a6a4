"""Settings in a file: the same as by flags and variables, and less than both."""

import json
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
from tests.rpc.test_config import ALL, SAMPLES, TOGETHER

from backwire_server.config import PARTS, Config
from backwire_server.config_reading import parse
from backwire_server.config_values import Option


def refused(capsys: pytest.CaptureFixture[str], path: Path, *flags: str) -> str:
    with pytest.raises(SystemExit) as caught:
        parse(["--config", str(path), *flags], {})
    assert caught.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("option", ALL, ids=lambda option: option.name)
@pytest.mark.usefixtures("all_extras")
def test_every_setting_may_be_in_a_file(option: Option, tmp_path: Path) -> None:
    path, names = tmp_path / "backwire.toml", {option.name, *TOGETHER.get(option.name, ())}
    path.write_text("".join(f'{name.replace("_", "-")} = "{SAMPLES[name][0]}"\n' for name in names))
    variables = {f"BACKWIRE_{name.upper()}": SAMPLES[name][0] for name in names}
    assert parse(["--config", str(path)], {}) == parse([], variables) == parse([], {"BACKWIRE_CONFIG": str(path)})


ALONE = {"shared", "peer_ca", "peer_helpers", "lane_port", "ray"}
"""What does not go with all others of its table."""


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.usefixtures("all_extras")
def test_every_setting_of_a_part_may_be_in_a_table_of_that_name(part: str, tmp_path: Path) -> None:
    path = tmp_path / "backwire.toml"
    names = [option.name for option in ALL if option.name in {each.name for each in fields(PARTS[part])} - ALONE]
    assert names
    path.write_text("\n".join([f"[{part}]", *(f'{name.replace("_", "-")} = "{SAMPLES[name][0]}"' for name in names)]))
    variables = {f"BACKWIRE_{name.upper()}": SAMPLES[name][0] for name in names}
    assert parse(["--config", str(path)], {}) == parse([], variables)


def test_tables_and_flat_settings_go_together(tmp_path: Path) -> None:
    path = tmp_path / "backwire.toml"
    path.write_text("max_passes = 3\ngrace = 1.5\n[limits]\nmax_sessions = 4\n[capacity]\nmax-concurrent-calls = 5\n")
    config = parse(["--config", str(path)], {})
    assert (config.limits.max_passes, config.grace) == (3, 1.5)
    assert (config.limits.max_sessions, config.capacity.max_concurrent_calls) == (4, 5)


def test_values_may_be_of_toml_s_own_types(tmp_path: Path) -> None:
    path = tmp_path / "backwire.toml"
    path.write_text("max_passes = 3\ngrace = 1.5\naccess_log = true\n")
    config = parse(["--config", str(path)], {})
    assert (config.limits.max_passes, config.grace, config.access_log) == (3, 1.5, True)


def test_flags_and_variables_win_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "backwire.toml"
    path.write_text("max_passes = 3\nmax_sessions = 4\nmax_parameters = 5\n")
    config = parse(["--config", str(path), "--max-passes", "7"], {"BACKWIRE_MAX_SESSIONS": "8"})
    assert (config.limits.max_passes, config.limits.max_sessions, config.limits.max_parameters) == (7, 8, 5)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("max_pases = 3", "there is no setting max_pases; max_passes is near"),
        ("nothing_like_it = 3", "there is no setting nothing_like_it; `python -m backwire_server --help` lists all"),
        ("max_passes = [3]", "max_passes is neither a string, a number nor a boolean"),
        ("max_passes = 0", "max_passes: '0' is no whole number of at least 1"),
        ("max_passes = 3\nmax-passes = 3", "max_passes is there twice"),
        ("max_passes = 3\n[limits]\nmax_passes = 3", "max_passes is there twice"),
        ("max_passes 3", "cannot be read"),
        ("[limit]\nmax_passes = 3", "there is no table [limit]; limits is near"),
        ("[nothing_like_it]\nmax_passes = 3", "no table [nothing_like_it]; there are [tuning], [access], [keeping], ["),
        ("[limits]\nmax_pases = 3", "there is no setting [limits] max_pases; max_passes is near"),
        ("[limits]\ndata_dir = 'x'", "data_dir is no setting of [limits]; write it below [keeping]"),
        ("[limits]\nmax_passes = 3\ngrace = 3", "grace is no setting of [limits]; write it above all tables"),
        ("[limits.deep]\nmax_passes = 3", "there is no setting [limits] deep"),
        ("[limits]\nmax_passes = {a = 3}", "[limits] max_passes is neither a string, a number nor a boolean"),
        ("[limits]\nmax_passes = 0", "max_passes: '0' is no whole number of at least 1"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_its_place(
    text: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "backwire.toml"
    path.write_text(text)
    error = refused(capsys, path)
    assert str(path) in error
    assert told in error
    assert "cannot be read" in refused(capsys, tmp_path / "missing.toml")


def test_a_check_prints_every_setting_with_its_origin_as_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "backwire.toml"
    path.write_text('max_passes = 3\nidle_ttl = "never"\ndata_dir = "/dé😀"\n')
    with pytest.raises(SystemExit) as caught:
        parse(["--check-config", "--config", str(path), "--grace", "2"], {"BACKWIRE_MAX_SESSIONS": "8"})
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for line in (f"max_passes = 3  # {path}", "grace = 2.0  # flag", "max_sessions = 8  # BACKWIRE_MAX_SESSIONS"):
        assert line in text.splitlines()
    assert {option.name for option in ALL if f"{option.name} = " in text} == {option.name for option in ALL}
    again = tmp_path / "again.toml"
    again.write_text(text)
    given = tomllib.loads(text)
    assert given["listen"] == Config().listen
    assert parse(["--config", str(again)], {}) == parse(
        ["--config", str(path), "--grace", "2"], {"BACKWIRE_MAX_SESSIONS": "8"}
    )


def test_a_check_as_json_tells_values_and_origins_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "backwire.toml"
    path.write_text('max_passes = 3\nidle_ttl = "never"\nreflection = true\n')
    with pytest.raises(SystemExit) as caught:
        parse(["--check-config", "--json", "--config", str(path), "--grace", "2"], {"BACKWIRE_MAX_SESSIONS": "8"})
    assert caught.value.code == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == [option.name for option in ALL]
    assert found["max_passes"] == {"value": 3, "origin": str(path)}
    assert found["idle_ttl"] == {"value": "never", "origin": str(path)}
    assert found["reflection"] == {"value": True, "origin": str(path)}
    assert found["grace"] == {"value": 2.0, "origin": "flag"}
    assert found["max_sessions"] == {"value": 8, "origin": "BACKWIRE_MAX_SESSIONS"}
    assert found["data_dir"] == {"value": None, "origin": "default"}


def test_json_without_a_check_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["--json"], {})
    assert caught.value.code == 2
    assert "--json goes with --check-config" in capsys.readouterr().err
