"""A token tells who calls, and nobody else gets in, also after the tokens file has changed."""

import logging
from datetime import timedelta
from pathlib import Path

import pytest
from tests.access.conftest import NOW, entry, new_token, write

from backwire_server.access.keyring import Keyring
from backwire_server.access.tokens import read_tokens
from backwire_server.config_values import ConfigError
from backwire_server.sessions.caller import Caller, Scope
from backwire_server.sessions.errors import Unauthenticated

TRAINER = Caller("trainer-1", "acme", Scope.WRITE)


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def token() -> str:
    return new_token()


@pytest.fixture
def path(tmp_path: Path, token: str) -> Path:
    return write(tmp_path / "tokens.toml", [entry(token)])


@pytest.fixture
def keyring(path: Path, clock: Clock) -> Keyring:
    return Keyring(path, monotonic=clock, now=lambda: NOW)


def bearer(token: str) -> list[tuple[str, str | bytes]]:
    return [("user-agent", "test"), ("authorization", f"Bearer {token}")]


def refusal(keyring: Keyring, metadata: list[tuple[str, str | bytes]]) -> str:
    with pytest.raises(Unauthenticated) as caught:
        keyring.identify(metadata)
    return str(caught.value)


def test_a_token_tells_who_calls(keyring: Keyring, token: str) -> None:
    assert keyring.identify(bearer(token)) == TRAINER
    assert keyring.identify([("authorization", f"bearer  {token}".encode())]) == TRAINER


def test_a_call_without_a_token_is_refused(keyring: Keyring) -> None:
    assert "no token came with the call" in refusal(keyring, [("user-agent", "test")])


def test_an_authorization_of_another_form_is_refused(keyring: Keyring, token: str) -> None:
    for value in (token, f"Basic {token}", "Bearer", f"Bearer {token} {token}", ""):
        assert "not a single `Bearer TOKEN`" in refusal(keyring, [("authorization", value)])
    assert "not a single `Bearer TOKEN`" in refusal(keyring, [*bearer(token), *bearer(token)])


def test_an_unknown_id_and_a_wrong_secret_are_told_alike(keyring: Keyring, token: str) -> None:
    wrong_secret = token[:20] + new_token()[20:]
    answers = {refusal(keyring, bearer(wrong)) for wrong in (new_token(), wrong_secret, token[:-1], "x", "bw_ÿ\udc80")}
    assert len(answers) == 1
    assert "unknown" in answers.pop()


def test_an_expired_token_is_refused_and_one_that_will_expire_is_not(tmp_path: Path) -> None:
    old, good = new_token(), new_token()
    moments = (NOW, NOW + timedelta(seconds=1))
    entries = [entry(each, expires=when.isoformat()) for each, when in zip((old, good), moments, strict=True)]
    keyring = Keyring(write(tmp_path / "tokens.toml", entries), now=lambda: NOW)
    assert "expired at 2026-06-01T00:00:00+00:00" in refusal(keyring, bearer(old))
    assert keyring.identify(bearer(good)) == TRAINER


def test_a_token_is_rotated_without_a_restart(keyring: Keyring, clock: Clock, path: Path, token: str) -> None:
    second = new_token()
    write(path, [entry(token), entry(second)])
    clock.seconds = 1.0
    assert keyring.identify(bearer(token)) == keyring.identify(bearer(second)) == TRAINER
    write(path, [entry(second)])
    clock.seconds = 1.5
    assert keyring.identify(bearer(token)) == TRAINER, "the file is looked at once a second"
    clock.seconds = 2.0
    assert "unknown" in refusal(keyring, bearer(token))
    assert keyring.identify(bearer(second)) == TRAINER


@pytest.mark.parametrize("content", ["[[token]", "[[token]]\nid = 3", None])
def test_a_file_that_became_wrong_changes_nothing_and_is_logged_once(
    content: str | None, keyring: Keyring, clock: Clock, path: Path, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    for clock.seconds in (1.0, 2.0, 3.0):
        assert keyring.identify(bearer(token)) == TRAINER
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert str(path) in errors[0]
    write(path, [])
    clock.seconds = 4.0
    assert "unknown" in refusal(keyring, bearer(token))


def test_a_server_does_not_start_without_the_file_or_with_a_wrong_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Keyring(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="is no TOML"):
        Keyring(write(tmp_path / "tokens.toml", ["="]))


def test_a_file_that_everybody_may_read_is_warned_of(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.chmod(0o640)
    Keyring(path)
    assert not caplog.records
    path.chmod(0o644)
    Keyring(path)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path} can be read by every user of this machine; run: chmod o= {path}"
    ]


WRONG = {
    "id": ['"0123"', "3", '"0123456789ABCDEF"', ""],
    "name": ['""', '"-a"', '"a b"', "[]", f'"{"a" * 49}"', ""],
    "tenant": ['"Acme"', '"a.b"', '"-"', "true", ""],
    "scope": ['"root"', '"WRITE"', "1", ""],
    "sha256": ['"00"', f'"{"Z" * 64}"', f'"{"A" * 64}"', ""],
    "expires": ['"2027-01-01T00:00:00Z"', "2027-01-01", "2027-01-01T00:00:00", "12:00:00", "7"],
    "expiry": ["2027-01-01T00:00:00Z"],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG.items() for value in values])
def test_what_is_wrong_with_an_entry_is_told_with_file_entry_and_key(
    key: str, value: str, tmp_path: Path, token: str
) -> None:
    path = write(tmp_path / "tokens.toml", [entry(new_token()), entry(token, **{key: value})])
    with pytest.raises(ConfigError) as caught:
        read_tokens(path)
    where = "" if key == "name" else " (trainer-1)"
    assert str(caught.value).startswith(f"{path}: entry 2{where}: {key} is ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("other = 1\n", "something besides entries"),
        ("[token]\n", "something besides entries"),
        ("token = [1]\n", "something besides entries"),
        ("a = 1\na = 2\n", "no TOML at line 2, column"),
    ],
)
def test_a_file_of_another_form_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "tokens.toml", [text])
    with pytest.raises(ConfigError, match=message):
        read_tokens(path)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not in UTF-8"):
        read_tokens(path)


def test_two_entries_of_one_id_are_refused(tmp_path: Path, token: str) -> None:
    with pytest.raises(ConfigError, match="entry 2 has the id of another one"):
        read_tokens(write(tmp_path / "tokens.toml", [entry(token), entry(token)]))


def test_no_error_log_or_repr_has_a_token_or_its_hash(
    tmp_path: Path, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    digest = entry(token).split('sha256 = "')[1][:64]
    said = []
    path = tmp_path / "tokens.toml"
    misplaced = [entry(token, **{key: f'"{secret}"'}) for key in WRONG for secret in (token, f"{digest} ")]
    twisted = [f"[[{token}]]", f'"{token}" = 1\n"{token}" = 2', f"[[token]]\n{token} = 1", f"[[token]]\nid = {token}"]
    for text in [*misplaced, *twisted, f"[[token]]\n{digest} = 1"]:
        with pytest.raises(ConfigError) as caught:
            read_tokens(write(path, [text]))
        said.append(str(caught.value))
    tokens = read_tokens(write(path, [entry(token)]))
    keyring = Keyring(path)
    said += [refusal(keyring, bearer(token[:-1])), refusal(keyring, [("authorization", token)])]
    said += [repr(tokens), repr(tokens.find(token)), repr(keyring), caplog.text]
    everything = "\n".join(said)
    assert token[20:-1] not in everything
    assert digest not in everything
    assert repr(bytes.fromhex(digest))[2:-1] not in everything
