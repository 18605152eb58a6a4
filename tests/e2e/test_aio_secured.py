"""The asyncio client finds its server in a profile, and trains encrypted, with a token, on several processes."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.e2e.conftest import ServerProcess

import backwire as bw

TLS = Path(__file__).parent.parent / "client/tls"
CA = TLS / "server.pem"


def new_token(file: Path) -> str:
    command = [sys.executable, "-m", "backwire", "token", "new", "--tenant", "acme", "--scope", "write"]
    made = subprocess.run([*command, "--file", str(file)], capture_output=True, text=True, timeout=60, check=True)
    return made.stdout.strip()


def test_a_profile_says_all_that_a_secured_server_wants(
    start_server: Callable[..., ServerProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, config = tmp_path / "tokens.toml", tmp_path / "config.toml"
    token = new_token(tokens)
    address = start_server(
        *("--workers", "2", "--tls-certificate", str(CA), "--tls-key", str(TLS / "server.key")),
        *("--tokens", str(tokens), "--data-dir", str(tmp_path / "data")),
    ).wait_until_ready()
    config.write_text(
        f'[default]\ntarget = "{address}"\nca = "{CA}"\nserver_name = "backwire.test"\n'
        f'[prod]\ntarget = "{address}"\nca = "{CA}"\nserver_name = "backwire.test"\ntoken = "{token}"\n'
    )
    monkeypatch.setenv("BACKWIRE_CLIENT_CONFIG", str(config))

    async def train() -> list[float]:
        async with bw.aio.connect(profile="prod") as client:
            y = bw.input("y", ("batch",))
            loss = bw.mean((bw.parameter("w", 0.0) - y) ** 2)
            sessions = [await client.create_session(loss, bw.SGD(0.25)) for _ in range(4)]
            histories = await asyncio.gather(*(each.fit({"y": [2.0]}, epochs=2) for each in sessions))
            await sessions[0].save_checkpoint("kept")
            assert len(await sessions[0].checkpoints()) >= 1
            return [each.epochs[-1].figures["loss"] for each in histories]

    async def without_a_token() -> None:
        async with bw.aio.connect() as client:
            await client.ops()

    assert asyncio.run(train()) == [1.0] * 4
    with pytest.raises(bw.AuthenticationError, match="token"):
        asyncio.run(without_a_token())
    with bw.connect(profile="prod") as client:
        assert len(list(client.sessions())) == 4
