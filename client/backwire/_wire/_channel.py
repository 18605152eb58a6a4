"""Opens gRPC channels: which options, which credentials, and where a token may travel."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, TypeVar

import grpc
import grpc.aio

from backwire._errors import InvalidRequestError
from backwire._version import __version__

Channel = TypeVar("Channel")

DEFAULT_PORT = 50051

_OPTIONS: Sequence[tuple[str, int | str]] = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_retries", 0),  # they give up above 256 KiB, and would hide failures from our own
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 400),  # a server that comes back is not kept waiting
    ("grpc.min_reconnect_backoff_ms", 5000),  # as long may connecting take before it is tried anew
    ("grpc.keepalive_time_ms", 20_000),  # a server that vanished without a word is noticed while a call waits for it
    ("grpc.keepalive_timeout_ms", 10_000),
    # Without it, a ping has a minute, whatever is said above. Older releases of grpcio read an answer to one after 5 s
    # only, when no thread waits for a call: a connection that is whole must not be taken for broken then.
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.use_local_subchannel_pool", 1),  # clients of one process have a connection each
    ("grpc.primary_user_agent", f"backwire-python/{__version__}"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TLS:
    """How to encrypt the connection and whom to trust. All files are PEM, given as bytes.

    Attributes:
        root_certificates: The authorities that may vouch for the server; None means those of the system.
        private_key: The client's key, for servers that ask clients to identify themselves.
        certificate_chain: The client's certificate and those above it; goes with `private_key`.
        server_name: The name that the server's certificate must bear; None means the host of the target.

    Example:
        >>> tls = bw.TLS(root_certificates=b"-----BEGIN CERTIFICATE-----...", server_name="trainer")
    """

    root_certificates: bytes | None = None
    private_key: bytes | None = None
    certificate_chain: bytes | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        for name in ("root_certificates", "private_key", "certificate_chain"):
            given: object = getattr(self, name)
            if not isinstance(given, bytes | None):
                raise InvalidRequestError(f"{name} is {type(given).__name__}; give what the file holds, as bytes")
        if (self.private_key is None) != (self.certificate_chain is None):
            raise InvalidRequestError(
                "private_key and certificate_chain identify the client together; give both or none"
            )

    def __repr__(self) -> str:
        return f"TLS(server_name={self.server_name!r}, client_certificate={self.private_key is not None})"


def open_channel(target: str, *, token: str | None, tls: TLS | bool | None) -> grpc.Channel:
    """Returns a channel to the target, which connects on first use.

    Raises InvalidRequestError for a token on a connection that others could listen to.
    """
    found: grpc.Channel = _open(grpc, target, token, tls)
    return found


def open_async_channel(target: str, *, token: str | None, tls: TLS | bool | None) -> grpc.aio.Channel:
    """Returns a channel as `open_channel` does, for the event loop that runs."""
    found: grpc.aio.Channel = _open(grpc.aio, target, token, tls)
    return found


def following(target: str, opened: Callable[[str], Channel]) -> Callable[[str], Channel]:
    """Returns what opens channels to where the server at `target` sends calls, as `opened` does.

    It raises InvalidRequestError for an address of this machine where the server is on another one, or so it seems:
    anybody may listen here, and would be sent the token.
    """

    def open_other(address: str) -> Channel:
        if is_local(address) and not is_local(target):
            raise InvalidRequestError(
                f"{target} sends calls to {address}, which is on this machine; give that server another --advertise"
            )
        return opened(address)

    return open_other


def _open(module: Any, target: str, token: str | None, tls: TLS | bool | None) -> Any:
    target = with_port(target)
    local = is_local(target)
    if token is not None and not tls and not local:
        raise InvalidRequestError(
            f"a token would travel to {target} in clear text; pass tls=True, or connect over loopback or a unix socket",
            field="token",
        )
    if token is not None and not re.fullmatch(r"[!-~]+", token):
        raise InvalidRequestError(
            "the token is empty, or has characters that a header cannot carry, such as the end of a line; strip it",
            field="token",
        )
    options = [*_OPTIONS, *([("grpc.enable_http_proxy", 0)] if local else [])]
    if not tls:
        return module.insecure_channel(target, options)
    tls = TLS() if tls is True else tls
    if tls.server_name:
        return module.secure_channel(
            target, _credentials(tls), [*options, ("grpc.ssl_target_name_override", tls.server_name)]
        )
    return module.secure_channel(target, _credentials(tls), options)


def with_port(target: str) -> str:
    """Returns the target with Backwire's port when it is only a host name or an IPv4 address."""
    if not target or target != target.strip():
        raise InvalidRequestError(f"{target!r} is no target; give host:port, unix:/path, or 'embedded'", field="target")
    port = re.fullmatch(r"(?:dns:|ipv4:)?[A-Za-z0-9.-]+:(\d+)", target)
    if port and not 0 < int(port[1]) < 2**16:
        raise InvalidRequestError(f"{target!r} has no port of 1 to 65535; give host:port", field="target")
    return f"{target}:{DEFAULT_PORT}" if re.fullmatch(r"[A-Za-z0-9.-]+", target) else target


def is_local(target: str) -> bool:
    """Tells whether the target is a unix socket or a loopback address, whose traffic never leaves the machine."""
    if re.match(r"unix(-abstract)?:", target):
        return True
    host = re.sub(r"^(dns:(//[^/]*/)?|ipv4:|ipv6:|passthrough:/*)", "", target)
    host = re.sub(r":\d+$", "", host).strip("[]")
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _credentials(tls: TLS) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(tls.root_certificates, tls.private_key, tls.certificate_chain)
