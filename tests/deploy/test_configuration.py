"""The list of settings is that of the server, and the file that it shows is one that a server reads."""

import re
import tomllib
from pathlib import Path

import pytest
from tests.deploy.configuration import MARK, TABLES, with_tables
from tests.deploy.files import ROOT

from backwire_server.config_options import OPTIONS
from backwire_server.config_reading import parse
from backwire_server.config_values import ConfigError

PATH = ROOT / "docs" / "configuration.md"
TEXT = PATH.read_text()
ALL = [option for options in OPTIONS.values() for option in options]
NAMES_FILES = ("tls_certificate", "tls_key", "tokens")


def test_the_list_is_that_of_today() -> None:
    assert with_tables(TEXT) == TEXT, "run `python -m tests.deploy.configuration docs/configuration.md`"


def test_every_setting_has_a_row_with_its_flag_and_its_variable() -> None:
    rows = [line for line in TEXT.partition(MARK)[2].splitlines() if line.startswith("| `--")]
    assert len(rows) == len(ALL)
    for row, option in zip(rows, ALL, strict=True):
        assert re.match(rf"\| `{option.flag}[` ]", row)
        assert f"`{option.variable}`" in row


def test_a_list_that_is_not_that_of_today_is_found() -> None:
    assert with_tables(TEXT.replace("`--grace TIME`", "`--disgrace TIME`")) == TEXT
    with pytest.raises(ValueError, match="not found"):
        with_tables("# Nothing to write behind")


def test_the_file_that_it_shows_is_read(tmp_path: Path) -> None:
    (shown,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    for name in NAMES_FILES:
        path = tmp_path / name
        path.touch()
        shown = re.sub(rf'^{name} = ".*"$', f'{name} = "{path}"', shown, flags=re.MULTILINE)
    (tmp_path / "backwire.toml").write_text(shown)
    config = parse(["--config", str(tmp_path / "backwire.toml")], {})
    assert (config.grace, config.limits.max_sessions, config.keeping.data_dir) == (30.0, 500, "/var/lib/backwire")
    tables = {key for key, value in tomllib.loads(shown).items() if isinstance(value, dict)}
    assert tables <= set(TABLES.values())


def test_values_are_written_as_it_says() -> None:
    values = re.findall(r"`([^`]+)`", TEXT.partition("## Values")[2].partition("## Looking")[0])
    readers = {option.metavar: option.read for option in ALL}
    for kind, samples in {"BYTES": values[1:4], "TIME": values[5:11], "N": values[12:13]}.items():
        for sample in samples:
            assert readers[kind](sample) > 0
    with pytest.raises(ConfigError):
        readers["BYTES"]("4096 bytes")
