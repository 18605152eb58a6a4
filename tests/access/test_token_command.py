"""`backwire token` makes what a server takes, and takes it away again."""

import argparse
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.access.conftest import entry, new_token

from backwire import InvalidRequestError
from backwire._cli import _tokens
from backwire_server.access.keyring import Keyring
from backwire_server.sessions.caller import Caller, Scope, is_tenant
from backwire_server.sessions.errors import Unauthenticated


def run(*arguments: str | Path) -> _tokens.Printed:
    parser = argparse.ArgumentParser()
    _tokens.add_options(parser)
    return _tokens.run(parser.parse_args([str(each) for each in arguments]))


def new(file: Path, *more: str) -> str:
    return run("new", "--tenant", "acme", "--scope", "write", "--file", file, *more).out[0]


def identify(file: Path, token: str, *, now: datetime | None = None) -> Caller:
    keyring = Keyring(file, now=lambda: now or datetime.now(UTC))
    return keyring.identify([("authorization", f"Bearer {token}")])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokens.toml"


@pytest.mark.parametrize("scope", list(Scope))
def test_a_server_accepts_what_is_made(scope: Scope, file: Path) -> None:
    token = run("new", "--tenant", "acme", "--scope", scope.value, "--name", "eve@night", "--file", file).out[0]
    assert identify(file, token) == Caller("eve@night", "acme", scope)
    assert identify(file, new(file)) == Caller("acme-write", "acme", Scope.WRITE)
    assert identify(file, token).name == "eve@night"


def test_the_token_is_in_no_file_and_not_on_standard_error(file: Path) -> None:
    printed = run("new", "--tenant", "acme", "--scope", "read", "--file", file)
    secret = printed.out[0][20:]
    assert len(secret) == 43
    assert secret not in file.read_text() + "".join(printed.err)


def test_without_a_file_the_entry_is_printed_apart_from_the_token(file: Path) -> None:
    printed = run("new", "--tenant", "acme", "--scope", "read", "--expires", "12h")
    file.write_text("\n".join(printed.err))
    assert identify(file, printed.out[0]) == Caller("acme-read", "acme", Scope.READ)


def test_a_token_expires_when_it_was_said_to(file: Path) -> None:
    token = new(file, "--expires", "90d")
    end = datetime.now(UTC) + timedelta(days=90)
    assert identify(file, token, now=end - timedelta(hours=1)).tenant == "acme"
    with pytest.raises(Unauthenticated, match="expired"):
        identify(file, token, now=end + timedelta(hours=1))


def test_a_new_file_is_the_owners_alone_and_another_keeps_its_mode(file: Path) -> None:
    new(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o640)
    new(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert [each.name for each in file.parent.iterdir()] == [file.name]


def test_a_link_to_the_file_stays_one(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.toml"
    file.touch()
    link.symlink_to(file)
    token = new(link)
    assert link.is_symlink()
    assert identify(file, token).tenant == "acme"


def test_the_list_tells_all_but_the_hash(file: Path) -> None:
    new(file)
    new(file, "--name", "second", "--expires", "1d")
    file.write_text(f"{file.read_text()}\n{entry(new_token(), expires='2020-01-01T00:00:00Z')}\n")
    head, first, second, third = run("list", "--file", file).out
    assert head.split() == ["ID", "NAME", "TENANT", "SCOPE", "EXPIRES"]
    assert first.split()[1:] == ["acme-write", "acme", "write", "never"]
    assert second.split()[1] == "second"
    assert third.endswith("2020-01-01T00:00:00Z (expired)")
    assert max(map(len, (first, second, third))) < 100


def test_a_revoked_token_is_unknown_and_the_rest_of_the_file_is_as_it_was(file: Path) -> None:
    first, second, third = (new_token() for _ in range(3))
    others = f"# ours\n{entry(first)}\n\n", f"# the last one\n{entry(third)} # good\n"
    file.write_text(f"{others[0]}{entry(second)}\n# gone with it\nexpires = 2027-01-01T00:00:00Z\n\n{others[1]}")
    assert run("revoke", "--file", file, second[3:19]).out == (f"revoked {second[3:19]}",)
    assert file.read_text() == "".join(others)
    with pytest.raises(Unauthenticated, match="unknown"):
        identify(file, second)


def test_a_name_stands_for_all_tokens_that_have_it(file: Path) -> None:
    gone, stays = [new(file, "--name", "old"), new(file, "--name", "old")], new(file, "--name", "young")
    assert run("revoke", "--file", file, "old").out == tuple(f"revoked {token[3:19]}" for token in gone)
    assert identify(file, stays).name == "young"
    assert len(run("list", "--file", file).out) == 2


def test_the_longest_tenant_is_one_to_the_server_too_and_a_longer_one_to_neither(file: Path) -> None:
    longest = "a" * 24
    assert identify(file, run("new", "--tenant", longest, "--scope", "read", "--file", file).out[0]).tenant == longest
    with pytest.raises(SystemExit):
        run("new", "--tenant", f"{longest}a", "--scope", "read", "--file", file)
    assert not is_tenant(f"{longest}a")


def test_a_name_of_several_tenants_is_not_enough(file: Path) -> None:
    new(file, "--name", "one")
    run("new", "--tenant", "other", "--scope", "read", "--name", "one", "--file", file)
    before = file.read_text()
    with pytest.raises(InvalidRequestError, match="give the id"):
        run("revoke", "--file", file, "one")
    assert file.read_text() == before


def test_what_cannot_be_revoked_is_told(file: Path) -> None:
    new(file)
    with pytest.raises(InvalidRequestError, match="no token of this id or name"):
        run("revoke", "--file", file, "nobody")
    with pytest.raises(InvalidRequestError, match="No such file"):
        run("list", "--file", file.with_name("none"))


@pytest.mark.parametrize("text", ["[[token", "token = 3", f"token = [{{ id = '{'0' * 16}' }}]"])
def test_a_file_that_cannot_be_changed_safely_is_left_alone(text: str, file: Path) -> None:
    file.write_text(text)
    with pytest.raises(InvalidRequestError):
        new(file)
    with pytest.raises(InvalidRequestError):
        run("revoke", "--file", file, "0" * 16)
    assert file.read_text() == text


@pytest.mark.parametrize(
    ("option", "value"),
    [("--tenant", "A"), ("--scope", "root"), ("--name", 'a"b'), ("--expires", "0d"), ("--expires", "99999999d")],
)
def test_wrong_options_are_refused(option: str, value: str, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("new", "--tenant", "acme", "--scope", "read", "--file", file, option, value)
    assert option in capsys.readouterr().err
    assert not file.exists()
