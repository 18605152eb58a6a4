"""Where `connect` finds a server that nobody named, how long calls may take, and which versions meet."""

import asyncio
import math
import pwd
from pathlib import Path
from typing import Any

import grpc
import pytest

import backwire as bw
from backwire._settings import Settings, find
from backwire_api.v1 import gradient_service_pb2 as service_pb2

PEM = b"-----BEGIN CERTIFICATE-----\n"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without settings."""
    for name in ("XDG_CONFIG_HOME", *(f"BACKWIRE_{each}" for each in ("TARGET", "TOKEN", "CA", "TIMEOUT", "PROFILE"))):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def write(home: Path, text: str) -> Path:
    path = home / ".config" / "backwire" / "config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_the_environment_says_how_to_connect(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(PEM)
    found = find(
        None,
        {
            "BACKWIRE_TARGET": "host:1",
            "BACKWIRE_TOKEN": "secret",
            "BACKWIRE_CA": str(tmp_path / "ca.pem"),
            "BACKWIRE_SERVER_NAME": "name",
            "BACKWIRE_TIMEOUT": "2.5",
            "HOME": str(tmp_path),
        },
    )
    assert found == Settings("host:1", "secret", bw.TLS(root_certificates=PEM, server_name="name"), 2.5)


def test_a_profile_says_what_the_environment_does_not(home: Path) -> None:
    write(
        home, '[default]\ntarget = "one:1"\ntoken = "of the file"\n[two]\ntarget = "two:2"\ntls = true\ntimeout = 7\n'
    )
    base = {"HOME": str(home)}
    assert find(None, base) == Settings("one:1", "of the file")
    assert find("two", base) == find(None, base | {"BACKWIRE_PROFILE": "two"}) == Settings("two:2", None, True, 7.0)
    assert find(None, base | {"BACKWIRE_TARGET": "three:3"}) == Settings("three:3", "of the file")
    assert find(None, base | {"BACKWIRE_TARGET": ""}).target == "one:1"


def test_the_file_may_be_elsewhere(home: Path, tmp_path: Path) -> None:
    write(home, '[default]\ntarget = "one:1"\n').rename(tmp_path / "other.toml")
    (tmp_path / "xdg" / "backwire").mkdir(parents=True)
    (tmp_path / "xdg" / "backwire" / "config.toml").write_text('[default]\ntarget = "two:2"\n')
    assert find(None, {"BACKWIRE_CLIENT_CONFIG": str(tmp_path / "other.toml")}).target == "one:1"
    assert find(None, {"XDG_CONFIG_HOME": str(tmp_path / "xdg")}).target == "two:2"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[default", "is no TOML"),
        ("default = 5", "is no table"),
        ('[default]\nhost = "x"', "'host' is unknown; a profile has target, token"),
        ("[default]\ntarget = 5", "target is 5, which is no text"),
        ('[default]\ntimeout = "soon"', "timeout is 'soon', which is no number of seconds"),
        ('[default]\ntls = "perhaps"', "tls is 'perhaps'; write true or false"),
        ('[default]\nca = "nowhere.pem"', r"nowhere.pem cannot be read: No such file.*name a PEM file"),
        ("[other]", "no profile 'mine'; it has other"),
    ],
)
def test_a_file_that_cannot_be_used_says_where_and_what_to_do(home: Path, text: str, told: str) -> None:
    path = write(home, text)
    with pytest.raises(bw.InvalidRequestError, match=told) as caught:
        find("mine" if "other" in text else None, {"HOME": str(home)})
    assert str(path) in str(caught.value)


def test_a_user_without_a_home_has_no_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: int) -> Any:
        raise KeyError("uid not found")

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert find(None, {}) == Settings()


def test_connecting_without_a_target_uses_the_environment(
    target: str, service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKWIRE_TARGET", target)
    monkeypatch.setenv("BACKWIRE_TOKEN", "secret")

    async def ask() -> None:
        async with bw.aio.connect() as client:
            await client.ops()

    with bw.connect() as client:
        client.ops()
    asyncio.run(ask())
    assert [each["authorization"] for each in service.metadata] == ["Bearer secret"] * 2


def test_arguments_win_and_a_target_alone_is_given_no_token(
    target: str, service: Any, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    monkeypatch.setenv("BACKWIRE_TOKEN", "secret")
    monkeypatch.setenv("BACKWIRE_TARGET", "nowhere:1")
    write(home, "[mine]\ntimeout = 9\n")
    with bw.connect(target) as client:
        client.ops()
    with bw.connect(target, profile="mine", token="other") as client:
        client.ops()
    assert [each.get("authorization") for each in service.metadata] == [None, "Bearer other"]
    assert service.remaining[0] > 20 > service.remaining[1]


def test_no_target_at_all_is_told_with_the_remedy() -> None:
    for connect in (bw.connect, bw.aio.connect):
        with pytest.raises(bw.InvalidRequestError, match="set BACKWIRE_TARGET"):
            connect()


def test_transfers_have_a_time_of_their_own(target: str, service: Any) -> None:
    with bw.connect(target, timeout=bw.Timeout(call=20, transfer=math.inf)) as client:
        session = client.create_session(bw.parameter("w", [[1.0]]))
        session.parameters()
        session.parameters(timeout=5)
    call, transfer, own = service.remaining
    assert own < 6 < call < 21 < transfer


@pytest.mark.parametrize("seconds", [0, -1, math.nan])
def test_a_timeout_leaves_time(seconds: float) -> None:
    with pytest.raises(bw.InvalidRequestError, match="leaves no time"):
        bw.Timeout(transfer=seconds)
    with pytest.raises(bw.InvalidRequestError, match="leaves no time"):
        bw.connect("localhost", timeout=seconds)


def test_servers_are_told_the_version(client: bw.Client, service: Any) -> None:
    client.ops()
    assert service.metadata[0]["user-agent"].startswith(f"backwire-python/{bw.__version__} ")


def ask(target: str) -> None:
    with bw.connect(target) as client:
        client.ops()


def ask_and_await(target: str) -> None:
    async def use() -> None:
        async with bw.aio.connect(target) as client:
            await client.ops()

    asyncio.run(use())


@pytest.mark.parametrize("asking", [ask, ask_and_await])
def test_a_call_that_the_server_does_not_have_tells_both_versions(target: str, service: Any, asking: Any) -> None:
    unknown = service.refuse(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
    service.before["ListOps"] += [unknown, unknown]
    service.statuses.append(service_pb2.GetStatusResponse(version="0.0.9"))
    with pytest.raises(bw.UnsupportedCallError, match=rf"of version 0\.0\.9 and .* backwire {bw.__version__}; upgrade"):
        asking(target)
    service.before["GetStatus"].append(unknown)
    with pytest.raises(bw.UnsupportedCallError, match="older, or no Backwire server; upgrade it, or check the target"):
        asking(target)
