"""connect: a client of the server that arguments, the environment or a profile name."""

import os
from functools import partial

import grpc

from backwire._client import Client
from backwire._embedded import EmbeddedServer
from backwire._errors import InvalidRequestError
from backwire._settings import chosen
from backwire._wire._channel import TLS, following, open_channel, with_port
from backwire._wire._direct import Routes
from backwire._wire._following import FollowingChannel
from backwire._wire._retry import Retry
from backwire._wire._timeout import Timeout
from backwire._wire._transport import Transport

EMBEDDED = "embedded"


def connect(
    target: str | None = None,
    *,
    token: str | None = None,
    tls: TLS | bool | None = None,
    timeout: Timeout | float | None = None,
    retry: Retry | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    profile: str | None = None,
) -> Client:
    """Returns a client of the server at `target`.

    A network target is connected on first use, so a server that is not there shows as UnavailableError of the first
    call. Where the server has several processes, and that of a session can be reached, its calls go straight there.

    Args:
        target: `host:port` (the port is 50051 when left out), `unix:/path/to/socket`, any other gRPC target, or
            `"embedded"`, which starts a private server process that ends with the client, also when this process is
            killed. None for what the environment says, or a profile.
        token: Sent as `authorization: Bearer` with every call. Refused without TLS, except over loopback and unix
            sockets.
        tls: True to encrypt and trust the system's authorities, or a `TLS`; None or False for plain text.
        timeout: How long calls may take that are given no time of their own: seconds for all, or a `Timeout`.
        retry: How calls are repeated that the server could not take; None means `Retry()`.
        data_dir: Where an embedded server keeps sessions, which then outlive it, and are there for the next that is
            given the same directory; None for one that keeps them in memory.
        profile: Which profile says what no argument does; see below.

    Without a target, or with a profile, what is left out comes from BACKWIRE_TARGET, BACKWIRE_TOKEN, BACKWIRE_TLS
    (`true`), BACKWIRE_CA, BACKWIRE_SERVER_NAME, BACKWIRE_CERTIFICATE, BACKWIRE_KEY and BACKWIRE_TIMEOUT, and else from
    a profile: the table `[default]` of `~/.config/backwire/config.toml`, or the one that `profile` or BACKWIRE_PROFILE
    names. Its keys are `target`, `token`, `tls`, `ca`, `server_name`, `certificate`, `key` and `timeout`.
    BACKWIRE_CLIENT_CONFIG names another file.

    Example:
        >>> w = bw.parameter("w", [1.0, 2.0])
        >>> with bw.connect("embedded") as client:
        ...     session = client.create_session(bw.sum(w * w), optimizer=bw.SGD(0.25))
        ...     for _ in range(3):
        ...         session.train_step({}).loss
        5.0
        1.25
        0.3125
    """
    settings = chosen(target, token=token, tls=tls, timeout=timeout, profile=profile)
    target, token, tls = settings.at(), settings.token, settings.tls

    def send(channel: grpc.Channel) -> Transport:
        return Transport(channel, token=token, timeout=settings.timeout, retry=retry or Retry())

    check_embedded(target, token=token, tls=tls, data_dir=data_dir)
    if target != EMBEDDED:
        opened = partial(open_channel, token=token, tls=tls)
        channel = FollowingChannel(opened(target), following(target, opened))
        routes = Routes(with_port(target), channel, send, token=token, tls=tls)
        return Client(send(channel), routes=routes, target=with_port(target))
    server = EmbeddedServer(data_dir)
    return Client(send(open_channel(server.target, token=None, tls=None)), server, target=server.target)


def check_embedded(
    target: str, *, token: str | None, tls: TLS | bool | None, data_dir: str | os.PathLike[str] | None
) -> None:
    """Raises InvalidRequestError for what only an embedded server can have, or only another one."""
    if target != EMBEDDED and data_dir is not None:
        raise InvalidRequestError(
            "only an embedded server is told where to keep sessions; start the other one with --data-dir",
            field="data_dir",
        )
    if target == EMBEDDED and (token is not None or tls):
        raise InvalidRequestError("the embedded server is private already; leave out token and tls")
